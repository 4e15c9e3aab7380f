"""Confusion: numbers, a map, and the mistakes at the top."""

import re

import numpy as np
import pytest

from eva_report.confusion import confusion, top_mistakes
from eva_report.content import Confusion
from eva_report.markup import number


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


def test_few_classes_have_a_table_with_numbers():
    text = confusion(content([[40, 2], [0, 9]], complete_in="c.csv"), 200)
    assert re.findall(r"style=\"--s:([\d.]+)\">(\d+)<", text) == [
        ("0.95", "40"),
        ("0.05", "2"),
        ("1.00", "9"),
    ]
    assert "c.csv" in text
    assert "4.8%" in text
    assert "<svg" not in text


def test_long_counts_are_percent():
    text = confusion(content([[400_000, 100_000], [0, 9]]), 200)
    assert ">80.0<" in text
    assert "percent of the images of a label" in text


def test_more_classes_have_a_map_and_many_their_mistakes():
    counts = np.eye(60, dtype=int) * 5
    counts[3, 8] = 2
    text = confusion(content(counts), 200)
    assert text.count("name-59</text>") == 2
    assert text.count("data:image/png") == 1
    counts = np.eye(61, dtype=int) * 5
    counts[3, 8] = 2
    text = confusion(content(counts), 200)
    assert "<svg" not in text
    assert "28.6%" in text
    assert "name-60" not in text


def test_no_mistakes_and_no_counts():
    assert "No images were taken for another class" in confusion(content([[1, 0], [0, 1]]), 200)
    assert "No images" in confusion(content([[0]]), 200)


def test_counts_of_other_classes_are_refused():
    wrong = Confusion(title="", classes=["a"], counts=np.zeros((2, 2), int), unit="images")
    with pytest.raises(ValueError, match=r"1 classes have no confusion of shape \(2, 2\)"):
        confusion(wrong, 200)


def test_numbers():
    assert number(1234567, 1) == "1,234,567"
    assert number(np.int64(3), 1) == "3"
    assert number(np.float32(0.5), 2) == "0.50"
    assert number(-0.001, 1) == "0.0"
    assert number(True, 1) == "yes"
    assert {number(one, 1) for one in (None, np.nan, float("inf"))} == {"\N{EN DASH}"}
