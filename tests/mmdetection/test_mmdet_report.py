"""Reports of mmdetection's detectors: scores by their usual names, tables, page, predictions."""

import json
import math

from eva_mmdetection.commands import evaluate, train
from eva_openmmlab.terminal import percent


def test_scores_have_the_names_of_detectron2_in_percent():
    scores = {
        "coco/bbox_mAP": 0.5,
        "coco/bbox_mAP_50": 0.75,
        "coco/bbox_mAP_l": -1.0,
        "coco/segm_mAP_75": math.nan,
        "coco/bbox_mAP_copypaste": 0.1,
        "coco/a cat_precision": 1,
        "lvis/segm_APr": 0.25,
        "lvis/segm_AP": 0.125,
        "mIoU": 3.0,
    }
    assert percent(scores) == {
        "bbox": {"AP": 50, "AP50": 75, "APl": None},
        "segm": {"AP75": None, "APr": 25, "AP": 12.5},
    }


def test_a_training_without_an_evaluation_has_a_page(tiny, launch, tmp_path):
    words = ("--work-dir", tmp_path, "train_cfg.max_iters=1", "train_cfg.val_begin=9")
    launch(train, tiny / "tiny.py", *words)
    assert "nothing was scored" in (tmp_path / "report.html").read_text().lower()
    assert not (tmp_path / "results.json").exists()


def test_an_evaluation_that_detects_nothing_leaves_results(tiny_run, launch, tmp_path):
    words = ("--work-dir", tmp_path, "model.test_cfg.rcnn.score_thr=1.0")
    launch(evaluate, tiny_run, *words)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results == dict.fromkeys(("bbox", "segm"), dict.fromkeys(("AP", "AP50", "AP75")))
    assert (tmp_path / "report.html").is_file()
