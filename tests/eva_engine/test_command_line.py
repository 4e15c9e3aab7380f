"""The command line that a recipe gets."""

import json
import logging
import sys
import warnings

import pytest

from eva_engine import distributed
from eva_engine.commands import ending as text_log
from eva_engine.commands import training as command_line
from eva_engine.data.order import TooManyBadSamplesError
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
def run(program, monkeypatch):
    """Function: the command line of a program whose training is a given function."""
    monkeypatch.setattr(distributed, "stop", lambda: None)  # other tests need the group
    root, levels = logging.getLogger(), (logging.root.level, command_line.logger.level)
    handlers = list(root.handlers)

    def start(*arguments, train=lambda config, device: None, **more):
        command_line.main(program.Config, train, program="train.py", arguments=arguments, **more)

    yield start
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    command_line.logger.setLevel(levels[1])


def test_options_override_the_recipe(program, recipe):
    arguments = [recipe, "--run.epochs", "7", "--run.resume", "--bad", "1", "2", "--print-config"]
    config, only_print, *_ = command_line.parse(program.Config, arguments, program="train.py")
    assert (config.run.epochs, config.run.resume, config.bad) == (7, True, (1, 2))
    assert config.run.workers == 0
    assert only_print


@pytest.mark.parametrize("order", [1, -1])
def test_values_before_or_after_the_recipe_and_as_pairs(program, recipe, order):
    words = [["--run.epochs", "7"], ["run.resume=true"], ["bad=(1, 2)"], [recipe],
             ["run.tensorboard=False"], ["--run.seed=3"]]  # fmt: skip
    arguments = [word for part in words[::order] for word in part]
    config, *_ = command_line.parse(program.Config, arguments, program="train.py")
    assert (config.run.epochs, config.run.resume, config.bad) == (7, True, (1, 2))
    assert (config.run.tensorboard, config.run.seed) == (False, 3)


def test_a_folder_with_a_run_is_refused_before_anything_is_imported(run, recipe, tmp_path):
    step = tmp_path / "run/checkpoints/step_00000004"
    step.mkdir(parents=True)
    (step / "COMPLETE").write_text('{"model.safetensors": 1}')
    (step / "model.safetensors").write_text("x")
    with pytest.raises(SystemExit, match="has a run that reached step_00000004: continue it"):
        run(recipe, train=None, check=lambda config: pytest.fail("weights may be downloaded"))


@pytest.mark.parametrize("value", ["lr=0.1", "-odd", "a b=c", "-1", "a" * 300])
@pytest.mark.parametrize("form", [["--run.output", "{}"], ["--run.output={}"], ["run.output={}"]])
def test_a_value_may_look_like_a_setting_or_a_flag(program, recipe, value, form):
    arguments = [word.format(value) for word in form]
    config, *_ = command_line.parse(
        program.Config, [*arguments, recipe, "run.epochs=7"], program="train.py"
    )
    assert (str(config.run.output), config.run.epochs) == (value, 7)


def test_option_of_the_launcher_deepspeed(program, recipe):
    arguments = ["--local_rank=1", recipe, "--run.epochs", "7"]
    config, *_ = command_line.parse(program.Config, arguments, program="train.py")
    assert config.run.epochs == 7


def test_print_config(run, recipe, capsys, tmp_path):
    run(recipe, "--print-config", "--run.seed", "3", train=None)
    shown = json.loads(capsys.readouterr().out)
    assert shown["run"]["seed"] == 3
    assert shown["run"]["epochs"] == 5
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("arguments", "code"), [((), 2), (("--help",), 0), (("-h",), 0)])
def test_help_without_a_recipe(run, capsys, arguments, code):
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    assert end.value.code == code
    shown = capsys.readouterr().out
    assert "usage: train.py RECIPE [--print-config] [--no-download] [--name VALUE ...]" in shown
    assert "With a recipe, --help lists all its values" in " ".join(shown.split())


