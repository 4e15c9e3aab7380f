"""The command line that a recipe gets."""

import logging

import pytest

from eva_engine.commands import training as command_line
from eva_engine.commands.options import add_weights, new_parser, parse_with_weights
from eva_report.terminal import SHOWN

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
        command_line.main(program.Config, train, program="train.py", arguments=arguments, **more)

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


def test_help_of_a_recipe_explains_every_value(run, recipe, program, capsys):
    with pytest.raises(SystemExit) as end:
        run(recipe, "--help")
    assert end.value.code == 0
    shown = capsys.readouterr().out
    config = program.Config(run=program.RunConfig(output="x"))
    for part in ("run", "optimizer"):
        for name in vars(getattr(config, part)):
            assert f"{part}.{name.replace('_', '-')}" in shown
    assert "(default: 5)" in " ".join(shown.replace("│", " ").split())


@pytest.mark.parametrize(("option", "value"), [
    (("run.epoch=3",), "--run.epochs"), (("--run.precision", "fp8"), "fp8"),
    (("--run.output", "--run.resume"), "run.output"),
])  # fmt: skip
def test_a_wrong_option_or_value_is_an_error(ends, recipe, option, value):
    code, said = ends(recipe, *option)
    assert code == 2
    assert value in said


@pytest.mark.parametrize(("text", "value"), [
    (None, "none.py"), ("x = 1", "none.py"),
    ("from eva_engine.config import *\nOptimizerConfig(lr=-1)", "lr"),
])  # fmt: skip
def test_a_wrong_recipe(ends, tmp_path, text, value):
    if text:
        (tmp_path / "none.py").write_text(text)
    code, said = ends(str(tmp_path / "none.py"))
    assert code == 2
    assert value in said


@pytest.mark.parametrize("error", [
    ValueError("value and fix"), FloatingPointError("value and fix"), KeyError("value and fix"),
])  # fmt: skip
def test_an_error_is_one_line_and_a_traceback_in_the_log(ends, recipe, tmp_path, error):
    def train(config, device):
        (tmp_path / "run/metrics.jsonl").touch()  # the run has begun
        raise error

    code, said = ends(recipe, train=train)
    assert code == 1
    assert "value and fix" in said
    assert ("nothing is saved" in said) == isinstance(error, FloatingPointError)
    assert "Traceback" not in said
    assert "Traceback" in (tmp_path / "run/log.txt").read_text()


@pytest.mark.parametrize("earlier", [None, "run/notes.txt"])
def test_a_refused_run_leaves_nothing(ends, recipe, tmp_path, earlier):
    def train(config, device):
        logging.getLogger("eva_engine").warning("about the data")
        (tmp_path / "run/checkpoints").mkdir()
        raise ValueError("value and fix")

    if earlier:
        (tmp_path / "run").mkdir()
        (tmp_path / earlier).touch()
    before, handlers = {*tmp_path.rglob("*")}, logging.getLogger().handlers[:]
    assert ends(recipe, train=train)[0] == 1
    assert {*tmp_path.rglob("*")} == before
    assert logging.getLogger().handlers == handlers


def test_a_log_on_a_full_disk_is_mentioned_once(run, recipe, tmp_path, capsys):
    """Python's own handler would print a traceback for each line."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/log.txt").symlink_to("/dev/full")

    def train(config, device):
        for number in range(3):
            logging.getLogger("project").info("step %d", number, extra=SHOWN)

    run(recipe, train=train)
    output = capsys.readouterr().err
    assert output.count("log.txt cannot be written: No space left on device") == 1
    assert "step 2" in output
    assert "Traceback" not in output


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
