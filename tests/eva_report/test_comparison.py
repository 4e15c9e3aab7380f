"""Paired bootstrap of two evaluations: closed forms, hand-made runs, what cannot be compared."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from eva_report.comparison import compare, note_samples, write_areas, write_predictions

N = 400


def classifier(folder: Path, right: np.ndarray, *, prefix: str = "") -> Path:
    rows = [(f"{prefix}{i}", "cat", "cat" if ok else "dog", 0.5) for i, ok in enumerate(right)]
    write_predictions(folder, rows)
    return folder


def test_top1_differs_by_what_the_normal_distribution_says(tmp_path: Path) -> None:
    first = np.arange(N) < 200
    second = (np.arange(N) < 200) | (np.arange(N) >= 360)  # 40 more, and none less
    (entry,) = compare(
        classifier(tmp_path / "a", first), classifier(tmp_path / "b", second), draws=4000
    )
    assert (entry.metric, entry.first, entry.second) == ("top1", 50.0, 60.0)
    deviation = 100 * np.sqrt(0.1 * 0.9 / N)  # of a share of 10 % of paired differences
    assert entry.low == pytest.approx(10 - 1.96 * deviation, abs=0.25)
    assert entry.high == pytest.approx(10 + 1.96 * deviation, abs=0.25)
    assert entry.is_clear


def test_equal_predictions_do_not_differ(tmp_path: Path) -> None:
    right = np.random.default_rng(0).random(N) < 0.7
    folders = [classifier(tmp_path / name, right) for name in "ab"]
    (entry,) = compare(*folders)
    assert (entry.low, entry.high, entry.is_clear) == (0.0, 0.0, False)


def test_data_may_be_named_by_another_path(tmp_path: Path) -> None:
    for name, root in (("first", "data/val"), ("second", "/mnt/data/val")):
        rows = [
            (f"{root}/{label}/{k}.png", label, "cat", 0.5) for k, label in enumerate(["cat", "dog"])
        ]
        write_predictions(tmp_path / name, rows)
    (difference,) = compare(tmp_path / "first", tmp_path / "second")
    assert (difference.first, difference.second) == (50, 50)


def test_mean_iou_sums_pixels_before_it_divides(tmp_path: Path) -> None:
    union = np.array([[10, 0], [30, 20]])
    names = ["a.png", "b.png"]
    write_areas(tmp_path / "a", names, np.array([[5, 0], [15, 5]]), union)
    order = [1, 0]  # of other processes
    write_areas(
        tmp_path / "b",
        [names[i] for i in order],
        np.array([[10, 0], [30, 20]])[order],
        union[order],
    )
    (entry,) = compare(tmp_path / "a", tmp_path / "b", draws=50)
    assert entry.first == pytest.approx(100 * (20 / 40 + 5 / 20) / 2)
    assert entry.second == 100


def detector(folder: Path, truth: dict[str, object], shift: float) -> Path:
    annotations = folder.parent / "truth.json"
    annotations.write_text(json.dumps(truth))
    folder.mkdir()
    predictions = [
        {
            "image_id": entry["image_id"],
            "category_id": 1,
            "bbox": [entry["bbox"][0] + shift, *entry["bbox"][1:]],
            "score": 0.5 + 0.001 * entry["id"],
        }
        for entry in truth["annotations"]  # type: ignore[attr-defined]
    ]
    (folder / "results.json").write_text(json.dumps(predictions))
    note_samples(folder, "detection", truth=annotations, predictions="results.json")
    return folder


def test_box_ap_is_that_of_pycocotools(tmp_path: Path) -> None:
    boxes = np.random.default_rng(0).uniform(10, 60, (60, 4)).round(1)
    truth = {
        "images": [{"id": i, "width": 200, "height": 200} for i in range(20)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": i + 1, "image_id": i % 20, "category_id": 1, "iscrowd": 0}
            | {"bbox": box.tolist(), "area": float(box[2] * box[3])}
            for i, box in enumerate(boxes)
        ],
    }
    folders = [detector(tmp_path / name, truth, shift) for name, shift in (("a", 6), ("b", 2))]
    table = {entry.metric: entry for entry in compare(*folders, draws=100)}
    theirs = COCO(str(tmp_path / "truth.json"))
    scorer = COCOeval(theirs, theirs.loadRes(str(folders[0] / "results.json")), "bbox")
    scorer.evaluate()
    scorer.accumulate()
    scorer.summarize()
    assert table["box AP"].first == pytest.approx(100 * scorer.stats[0])
    assert table["box AP"].is_clear
    assert table["box AP"].second > table["box AP"].first


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    right = np.ones(3, bool)
    run = classifier(tmp_path / "a", right)
    (tmp_path / "none").mkdir()
    for other in (tmp_path / "none", classifier(tmp_path / "b", right, prefix="other")):
        with pytest.raises(ValueError, match=str(other)):
            compare(run, other)
    write_areas(tmp_path / "c", ["0"], np.ones((1, 2)), np.ones((1, 2)))
    with pytest.raises(ValueError, match="segmentation"):
        compare(run, tmp_path / "c")
    empty = classifier(tmp_path / "empty", right[:0])
    with pytest.raises(ValueError, match=str(empty)):
        compare(empty, empty)
    (tmp_path / "none" / "samples.json").write_text("[]")
    with pytest.raises(ValueError, match=r"samples\.json"):
        compare(tmp_path / "none", run)
