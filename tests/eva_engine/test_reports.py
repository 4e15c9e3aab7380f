"""The file of results that an evaluation gives."""

import pytest
import torch

from eva_engine.evaluation.classification_report import (
    called_alike,
    score_table,
    table,
)
from eva_engine.evaluation.counting import counted_of


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
