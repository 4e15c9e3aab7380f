"""Sections of a detector's report, by hand-made boxes whose numbers are known."""

import csv
import json
import math

import numpy as np
import pytest
from PIL import Image

from eva_report.content import Confusion, Curves, Gallery, Table
from eva_report.detection import detection_sections
from eva_runs.record import read_threshold

LEFT, RIGHT, TOP = [2, 3, 20, 20], [60, 30, 30, 40], [30, 2, 25, 20]


def _label(image, category, box, **more):
    return {"image_id": image, "category_id": category, "bbox": box, "area": 400} | more


def _found(image, category, box, score, **more):
    return {"image_id": image, "category_id": category, "bbox": box, "score": score} | more


@pytest.fixture
def scene(tmp_path):
    """Arguments: cat and dog in four pictures, the best of which is named good.png."""
    names = {"g": "good.png", "w": "wrong.png", "m": "missed.png", "n": "nothing.png"}
    for name in names.values():
        Image.new("RGB", (100, 80), (90, 90, 90)).save(tmp_path / name)
    truth = {
        "images": [
            {"id": key, "file_name": name, "width": 100, "height": 80}
            for key, name in names.items()
        ],
        "annotations": [
            _label("g", "c", LEFT, segmentation=[[2, 3, 22, 3, 22, 23, 2, 23]]),
            _label("g", "d", RIGHT),
            _label("w", "c", LEFT),
            _label("m", "c", LEFT),
            _label("m", "c", RIGHT, iscrowd=1),
        ],
        "categories": [{"id": "c", "name": "cat"}, {"id": "d", "name": "dog"}],
    }
    mask = {"size": [80, 100], "counts": [160, 6400, 1440]}
    predictions = [
        _found("g", "c", LEFT, 0.9, segmentation=mask),
        _found("g", "d", RIGHT, 0.8),
        _found("w", "d", LEFT, 0.7),
        _found("w", "d", TOP, 0.6),
        _found("m", "c", LEFT, 0.4),
    ]
    scores = {
        "bbox": {"AP": 51.0, "APs": 51.0, "APl": math.nan, "AP-cat": 30.5, "AP-dog": 71.5},
        "segm": {"AP": 40.0, "APs": 40.0, "APl": None, "AP-cat": 20.0, "AP-dog": None},
    }
    (tmp_path / "results.json").write_text(json.dumps(predictions, indent=1))
    return {
        "truth": truth,
        "predictions": tmp_path / "results.json",
        "images": {key: tmp_path / name for key, name in names.items()},
        "scores": scores,
        "folder": tmp_path,
    }


def _of(sections, kind):
    """Select sections of a kind, but for those of `test_detection_errors.py`."""
    errors = {"Errors", "Calibration", "Labels to check"}
    return [part for part in sections if isinstance(part, kind) and part.title not in errors]


def test_classes_with_the_lowest_ap_first(scene, tmp_path):
    (table,) = _of(detection_sections(**scene), Table)
    assert table.heads == ["class", "AP box", "AP mask", "objects", "found", "missed", "false"]
    assert table.rows == [["cat", 30.5, 20.0, 3, 1, 2, 0], ["dog", 71.5, None, 1, 1, 0, 2]]
    lines = list(csv.reader((tmp_path / table.complete_in).read_text().splitlines()))
    assert lines == [
        table.heads,
        ["cat", "30.5", "20.0", "3", "1", "2", "0"],
        ["dog", "71.5", "", "1", "1", "0", "2"],
    ]


def test_confusion_of_matches(scene, tmp_path):
    (section,) = _of(detection_sections(**scene), Confusion)
    assert section.classes == ["cat", "dog", "background"]
    assert section.counts.tolist() == [[1, 1, 1], [0, 1, 0], [0, 1, 0]]
    lines = (tmp_path / section.complete_in).read_text().splitlines()
    assert lines[:3] == ["label,prediction,objects", "cat,cat,1", "cat,dog,1"]


def test_curves_over_the_least_score(scene, tmp_path):
    (section,) = _of(detection_sections(**scene), Curves)
    at = {one.name: dict(one.points) for one in section.curves}
    assert at["precision"][0.0] == pytest.approx(3 / 5)
    assert at["recall"][0.0] == pytest.approx(3 / 4)
    assert at["F1"][0.5] == pytest.approx(2 * 2 / (4 + 4))
    assert at["recall"][0.85] == pytest.approx(1 / 4)
    assert np.isnan(at["precision"][1.0])  # nothing is above, and nothing drawn
    assert "0.67, at a confidence of 0.00" in section.text
    assert read_threshold(tmp_path) == 0.0, "what the demo of a run begins with"


def test_worst_and_best_pictures(scene):
    worst, best = _of(detection_sections(**scene), Gallery)
    assert [one.caption for one in worst.examples] == [
        "wrong.png: 0 of 1 found, 2 false",
        "missed.png: 0 of 1 found, 0 false",
    ]
    assert [one.caption for one in best.examples] == ["good.png: 2 of 2 found, 0 false"]
    assert [one.title for one in best.examples[0].images] == ["truth", "prediction"]
    truth, found = (np.asarray(one.image) for one in best.examples[0].images)
    assert truth.shape == found.shape == (480, 600, 3)
    for picture in (truth, found):
        assert (picture[60:120, 60:110] != 90).any(axis=2).mean() > 0.9  # the mask of the cat
        assert (picture[:, 570:] == 90).all()


def test_an_image_that_cannot_be_read_any_more_is_not_drawn(scene, caplog):
    scene["images"]["w"].unlink()
    worst, _ = _of(detection_sections(**scene), Gallery)
    assert [one.caption for one in worst.examples] == ["missed.png: 0 of 1 found, 0 false"]
    assert "wrong.png" in caplog.text


def test_the_threshold_is_that_of_the_best_weights(scene, tmp_path):
    best = tmp_path / "best.json"
    better = [
        _found("g", "c", LEFT, 0.45),
        _found("w", "c", LEFT, 0.45),
        _found("m", "d", TOP, 0.3),
    ]
    best.write_text(json.dumps(better))
    detection_sections(**scene, best=best)
    assert 0.3 < read_threshold(tmp_path) <= 0.45


def test_a_file_of_predictions_is_read_object_by_object(scene, monkeypatch):
    expected = [one.counts.tolist() for one in _of(detection_sections(**scene), Confusion)]
    file = scene["predictions"]
    first = json.loads(file.read_text())[:1]
    monkeypatch.setattr("eva_data.detection.scoring._CHUNK", 7)
    sections = detection_sections(**scene)
    assert [one.counts.tolist() for one in _of(sections, Confusion)] == expected
    for text, message in (
        ('{"a": 1}', "is not a list"),
        (json.dumps(first)[:-1], "not a complete list"),
        ("[1]", "holds 1, without bbox, category_id, image_id, score"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            detection_sections(**scene)