def test_help_of_a_recipe_explains_every_value(run, recipe, program, capsys):
    with pytest.raises(SystemExit) as end:
        run(recipe, "--help")
    assert end.value.code == 0
    shown = capsys.readouterr().out
    config = program.Config(run=program.RunConfig(output="x"))
    for part in ("run", "optimizer"):
        for name in vars(getattr(config, part)):
            assert f"{part}.{name.replace('_', '-')}" in shown
    words = " ".join(shown.replace("│", " ").split())
    assert "Order of the data, augmentation, initialisation and stochastic depth" in words
    assert "Learning-rate factor between neighbouring layers" in words
    assert "(default: 5)" in words


@pytest.mark.parametrize(("option", "text"), [
    (("--run.epoch", "3"), "train.py: there is no setting --run.epoch; close to it: --run.epochs"),
    (("run.epoch=3",), "train.py: there is no setting run.epoch; close to it: run.epochs"),
    (("epochs=3",), "there is no setting epochs; close to it: run.epochs"),
    (("--run.epochs", "many"), "--run.epochs must be an integer, got 'many'"),
    (("--optimizer.lr", "high"), "--optimizer.lr must be a number, got 'high'"),
    (("--run.epochs", "0"), "epochs must be at least 1, got 0"),
    (("--run.precision", "fp8"), "invalid choice 'fp8'"),
    (("--run.output", "--run.resume"), "run.output"),
    (("--run.output",), "run.output"),
])  # fmt: skip
def test_a_wrong_option_or_value_is_an_error(run, recipe, capsys, option, text):
    with pytest.raises(SystemExit) as end:
        run(recipe, *option)
    assert end.value.code == 2
    assert text in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.parametrize(("text", "message"), [
    (None, "train.py: no recipe '.*none.py'"),
    ("x = 1", "train.py: none.py defines no `config` of Config"),
    ("from eva_engine.config import *\nOptimizerConfig(lr=-1)", "train.py: lr must be at least 0"),
])  # fmt: skip
def test_a_wrong_recipe_is_one_sentence(run, tmp_path, text, message):
    if text:
        (tmp_path / "none.py").write_text(text)
    with pytest.raises(SystemExit, match=message):
        run(str(tmp_path / "none.py"))


@pytest.mark.parametrize("error", [
    ValueError("value and fix"), FloatingPointError("value and fix"),
    TooManyBadSamplesError("value and fix"), FileNotFoundError("value and fix"),
])  # fmt: skip
def test_an_expected_end_is_one_sentence_and_a_traceback_in_the_file(
    run, recipe, device, tmp_path, capsys, error
):
    def train(config, device):
        (tmp_path / "run/metrics.jsonl").touch()  # the run has begun
        raise error

    saved = "; nothing is saved, and .*" if isinstance(error, FloatingPointError) else ""
    with pytest.raises(SystemExit, match=rf"^train.py: value and fix{saved}$"):
        run(recipe, train=train)
    assert "Traceback" in (tmp_path / "run/log.txt").read_text()
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
def test_warnings_of_the_users_own_modules_are_shown_once(run, recipe, device, tmp_path, capsys):
    def train(config, device):
        for file in ("/lib/site-packages/timm/x.py", "heads.py", "heads.py"):
            warnings.warn_explicit("too slow", UserWarning, file, 7, registry={})

    run(recipe, train=train)
    shown = "warning: UserWarning: too slow (heads.py, line 7)"
    assert [line for line in capsys.readouterr().err.splitlines() if "slow" in line] == [shown]
    assert (tmp_path / "run/log.txt").read_text().count("UserWarning: too slow") == 3


