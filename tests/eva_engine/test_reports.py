"""The file of results that an evaluation gives."""

import json

import pytest

from eva_engine.evaluation.classification_report import write_results
from eva_engine.evaluation.counting import Score


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
