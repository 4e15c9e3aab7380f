"""Files of a run: complete or not there, the old ones go last, one run in a folder."""

import errno
import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.runner import EpochBasedTrainLoop

from eva_openmmlab.checkpoint_hook import BEST_PREDICTIONS, CompleteFiles, EVACheckpointHook
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


@pytest.mark.parametrize(
    ("scores", "losses", "best"),
    [((50, 50), (2, 2), 2), ((50, 50), (2, 1), 2), ((50, 50), (1, 2), 1), ((50, 51), (1, 2), 2)],
)
def test_of_equal_scores_that_of_the_least_loss_is_best_then_the_later(
    scores, losses, best, tmp_path
):
    hub = MessageHub.get_instance(str(tmp_path))
    metric = SimpleNamespace(outfile_prefix=str(tmp_path / "all"))
    runner = SimpleNamespace(
        work_dir=str(tmp_path), message_hub=hub, epoch=0, logger=logging.getLogger(),
        save_checkpoint=lambda *_, **__: None, train_loop=SimpleNamespace(val_interval=1),
        val_evaluator=SimpleNamespace(metrics=[metric]),
    )  # fmt: skip
    hook = EVACheckpointHook(save_best="mIoU", rule="greater", by_epoch=False)
    hook.before_train(runner)
    for runner.iter, (score, loss) in enumerate(zip(scores, losses, strict=True), start=1):
        hub.update_scalar("train/loss", loss)
        (tmp_path / "all.bbox.json").write_text(str(runner.iter))
        hook._save_best_checkpoint(runner, {"mIoU": score})
    assert Path(hook.best_ckpt_path).name == f"best_mIoU_iter_{best}.pth"
    assert (tmp_path / BEST_PREDICTIONS).read_text() == str(best)


def test_the_loss_of_equal_scores_is_that_of_whole_epochs(tmp_path):
    hub, loop = MessageHub.get_instance(str(tmp_path)), object.__new__(EpochBasedTrainLoop)
    loop.val_interval, loop.dataloader = 1, [None, None]
    runner = SimpleNamespace(work_dir=str(tmp_path), message_hub=hub, train_loop=loop)
    runner.epoch, runner.iter, runner.logger = 0, 0, logging.getLogger()
    runner.save_checkpoint = lambda *_, **__: None
    runner.val_evaluator = SimpleNamespace(metrics=[])
    hook = EVACheckpointHook(save_best="mIoU", rule="greater", by_epoch=False)
    hook.before_train(runner)
    for losses in ((1.0, 1.0), (3.0, 0.5)):
        runner.iter += 2
        for loss in losses:
            hub.update_scalar("train/loss", loss)
        hook._save_best_checkpoint(runner, {"mIoU": 50})
    assert Path(hook.best_ckpt_path).name == "best_mIoU_iter_2.pth"
