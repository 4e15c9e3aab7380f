"""Colours, scores and enlargement."""

from itertools import combinations

import numpy as np

from eva_report.drawing import class_color, enlarged, enlargement, score_text, text_color


def test_colours_of_many_classes_differ_and_are_no_greys():
    colours = [class_color(index) for index in range(91)]
    assert all(max(colour) - min(colour) > 50 for colour in colours)
    distances = [np.abs(np.subtract(*pair)).sum() for pair in combinations(colours, 2)]
    assert min(distances) > 10
    first = [np.abs(np.subtract(*pair)).sum() for pair in combinations(colours[:10], 2)]
    assert min(first) > 80


def test_letters_have_contrast():
    assert text_color((255, 255, 0)) == (0, 0, 0)
    assert text_color((40, 40, 150)) == (255, 255, 255)


def test_scores_and_sizes():
    assert score_text(0.866) == "0.87"
    assert score_text(1.0) == "1.00"
    assert score_text(-0.001) == "0.00"
    assert [enlargement(*size) for size in ((1, 1), (60, 300), (511, 2), (512, 2), (9, 4000))] == [
        *(512, 2, 2, 1, 1)
    ]
    assert enlarged(np.zeros((2, 3, 3), np.uint8), 4).shape == (8, 12, 3)
