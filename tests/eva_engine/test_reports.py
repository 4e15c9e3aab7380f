"""What an evaluation gives: table, results, per-class results, confusion."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from eva_engine.evaluation.classification_report import (
    draw_confusion,
    table,
    write_per_class,
    write_results,
)
from eva_engine.evaluation.counting import Counted, Score

# of label (row) to class: `ant` twice for `cow`, `bee` never wrong, of `cow` no image
CONFUSION = torch.tensor([[3, 1, 2], [0, 4, 0], [0, 0, 0]])


@pytest.fixture
def scores():
    """Scores of 1000 samples of each set."""
    return {name: Score(samples=1000, right1=right1, right5=990, loss=0.25)
            for name, right1 in (("photos", 896), ("sketches", 677))}  # fmt: skip


def test_the_table(scores):
    lines = table(scores).splitlines()
    rows = [line.split() for line in lines]
    assert rows == [
        ["set", "images", "top-1", "top-5", "loss"],
        ["photos", "1000", "89.600", "99.000", "0.250"],
        ["sketches", "1000", "67.700", "99.000", "0.250"],
    ]
    assert len({len(line) for line in lines}) == 1  # aligned
    assert table(scores, unit="videos").split()[1] == "videos"


def test_extra_columns(tmp_path, scores):
    """The means of a class and of both accuracies, against numpy; a set may lack them."""
    matrix, right5 = CONFUSION.numpy(), np.array([5, 4, 0])
    counted = Counted(scores={}, confusion=CONFUSION, right5=torch.tensor(right5))
    score = Score(samples=10, right1=7, right5=9, loss=0.25)
    shares = np.diag(matrix)[:2] / matrix.sum(1)[:2]  # no image is of the third class
    assert counted.mean_per_class == pytest.approx(100 * np.mean(shares))
    both = [100 * np.trace(matrix) / matrix.sum(), 100 * right5.sum() / matrix.sum()]
    assert score.mean_top1_top5 == pytest.approx(np.mean(both))
    extra = {"own": {"mean_per_class": counted.mean_per_class, "both": score.mean_top1_top5}}
    head, own, other, _ = table({"own": score, **scores}, extra=extra).splitlines()
    assert head.split()[5:] == ["mean_per_class", "both"]
    assert own.split()[5:] == ["75.000", "80.000"]
    assert len(other.split()) == 5
    assert len(head) == len(own) == len(other)  # aligned
    file = write_results(tmp_path, {}, {"own": score, **scores}, extra=extra)
    sets = json.loads(file.read_text())["sets"]
    assert (sets["own"]["mean_per_class"], sets["own"]["both"]) == pytest.approx((75, 80))
    assert "both" not in sets["photos"]


def test_results(tmp_path, scores):
    file = write_results(tmp_path / "new" / "folder", {"batch_size": 3}, scores)
    assert file == tmp_path / "new" / "folder" / "results.json"
    results = json.loads(file.read_text())
    assert results["settings"] == {"batch_size": 3}
    assert results["sets"]["sketches"] == {
        "images": 1000, "top1": pytest.approx(67.7), "top5": 99.0, "loss": 0.25,
        "right1": 677, "right5": 990,
    }  # fmt: skip
    assert list(results) == ["settings", "sets"]
    only = {"data": scores["photos"]}
    write_results(file.parent, {}, only, more={"average": 3.5}, unit="videos")
    results = json.loads(file.read_text())
    assert results["average"] == 3.5
    assert results["sets"]["data"]["videos"] == 1000
    assert [path.name for path in file.parent.iterdir()] == ["results.json"]


def test_per_class(tmp_path):
    counted = Counted(scores={}, confusion=CONFUSION.clone(), right5=torch.tensor([5, 4, 0]))
    file = write_per_class(tmp_path, counted, ["ant", "bée, 蜂", "cow"])
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows == [
        ["class", "images", "top1", "top5", "most_often_taken_for", "times"],
        ["ant", "6", "50.000", "83.333", "cow", "2"],
        ["bée, 蜂", "4", "100.000", "100.000", "", "0"],
        ["cow", "0", "", "", "", "0"],
    ]
    assert counted.confusion.equal(CONFUSION)
    file = write_per_class(tmp_path, counted, ["ant", "bee", "cow"], unit="videos")
    assert file.read_text().startswith("class,videos,top1")


def test_the_image_of_the_confusion(tmp_path):
    classes = 12
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    blank = np.asarray(Image.open(draw_confusion(tmp_path, confusion, ["c"] * classes)))
    confusion.diagonal().fill_(7)
    file = draw_confusion(tmp_path, confusion, [f"c{k}" for k in range(classes)])
    assert file == tmp_path / "confusion.png"
    with Image.open(file) as image:
        assert image.format == "PNG"
        image.load()
        assert min(image.size) >= 300
        blue = np.asarray(image.convert("RGB"))
    # the darkest blue of the diagonal, which an empty matrix has in its colour bar alone
    dark = [
        (np.abs(p[..., :3].astype(int) - (8, 48, 107)).sum(-1) < 12).sum() for p in (blank, blue)
    ]
    assert dark[1] > 1.5 * dark[0]


def test_names_of_classes_are_no_formulas(tmp_path):
    with Image.open(draw_confusion(tmp_path, CONFUSION, ("$5", "\\frac", "$_$"))) as image:
        image.load()
