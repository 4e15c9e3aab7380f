"""Files of a run: complete or not there, the old ones go last, one run in a folder."""

import errno
import os

import torch

from eva_openmmlab.hooks import CompleteFiles
from eva_segmentation.commands import train


def test_a_full_disk_is_one_line_and_the_checkpoint_before_stays(
    tiny_run, fails, monkeypatch, tmp_path
):
    put = CompleteFiles.put

    def full(self, content, path):
        if "iter_2" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        put(self, content, path)

    monkeypatch.setattr(CompleteFiles, "put", full)
    kept = "default_hooks.checkpoint.max_keep_ckpts=1"
    line = fails(train, tiny_run / "tiny.py", "--work-dir", tmp_path, kept)
    assert "iter_2.pth" in line
    assert "No space left" in line
    (file,) = tmp_path.glob("*.pth")
    assert file.name == "iter_1.pth"
    torch.load(file, weights_only=False)  # written by this test
