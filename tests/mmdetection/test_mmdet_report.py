"""Reports of mmdetection's detectors: scores by their usual names, tables, page, predictions."""

import math

from eva_mmdetection.evaluation.sections import percent


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
