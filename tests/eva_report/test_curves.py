"""Plots and confusions of a page: axes, thinning that keeps peaks, what cannot be drawn."""

import numpy as np
import pytest

from eva_report.content import Confusion, Curve, Curves
from eva_report.curves import has_points, plot_view, thin
from eva_report.page import confusion_view, top_mistakes


def curves(*points, logarithmic=False):
    named = [Curve(name=f"c{n}", points=one) for n, one in enumerate(points)]
    return Curves(
        title="", x_label="iteration", y_label="loss", curves=named, logarithmic=logarithmic
    )


def test_thinning_keeps_ends_and_peaks():
    points = [(float(x), 1.0) for x in range(10_000)]
    points[7_123] = (7_123.0, 50.0)
    points[5_000] = (5_000.0, -3.0)
    few = thin(points)
    assert len(few) <= 500
    assert {points[0], points[-1], points[7_123], points[5_000]} <= set(few)
    assert few == sorted(few)
    assert thin(points[:500]) == points[:500]


def test_what_cannot_be_drawn_is_left_out():
    nan, inf = float("nan"), float("inf")
    some = curves([(0, 1), (1, nan), (nan, 2), (2, inf), (3, 2)], [], [(0, nan)], [(1, 1.5)])
    view = plot_view(some)
    assert [name for _, name, _ in view.legend] == ["c0", "c3"]
    assert view.lines[0]["path"].count("L") == 1
    assert view.lines[1]["point"]
    assert not has_points(curves([(0, nan)]))
    assert [text for _, text in plot_view(curves([(1, 2.0)])).x_ticks] == ["1"]  # no half a step


def confusion(counts):
    names = [f"name-{n}" for n in range(len(counts))]
    return Confusion(title="", classes=names, counts=np.array(counts), unit="images")


def test_top_mistakes():
    found = top_mistakes(np.array([[5, 1, 0], [12, 80, 8], [0, 1, 0]]), 3)
    assert [one[:3] for one in found] == [(1, 0, 12), (1, 2, 8), (0, 1, 1)]
    assert found[0].share == 0.12
    many = np.zeros((300, 300), np.uint8)
    many[7, 200], many[8, 3] = 9, 4
    assert [one[:3] for one in top_mistakes(many, 5)] == [(7, 200, 9), (8, 3, 4)]


def test_few_classes_have_all_counts_and_many_their_mistakes():
    view = confusion_view(confusion([[4000, 2], [0, 9]]), 200)
    assert [[(text, right) for _, text, right in row] for row in view.cells] == [
        [("4,000", True), ("2", False)],
        [("", False), ("9", True)],
    ]
    assert view.cells[0][0][0] == pytest.approx(4000 / 4002)
    view = confusion_view(confusion([[400_000, 100_000], [0, 9]]), 200)
    assert view.cells[0][0][1] == "80.0"
    assert "percent" in view.unit
    counts = np.eye(21, dtype=int) * 5
    counts[3, 8] = 2
    view = confusion_view(confusion(counts), 200)
    assert view.cells == []
    assert view.mistakes[0][:3] == (3, 8, 2)
