"""Files of a run: complete or not there, the old ones go last, one run in a folder."""

import errno
import os
import threading
from types import SimpleNamespace

import torch
from mmengine.hooks import EMAHook
from mmengine.model import ExponentialMovingAverage
from torch import nn

from eva_openmmlab.hooks import CompleteFiles, EVACheckpointHook, RunHook
from eva_openmmlab.loop import EVATrainLoop
from eva_openmmlab.run_folder import EVALUATED
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
    hook.file_backend = CompleteFiles()
    loop = EVATrainLoop.__new__(EVATrainLoop)
    hook._save_best_checkpoint = lambda *_: hook.writer.submit(written.wait)
    hook.after_val_epoch(SimpleNamespace(work_dir=tmp_path, iter=2, _train_loop=loop), {"mIoU": 1})
    early = (tmp_path / EVALUATED).exists()
    written.set()
    hook.writer.wait()
    assert not early
    assert (tmp_path / EVALUATED).read_text() == "2"


def test_a_checkpoint_in_an_evaluation_of_averages_has_both_in_their_places(monkeypatch):
    averages, model = EMAHook(), nn.Linear(2, 2)
    averages.src_model, averages.ema_model = model, ExponentialMovingAverage(model)
    before = model.weight.detach().clone()
    with torch.no_grad():
        averages.ema_model.module.weight.zero_()
    averages.before_val_epoch(None)
    hook, saved = RunHook(), []
    hook._stop.received = "SIGTERM"
    monkeypatch.setattr(hook, "_save_and_exit", lambda *_, **__: saved.append(model.weight.clone()))
    loop = EVATrainLoop.__new__(EVATrainLoop)
    hook.after_val_iter(SimpleNamespace(hooks=[averages], iter=2, _train_loop=loop))
    assert torch.equal(saved[0], before)
    assert not averages.ema_model.module.weight.any()
