"""Files of a run: complete or not there, the old ones go last, one run in a folder."""

import errno
import os
import threading
from types import SimpleNamespace

import torch

from eva_openmmlab.hooks import CompleteFiles, EVACheckpointHook
from eva_openmmlab.loop import EVATrainLoop
from eva_runs.output_folder import RunLogs
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


def test_an_evaluation_is_noted_behind_the_checkpoint_that_has_its_score(tmp_path):
    hook, written = EVACheckpointHook(by_epoch=False), threading.Event()
    loop = EVATrainLoop.__new__(EVATrainLoop)
    hook._save_best_checkpoint = lambda *_: hook.store.writer.submit(written.wait)
    hook.after_val_epoch(SimpleNamespace(work_dir=tmp_path, iter=2, _train_loop=loop), {"mIoU": 1})
    early = [*tmp_path.iterdir()]
    written.set()
    hook.store.writer.wait()
    assert not early
    assert RunLogs(tmp_path, "*").is_evaluated(2)


def test_of_equal_scores_the_later_is_best():
    hook = EVACheckpointHook(save_best="mIoU", rule="greater", by_epoch=False)
    assert hook.is_better_than["mIoU"](50.0, 50.0)
    assert not hook.is_better_than["mIoU"](49.0, 50.0)
