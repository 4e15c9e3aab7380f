"""Files of a run: complete or not there, the old ones go last, one run in a folder."""

import errno
import os

import pytest
import torch

from eva_openmmlab.hooks import CompleteFiles
from eva_segmentation.commands import train


@pytest.fixture
def command(tiny_run, tmp_path):
    """A training in `run` that keeps one checkpoint."""
    kept = "default_hooks.checkpoint.max_keep_ckpts=1"
    return [train, tiny_run / "tiny.py", "--work-dir", tmp_path / "run", kept]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


def names(folder):
    return sorted(path.name for path in folder.glob("*.pth"))


def read(file):
    return torch.load(file, weights_only=False)  # written by these tests


def test_a_full_disk_is_one_line_and_the_checkpoint_before_stays(
    command, folder, fails, monkeypatch
):
    put = CompleteFiles.put

    def full(self, content, path):
        if "iter_2" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        put(self, content, path)

    monkeypatch.setattr(CompleteFiles, "put", full)
    line = fails(*command)
    assert "iter_2.pth" in line
    assert "No space left" in line
    assert names(folder) == ["iter_1.pth"]
    read(folder / "iter_1.pth")
