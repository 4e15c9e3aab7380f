"""The small CLIP of `small_clip.py`, in the tests' own process or in others."""

import json
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def small_clip(load_module):
    """The module `small_clip.py`."""
    return load_module(HERE / "small_clip.py")


@pytest.fixture(scope="session")
def launcher(start_launcher):
    """A process that has imported `program.py` and forks for each run."""
    with start_launcher(HERE) as submit:
        yield submit


@pytest.fixture(scope="session")
def launch(launcher, tmp_path_factory):
    """Function: run a command of `program.py` in processes, in a folder of its own; the folder."""

    def run(command, *, ranks=1, **case):
        folder = tmp_path_factory.mktemp(command)
        ended = launcher([command, json.dumps(case | {"output": str(folder)})], ranks=ranks,
                         log=folder / "log_of_rank")  # fmt: skip
        assert ended.codes == [0] * ranks, ended.texts
        return folder

    return run
