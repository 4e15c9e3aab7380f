"""What a report holds. A project says what is in it; `eva_report.page` says how it looks.

All text is plain: the page escapes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Cell = str | int | float | None  # None is shown as a dash


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """A score, in one or more columns."""

    name: str  # in the field, such as "AP50"
    values: Sequence[float | None]  # of each column; None where there is nothing to score
    meaning: str  # what it measures; where a value is None, also why


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """Scores side by side, and what each means.

    Attributes:
        title: Title of the section.
        columns: Title of each column of numbers, such as "box" and "mask".
        rows: Scores.
        text: What all of them are: their unit, and what they were computed on.
        digits: Digits after the point.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[ScoreRow]
    text: str = ""
    digits: int = 1


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of anything, such as scores of each class.

    Attributes:
        title: Title of the section.
        heads: Title of each column.
        rows: Cells; a page shows the first rows of a long table.
        text: What it shows.
        complete_in: Name of the file that has all rows, where a page may show some of them.
        digits: Digits after the point of floats.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    text: str = ""
    complete_in: str = ""
    digits: int = 1


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line through points (x, y), in order of x; points that are not finite are left out."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Curves in one plot.

    Attributes:
        title: Title of the section.
        x_label: What x is, such as "iteration".
        y_label: What y is.
        curves: The curves; without points there is no plot, and the section is left out.
        logarithmic: Use a logarithmic axis for y, where all values are positive.
        text: What to look for.
    """

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    logarithmic: bool = False
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """What was taken for what.

    Attributes:
        title: Title of the section.
        classes: Names; "background" may be the last.
        counts: (K, K), samples of each label (row) that went to each prediction (column).
        unit: Name of what is counted: "images", "objects", "pixels".
        text: The rule by which they were counted.
        complete_in: Name of a file with all of them.
    """

    title: str
    classes: Sequence[str]
    counts: NDArray[np.integer]
    unit: str
    text: str = ""
    complete_in: str = ""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image, and what it shows: "truth", "prediction"."""

    title: str
    image: Image.Image


@dataclass(frozen=True, kw_only=True)
class Example:
    """Images of one sample side by side, below its name, score or label."""

    caption: str
    pictures: Sequence[Picture]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Examples, such as the worst cases.

    Attributes:
        title: Title of the section.
        examples: Examples in the order in which they are shown; none leave the section out.
        text: How they were chosen.
        legend: Name and color (red, green, blue) of what is painted on the images.
    """

    title: str
    examples: Sequence[Example]
    text: str = ""
    legend: Sequence[tuple[str, tuple[int, int, int]]] = ()


Section = ScoreTable | Table | Curves | Confusion | Gallery


@dataclass(frozen=True, kw_only=True)
class Link:
    """A file beside the report, by a path relative to it; one that is not there is left out."""

    title: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command that a reader may run next, and what it does."""

    text: str
    command: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """A report.

    Attributes:
        title: Title, such as "Detection: training of cascade_mask_rcnn_vitdet_eva_debug".
        summary: A sentence or two: what was done, and the score that counts.
        facts: Name -> value: those of `eva_runs.record.facts`, data with counts of
            images, objects and classes, the weights that it began from.
        sections: Scores, classes, curves, confusion, images, in the order of the page.
        links: Weights, `results.json`, log.
        next_steps: Commands.
    """

    title: str
    summary: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section] = ()
    links: Sequence[Link] = ()
    next_steps: Sequence[Step] = ()
