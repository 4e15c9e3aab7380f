"""Reports of mmdetection's detectors: scores by their usual names, tables, page, predictions."""

import csv
import json
import math

import numpy as np
import pytest

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


def test_a_training_leaves_tables_page_and_predictions(tiny_run, scalars):
    results = json.loads((tiny_run / "results.json").read_text())
    (logged,) = (entry for entry in scalars(tiny_run) if "coco/bbox_mAP" in entry)
    assert results["bbox"]["AP"] == pytest.approx(100 * logged["coco/bbox_mAP"])
    with (tiny_run / "per_class.csv").open() as file:
        classes = list(csv.DictReader(file))
    assert [one["class"] for one in classes] == ["disc", "bar"]
    for kind, title in (("bbox", "box"), ("segm", "mask")):
        of_classes = [float(one[f"AP {title}"]) for one in classes]
        assert np.mean(of_classes) == pytest.approx(results[kind]["AP"], abs=0.06)  # 3 digits
    page = (tiny_run / "report.html").read_text()
    for title in ("Scores", "Losses", "Classes", "Confusion", "Worst pictures"):
        assert f">{title}</h2>" in page
    assert "6 images, 12 objects of 2 classes" in page
    assert "mmdetection/demo.py" in page
    found = json.loads((tiny_run / "inference/coco_instances_results.segm.json").read_text())
    assert {one["category_id"] for one in found} <= {3, 7}
