"""Reports of segmentors: what was counted, what the page holds, and that it never fails a run."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from eva_openmmlab.report import write_report
from eva_segmentation.evaluation import sections
from eva_segmentation.evaluation.metric import IoUAndConfusion, PictureScore
from eva_segmentation.evaluation.sections import class_scores

NAMES = ("brick", "grass", "gravel", "other", "digit")
IGNORED = 255


def sample(path, label, found):
    def data(rows):
        return {"data": torch.tensor([rows])}

    return {"img_path": path, "gt_sem_seg": data(label), "pred_sem_seg": data(found)}


def metric(**settings):
    made = IoUAndConfusion(iou_metrics=["mIoU"], **settings)
    made.dataset_meta = {"classes": ["a", "b", "c"]}
    return made


def test_pixels_are_counted_by_label_and_prediction_over_all_processes():
    one, other = metric(), metric()
    one.process(None, [sample("1.png", [[0, 0], [1, IGNORED]], [[0, 1], [1, 2]])])
    other.process(None, [sample("2.png", [[1, 1], [1, 1]], [[0, 0], [0, 1]])])
    other.process(None, [sample("3.png", [[IGNORED] * 2] * 2, [[0, 0], [0, 1]])])
    scores = one.compute_metrics([*one.results, *other.results])  # gathered by mmengine
    np.testing.assert_array_equal(one.confusion, [[1, 1, 0], [3, 2, 0], [0, 0, 0]])
    # of picture 1: class 0 has 1 of 2, class 1 has 1 of 2; a picture without labels has no score
    assert one.pictures == [PictureScore("1.png", 0.5), PictureScore("2.png", 0.25)]
    classes = class_scores(["a", "b", "c "], one.confusion)
    assert classes[0] == {"class": "a", "IoU": 20, "Acc": 50, "share": 100 * 2 / 7, "pixels": 2}
    assert classes[2] == {"class": "c", "IoU": None, "Acc": None, "share": 0, "pixels": 0}
    known = [one["IoU"] for one in classes if one["IoU"] is not None]
    assert scores["mIoU"] == pytest.approx(np.mean(known), abs=0.005)


@pytest.fixture(scope="module")
def evaluated(tiny_run, launch):
    """Folder of an evaluation of the tiny run, whose config and weights are found by its folder."""
    from eva_segmentation.evaluation import evaluate

    folder = tiny_run / "evaluated"
    launch(evaluate, tiny_run / "run", "--work-dir", folder)
    return folder


@pytest.fixture(params=["training", "evaluation"])
def folder(request, tiny_run, evaluated):
    """Folder of each."""
    return tiny_run / "run" if request.param == "training" else evaluated


def test_tables_beside_the_report_agree_with_the_scores(folder):
    scores = json.loads((folder / "results.json").read_text())["sem_seg"]
    with (folder / "per_class.csv").open() as file:
        classes = list(csv.DictReader(file))
    assert tuple(one["class"] for one in classes) == NAMES
    ious = [float(one["IoU"]) for one in classes if one["IoU"]]
    assert np.mean(ious) == pytest.approx(scores["mIoU"], abs=0.01)
    with (folder / "confusion.csv").open() as file:
        counts = np.array([row[1:] for row in csv.reader(file)][1:], int)
    assert 100 * counts.trace() / counts.sum() == pytest.approx(scores["aAcc"], abs=0.01)
    assert {f"IoU-{name}" for name in NAMES} <= {*scores}


def test_a_report_that_fails_is_a_warning(tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("no such metric")

    monkeypatch.setattr(sections, "make_report", fail)
    run = SimpleNamespace(work_dir=str(tmp_path))
    assert write_report(run, "training", sections.__name__) is None
    assert write_report(run, "training", "eva_segmentation.nowhere") is None
    assert "no report.html" in caplog.text
    assert not [*Path(tmp_path).iterdir()]
