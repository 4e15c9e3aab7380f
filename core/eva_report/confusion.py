"""What was taken for what: a colored table of few classes, a map of more, the top mistakes."""

import base64
import io
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eva_report.content import Confusion

IN_A_TABLE, IN_A_MAP = 20, 60  # classes
_MISTAKES = 15
_LONG_COUNT = 100_000  # from here on cells have percent
_RIGHT, _WRONG = (31, 136, 61), (207, 80, 10)  # colors; those of the style sheet
_MAP, _LETTERS = 700, 24  # pixels of a map; characters of a name beside it


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
    map: dict[str, Any]  # places and image of a map; or nothing
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
        map=_map(content, shares) if len(places) < size <= min(IN_A_MAP, most) else {},
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


def _map(content: Confusion, shares: NDArray[np.float64]) -> dict[str, Any]:
    """Place an image of K x K pixels, and names around it that take the colors of the page."""
    size = len(shares)
    pixels = np.empty((size, size, 4), np.uint8)
    pixels[...] = (*_WRONG, 0)
    pixels[np.arange(size), np.arange(size), :3] = _RIGHT
    pixels[..., 3] = np.round(255 * np.sqrt(shares))
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    names = [
        name if len(name) <= _LETTERS else name[: _LETTERS - 1] + "…" for name in content.classes
    ]
    step = min(24, max(13, _MAP // size))  # pixels of a cell
    letter = min(12, step - 2)
    margin = 20 + round(0.62 * letter) * max(map(len, names))
    return {
        "data": f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}",
        "names": names,
        "step": step,
        "letter": letter,
        "margin": margin,
        "side": size * step,
        "size": margin + size * step + 4,
    }
