"""Confusion: numbers, a map, and the mistakes at the top."""

import numpy as np
import pytest

from eva_report.confusion import confusion_view, top_mistakes
from eva_report.content import Confusion
from eva_report.page import number


def content(counts, **more):
    names = [f"name-{n}" for n in range(len(counts))]
    return Confusion(title="", classes=names, counts=np.array(counts), unit="images", **more)


def test_top_mistakes():
    counts = np.array([[5, 1, 0], [12, 80, 8], [0, 1, 0]])
    found = top_mistakes(counts, 3)
    assert [one[:3] for one in found] == [(1, 0, 12), (1, 2, 8), (0, 1, 1)]
    assert found[0].share == 0.12
    assert len(top_mistakes(counts, 10)) == 4
    assert top_mistakes(np.eye(3, dtype=int), 10) == []
    many = np.zeros((300, 300), np.uint8)
    many[7, 200], many[8, 3] = 9, 4
    assert [one[:3] for one in top_mistakes(many, 5)] == [(7, 200, 9), (8, 3, 4)]


def test_few_classes_have_all_counts():
    view = confusion_view(content([[40, 2], [0, 9]]), 200)
    assert [[(text, right) for _, text, right in row] for row in view.cells] == [
        [("40", True), ("2", False)],
        [("", False), ("9", True)],
    ]
    assert view.cells[0][0][0] == pytest.approx(40 / 42)
    assert not view.map


def test_long_counts_are_percent():
    view = confusion_view(content([[400_000, 100_000], [0, 9]]), 200)
    assert view.cells[0][0][1] == "80.0"
    assert "percent" in view.unit


def test_more_classes_have_a_map_and_many_their_mistakes():
    for size, has_map in ((60, True), (61, False)):
        counts = np.eye(size, dtype=int) * 5
        counts[3, 8] = 2
        view = confusion_view(content(counts), 200)
        assert bool(view.map) == has_map
        assert not view.cells
        assert view.mistakes[0][:3] == (3, 8, 2)


def test_counts_of_other_classes_are_refused():
    wrong = Confusion(title="", classes=["a"], counts=np.zeros((2, 2), int), unit="images")
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        confusion_view(wrong, 200)


def test_numbers():
    assert number(1234567, 1) == "1,234,567"
    assert number(np.int64(3), 1) == "3"
    assert number(np.float32(0.5), 2) == "0.50"
    assert number(-0.001, 1) == "0.0"
    assert number(True, 1) == "yes"
    assert {number(one, 1) for one in (None, np.nan, float("inf"))} == {"\N{EN DASH}"}
