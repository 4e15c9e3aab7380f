"""What was taken for what: a colored table of few classes, the top mistakes of many."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eva_report.content import Confusion

IN_A_TABLE = 20  # classes
_MISTAKES = 15
_LONG_COUNT = 100_000  # from here on cells have percent


class Mistake(NamedTuple):
    """A label, what it was taken for, how often, and the share of all of this label."""

    label: int
    taken_for: int
    times: int
    share: float


class ConfusionView(NamedTuple):
    """What the page shows of a confusion."""

    cells: list[list[tuple[float, str, bool]]]  # share, text, whether it is right; or nothing
    unit: str  # what the cells are
    mistakes: list[Mistake]  # the most frequent ones


def confusion_view(content: Confusion, most: int) -> ConfusionView:
    """Choose what a page shows: all counts of some classes, the top mistakes of many.

    `most` rows of a table are shown.
    """
    counts, size = np.asarray(content.counts, np.int64), len(content.classes)
    assert counts.shape == (size, size), (counts.shape, size)
    percent = counts.max(initial=0) >= _LONG_COUNT
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def cell(row: int, column: int) -> tuple[float, str, bool]:
        count, share = counts[row, column], float(shares[row, column])
        label = f"{100 * share:.1f}" if percent else f"{count:,}"
        return share, label if count else "", row == column

    places = range(size if size <= min(IN_A_TABLE, most) else 0)
    return ConfusionView(
        cells=[[cell(row, column) for column in places] for row in places],
        unit=f"percent of the {content.unit} of a label" if percent else content.unit,
        mistakes=top_mistakes(counts, min(_MISTAKES, most)),
    )


def top_mistakes(counts: NDArray[np.integer], most: int) -> list[Mistake]:
    """Return the mistakes with the highest of (K, K) counts, labels in rows."""
    rows, columns = np.nonzero(counts)  # few, of many classes
    wrong = rows != columns
    rows, columns = rows[wrong], columns[wrong]
    times = counts[rows, columns].astype(np.int64)
    shares = times / counts.sum(axis=1)[rows]
    order = np.argsort(-times, kind="stable")[:most]
    ordered = (values[order].tolist() for values in (rows, columns, times, shares))
    return [Mistake(*values) for values in zip(*ordered, strict=True)]
