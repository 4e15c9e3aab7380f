"""The best weights, where a metric has not given the score that decides."""

import logging
from types import SimpleNamespace

import pytest

from eva_openmmlab.training.checkpoint_hook import EVACheckpointHook


@pytest.mark.parametrize(
    ("save_best", "metrics"),
    [
        ("coco/bbox_mAP", {}),  # mmdetection's metric without any detection
        ("coco/bbox_mAP", {"coco/segm_mAP": 0.5}),
        (["coco/bbox_mAP", "coco/segm_mAP"], {}),
        ("auto", {}),
    ],
)
def test_a_score_that_is_missing_does_not_end_the_run(save_best, metrics, caplog):
    hook = EVACheckpointHook(interval=1, by_epoch=False, save_best=save_best, rule="greater")
    saved = []
    runner = SimpleNamespace(
        epoch=0,
        iter=3,
        logger=logging.getLogger("runner"),
        message_hub=SimpleNamespace(runtime_info={}, update_info=lambda *_: None),
        save_checkpoint=lambda *args, **_: saved.append(args),
    )
    hook._save_best_checkpoint(runner, metrics)
    assert saved == []
    name = "bbox_mAP" if save_best != "auto" else "score"
    assert "iteration 3" in caplog.text
    assert name in caplog.text
