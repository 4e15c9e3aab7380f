"""Thresholds for a wanted precision, and the choice of images to label next."""

import numpy as np
import pytest

from eva_command.label import main
from eva_command.labelling import choose_next, lowest_score

SCORES = np.array([0.9, 0.8, 0.8, 0.7, 0.6])
RIGHT = np.array([1, 1, 0, 1, 0], bool)


@pytest.mark.parametrize(
    ("target", "expected"),
    [(1, (0.9, 1, 0.2)), (0.7, (0.7, 0.75, 0.6)), (0.5, (0.6, 0.6, 0.6)), (0, (0.6, 0.6, 0.6))],
)
def test_the_lowest_score_with_a_precision(target, expected):
    """Equal scores are taken together."""
    assert lowest_score(RIGHT, SCORES, np.ones(5), 5, target) == pytest.approx(expected)


def test_the_best_precision_where_the_target_is_not_reached():
    score, precision, recall = lowest_score(RIGHT[1:], SCORES[1:], np.ones(4), 0, 0.9)
    assert (score, precision) == (0.7, pytest.approx(2 / 3))
    assert np.isnan(recall)


def test_images_in_doubt_and_unlike_each_other_come_next():
    features = np.array([[1.0, 0], [1, 0.01], [0, 1], [-1, -1]])
    assert choose_next(features, np.array([0.9, 1, 0.5, 0]), 3) == [1, 2, 0]
    assert choose_next(features, np.zeros(4), 9) == [0, 3, 2, 1]
    assert choose_next(features[:1], np.ones(1), 100) == [0]


def test_masks_are_needed_in_the_panoptic_format(capsys):
    with pytest.raises(SystemExit):
        main(["photos", "--weights", "run", "--to", "coco-panoptic", "--boxes-only"])
    assert "--boxes-only" in capsys.readouterr().err.splitlines()[-1]


def test_labels_are_replaced_only_in_a_folder_that_is_named(capsys):
    with pytest.raises(SystemExit):
        main(["photos", "--weights", "eva_coco_det.pth", "--to", "coco", "--overwrite"])
    assert "--output" in capsys.readouterr().err.splitlines()[-1]
