"""The average over the paper's six sets, in the table and in `results.json`."""

import pytest

from eva_classification.evaluation import (
    PAPER_SETS,
    average_entries,
    describe_average,
)
from eva_engine.evaluation.classification_report import average_and_gap
from eva_engine.evaluation.counting import Score

PAPER = {"ImageNet-1K": 89.6, "ImageNet-V2": 81.6, "ImageNet-ReaL": 90.8, "ImageNet-A": 86.2,
         "ImageNet-R": 88.3, "ImageNet-Sketch": 67.7}  # fmt: skip


@pytest.fixture
def scores():
    """Scores of 1000 images of each set, with the paper's top-1."""
    return {name: Score(samples=1000, right1=round(10 * top1), right5=990, loss=0.25)
            for name, top1 in PAPER.items()}  # fmt: skip


@pytest.mark.parametrize("name", ["ImageNet-1K", "ImageNet-R"])
def test_no_average_without_all_six(scores, name):
    del scores[name]
    assert average_and_gap({key: PAPER[key] for key in scores}, PAPER_SETS) is None
    assert average_entries(scores) == {"average": None, "gap": None}
    assert (name in describe_average(scores)) == (name != "ImageNet-1K")