@pytest.mark.parametrize("earlier", [None, "run", "run/notes.txt"])
def test_a_refused_run_leaves_nothing(run, recipe, device, tmp_path, earlier):
    def train(config, device):
        logging.getLogger("eva_engine").warning("about the data")
        (tmp_path / "run/checkpoints").mkdir()
        raise ValueError("value and fix")

    if earlier:
        (tmp_path / "run").mkdir()
        (tmp_path / earlier).touch()
    before, handlers = {*tmp_path.rglob("*")}, logging.getLogger().handlers[:]
    with pytest.raises(SystemExit, match=r"^train.py: value and fix$"):
        run(recipe, train=train)
    assert {*tmp_path.rglob("*")} == before
    assert logging.getLogger().handlers == handlers


def test_another_process_of_a_refused_run_keeps_its_sentence(run, recipe, tmp_path, monkeypatch):
    """Its log has no place any more: the main process has removed the folder."""

    def train(config, device):
        raise ValueError("value and fix")

    monkeypatch.setattr(distributed, "rank", lambda: 1)
    with pytest.raises(SystemExit, match=r"^train.py: value and fix$"):
        run(recipe, train=train)
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()  # not removed yet
    with pytest.raises(SystemExit, match=r"^train.py: value and fix$"):
        run(recipe, train=train)
    assert not [*(tmp_path / "run").iterdir()]


def test_warnings_of_another_process_are_in_its_log_alone(tmp_path, monkeypatch, capsys):
    """What all processes warn of, the main one shows."""
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    with text_log.logging_to(tmp_path):
        logging.getLogger("eva_engine").warning("the average is slow")
    assert "the average is slow" in (tmp_path / "log_rank1.txt").read_text()
    with text_log.logging_to(tmp_path / "nowhere"):
        for _ in range(2):
            logging.getLogger("eva_engine").warning("the average is slow")
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"{tmp_path}/nowhere/log_rank1.txt cannot be written: No such file or directory"


def test_an_unexpected_error_stays_one(run, recipe, device, tmp_path):
    def train(config, device):
        raise KeyError("a mistake of ours")

    with pytest.raises(KeyError):
        run(recipe, train=train)
    assert "a mistake of ours" in (tmp_path / "run/log.txt").read_text()


def test_ctrl_c_is_130(run, recipe, device):
    def train(config, device):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        run(recipe, train=train)
    assert end.value.code == 130


def test_what_is_logged_where(run, recipe, device, tmp_path, capsys):
    def train(config, device):
        logger = logging.getLogger("project")
        logger.info("step 1")
        logger.info("\x1b[1mweights\x1b[0m", extra=SHOWN)
        logger.warning("odd")
        sys.stdout.write("done")

    run(recipe, train=train)
    output = capsys.readouterr()
    assert output.out == "done"
    assert output.err == "weights\nwarning: odd\n"
    lines = (tmp_path / "run/log.txt").read_text().splitlines()[-3:]
    assert [line[15:] for line in lines] == [
        "I project: step 1", "I project: weights", "W project: odd"
    ]  # fmt: skip


def test_what_follows_from_the_flags_is_said_and_done(run, recipe, tmp_path, capsys):
    def adapt(flags, default):
        assert (flags, default.run.epochs) == (["--run.epochs", "3"], 5)
        return [*flags, "--run.seed", "7"], "the seed is 7, since there are 3 epochs"

    seeds = []
    run(recipe, "run.epochs=3", train=lambda config, _: seeds.append(config.run.seed), adapt=adapt)
    assert seeds == [7]
    assert "the seed is 7, since" in capsys.readouterr().err
    assert "the seed is 7, since" in (tmp_path / "run" / "log.txt").read_text()


def test_a_log_on_a_full_disk_is_mentioned_once(run, recipe, device, tmp_path, capsys):
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


def test_a_config_that_cannot_be_shown_is_one_sentence(run, recipe, monkeypatch, capsys):
    """`--print-config >&-`: Python has no standard output then."""
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(SystemExit) as ended:
        run(recipe, "--print-config", train=None)
    assert ended.value.code == 1
    assert "the standard output is closed" in capsys.readouterr().err
