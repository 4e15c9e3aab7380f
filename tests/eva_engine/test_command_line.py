"""The command line that a recipe gets."""

import pytest

from eva_engine.commands import training as command_line
from eva_engine.commands.options import add_weights, new_parser, parse_with_weights

RECIPE = """
from program import Config
from eva_engine.config import RunConfig

config = Config(
    run=RunConfig(output="OUTPUT", epochs=5, workers=0, tensorboard=False, device="cpu")
)
"""


@pytest.fixture
def recipe(program, tmp_path):
    """A recipe file."""
    file = tmp_path / "small.py"
    file.write_text(RECIPE.replace("OUTPUT", str(tmp_path / "run")))
    return str(file)


@pytest.fixture
def run(program, device):
    """Function: the command line of a program whose training is a given function."""

    def start(*arguments, train=lambda config, device: None, **more):
        command_line.training_command(program.Config, train, program="train.py", **more)(arguments)

    return start


@pytest.fixture
def ends(run, capsys):
    """Function: exit code and standard error of a command line that fails."""

    def start(*arguments, **more):
        with pytest.raises(SystemExit) as end:
            run(*arguments, **more)
        return end.value.code, " ".join(capsys.readouterr().err.replace("│", " ").split())

    return start


@pytest.fixture
def parsed(program):
    """Function: the config of a command line."""
    return lambda *words: command_line.parse(program.Config, words, program="train.py").config


@pytest.mark.parametrize("order", [1, -1])
def test_values_before_or_after_the_recipe_and_as_pairs(parsed, recipe, order):
    words = [["--run.epochs", "7"], ["run.resume=true"], ["bad=(1, 2)"], [recipe],
             ["run.tensorboard=False"], ["--run.seed=3"], ["--local_rank=1"]]  # fmt: skip
    config = parsed(*(word for part in words[::order] for word in part))
    assert (config.run.epochs, config.run.resume, config.bad) == (7, True, (1, 2))
    assert (config.run.tensorboard, config.run.seed) == (False, 3)


def test_a_path_may_look_like_a_setting(parsed, recipe):
    run = parsed(recipe, "--run.output", "lr=1/out", "run.seed=4").run
    assert (str(run.output), run.seed) == ("lr=1/out", 4)


def test_a_run_without_a_checkpoint_has_its_folder(parsed, recipe, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.jsonl").touch()
    assert parsed(recipe).run.output.name == "run"
    (tmp_path / "run/metrics.jsonl").write_text('{"step": 0}\n')
    assert parsed(recipe).run.output.name == "run-2"
    assert parsed(recipe, "--resume").run.output.name == "run"


def test_epochs_and_the_size_of_images_have_one_name_everywhere(parsed, recipe):
    from eva_pretrain.config import PretrainConfig
    from eva_video.config import VideoConfig

    assert parsed(recipe, "--epochs", "7").run.epochs == 7
    words = ["eva_debug_motion", "--image-size", "64", "--epochs=2"]
    config = command_line.parse(VideoConfig, words, program="video/train.py").config
    assert (config.model.image_size, config.run.epochs) == (64, 2)
    words = ["--image-size", "128", "eva_debug_digit_scenes"]
    config = command_line.parse(PretrainConfig, words, program="pretrain/train.py").config
    assert (config.student.image_size, config.teacher.image_size) == (128, 128)
    assert config.mask.num_masked == 104  # of four times the patches


@pytest.mark.parametrize("error", [
    ValueError("value and fix"), FloatingPointError("value and fix"), KeyError("value and fix"),
])  # fmt: skip
def test_an_error_is_one_line_and_a_traceback_in_the_log(ends, recipe, tmp_path, error):
    def train(config, device, recipe):
        (tmp_path / "run/metrics.jsonl").touch()  # the run has begun
        raise error

    code, said = ends(recipe, train=train)
    assert code == 1
    assert "value and fix" in said
    assert ("nothing is saved" in said) == isinstance(error, FloatingPointError)
    assert "Traceback" not in said
    assert "Traceback" in (tmp_path / "run/log.txt").read_text()


@pytest.mark.parametrize(("words", "weights"), [
    (["a.pt"], "a.pt"), (["--weights", "a.pt"], "a.pt"), (["a.pt", "--weights", "b.pt"], None),
    ([], None),
])  # fmt: skip
def test_weights_are_a_word_or_a_flag(words, weights):
    parser = new_parser("program", "Runs a model.")
    add_weights(parser, alone=True)
    if weights is not None:
        assert parse_with_weights(parser, words).weights == weights
        return
    with pytest.raises(SystemExit) as end:
        parse_with_weights(parser, words)
    assert end.value.code == 2
