"""The small CLIP of `small_clip.py`, in the tests' own process or in others."""

import json
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def small_clip(load_module):
    """The module `small_clip.py`."""
    return load_module(HERE.parent / "small_clip.py")


@pytest.fixture(scope="session")
def launch(launcher, tmp_path_factory):
    """Function: run a function of `small_clip.py` in two processes; the folder that it wrote."""

    def run(command, **settings):
        folder, logs = tmp_path_factory.mktemp(command), tmp_path_factory.mktemp("logs")
        ended = launcher([command, str(folder), json.dumps(settings)], ranks=2, log=logs / "rank")
        assert ended.codes == [0, 0], ended.texts
        return folder

    return run
