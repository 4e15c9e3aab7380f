"""What an evaluation gives: table, results, per-class results, confusion."""

import csv
import json

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
    """Names of classes are no formulas."""
    file = draw_confusion(tmp_path, CONFUSION, ("$5", "\\frac", "$_$"))
    with Image.open(file) as image:
        assert min(image.size) >= 300
        image.load()
    assert [path.name for path in tmp_path.iterdir()] == ["confusion.png"]
