"""The file of results that an evaluation gives."""

import json

import pytest
import torch

from eva_engine.evaluation.classification_report import (
    called_alike,
    score_table,
    table,
    write_results,
)
from eva_engine.evaluation.counting import Score, counted_of


@pytest.fixture
def scores():
    """Scores of 1000 samples of each set."""
    return {name: Score(samples=1000, right1=right1, right5=990, loss=0.25)
            for name, right1 in (("photos", 896), ("sketches", 677))}  # fmt: skip


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


@pytest.mark.parametrize("classes", [5, 6])
def test_top5_is_shown_of_more_than_five_classes(classes):
    counted = counted_of(torch.eye(classes), torch.arange(classes))
    rows = [row.name for row in score_table(counted.scores, "images", {}).rows]
    assert ("top5" in rows) == ("top-5" in table(counted.scores)) == (classes > 5)


def test_one_prediction_for_all_is_said_where_labels_differ():
    bikes = torch.tensor([[0.1, 2.0], [0.3, 0.5], [0.0, 1.0]])
    names = ("car", "bike")

    def said(logits, labels):
        return called_alike(counted_of(logits, torch.tensor(labels)), names, "videos")

    assert "3 videos were called bike" in said(bikes, [0, 1, 0])
    assert said(bikes, [1, 1, 1]) == ""  # they are
    assert said(torch.eye(2)[[0, 1, 1]], [0, 1, 0]) == ""
