"""Runs of `program.py`, in the tests' own process or in others."""

import contextlib
import sys
from pathlib import Path

import pytest

from eva_engine.config import RunConfig

HERE = Path(__file__).parent
RUN = {"epochs": 3, "batch_size": 8, "workers": 0, "tensorboard": False, "device": "cpu"}


@pytest.fixture(scope="session")
def program(load_module):
    """The module `program.py`."""
    yield load_module(HERE / "program.py")
    del sys.modules["program"]


@pytest.fixture
def make_config(program, tmp_path):
    """Function: a config of `program`, with changes to its `RunConfig` and to itself."""

    def make(output="run", *, rest=None, **run):
        return program.Config(run=RunConfig(output=tmp_path / output, **RUN | run), **(rest or {}))

    return make


@pytest.fixture
def start(program, make_config, device):
    """Function: run to the end in this process; the `TrainingRun`."""

    def run(output="run", *, changes=None, rest=None, **settings):
        run = program.make_run(
            make_config(output, rest=rest, **settings), device, **(changes or {})
        )
        run.start()
        return run

    return run


class Killed(BaseException):
    """Ends a run as SIGKILL would: nothing here may catch it."""


@pytest.fixture(scope="session")
def killed():
    """Function: context in which a call of a function ends the run before it."""

    @contextlib.contextmanager
    def at_call(owner, name, call):
        original, calls = getattr(owner, name), []

        def killing(*args, **kwargs):
            calls.append(1)
            if len(calls) == call:
                raise Killed
            return original(*args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, killing)
            with pytest.raises(Killed):
                yield

    return at_call


@pytest.fixture(scope="session")
def launcher(start_launcher):
    """A process that has imported everything and forks for each run."""
    with start_launcher(HERE) as submit:
        yield submit


@pytest.fixture
def launch(launcher, tmp_path):
    """Function: start the program in processes of its own, wait, and return how they ended."""
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "from program import Config\nfrom eva_engine.config import RunConfig\n"
        f"config = Config(run=RunConfig(output='unused', **{RUN!r}))\n"
    )

    def run(output, *, ranks=1, limit=60, signal=None, lines=0, after=0.0, group=False,
            file_size=0, **options):  # fmt: skip
        arguments = [str(recipe), "--run.output", str(output)]
        for name, value in options.items():
            option = "--" + name.replace("__", ".").replace("_", "-")
            if isinstance(value, bool):
                head, dot, tail = option.rpartition(".")
                no = head + dot + "no-" + tail if dot else "--no-" + option[2:]
                arguments.append(option if value else no)
            else:
                values = value if isinstance(value, tuple) else (value,)
                arguments += [option, *map(str, values)]
        return launcher(
            arguments, log=tmp_path / "log_of_rank", ranks=ranks, limit=limit, signal=signal,
            metrics=str(Path(output) / "metrics.jsonl"), lines=lines, after=after, group=group,
            file_size=file_size,
        )  # fmt: skip

    return run
