"""What a report holds. A project says what is in it; `eva_report.page` says how it looks.

All text is plain: the page escapes it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eva_data.classes import list_names

Cell = str | int | float | None  # None is shown as a dash


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """A score, in one or more columns."""

    name: str  # in the field, such as "AP50"
    values: Sequence[float | None]  # of each column; None where there is nothing to score
    meaning: str  # what it measures; where a value is None, also why


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """Scores side by side, and what each means."""

    title: str
    columns: Sequence[str]  # titles of the numbers, such as "box" and "mask"
    rows: Sequence[ScoreRow]
    text: str = ""  # what all of them are: their unit, and what they were computed on
    digits: int = 1  # after the point


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of anything, such as scores of each class; a page shows the first rows."""

    title: str
    heads: Sequence[str]  # titles of the columns
    rows: Sequence[Sequence[Cell]]
    text: str = ""
    complete_in: str = ""  # name of a file that has all rows
    digits: int = 1  # of floats, after the point


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line through points (x, y), in order of x; points that are not finite are left out."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Curves in one plot; without points there is no plot, and the section is left out."""

    title: str
    x_label: str  # what x is, such as "iteration"
    y_label: str
    curves: Sequence[Curve]
    logarithmic: bool = False  # axis of y, where all values are positive
    text: str = ""  # what to look for


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """What was taken for what."""

    title: str
    classes: Sequence[str]  # names; "background" may be the last
    counts: NDArray[np.integer]  # (K, K), of each label (row) that went to each prediction (column)
    unit: str  # what is counted: "images", "objects", "pixels"
    text: str = ""  # the rule by which they were counted
    complete_in: str = ""  # name of a file with all of them


@dataclass(frozen=True, kw_only=True)
class TitledImage:
    """An image, and what it shows: "truth", "prediction"."""

    title: str
    image: Image.Image


@dataclass(frozen=True, kw_only=True)
class Example:
    """Images of one sample side by side, below its name, score or label."""

    caption: str
    images: Sequence[TitledImage]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Examples, such as the worst cases; none leave the section out."""

    title: str
    examples: Sequence[Example]  # in the order in which they are shown
    text: str = ""  # how they were chosen
    # name and color (red, green, blue) of what is painted on the images
    legend: Sequence[tuple[str, tuple[int, int, int]]] = ()


@dataclass(frozen=True, kw_only=True)
class Note:
    """A warning about the results, which the terminal gives too."""

    title: str
    text: str


Section = ScoreTable | Table | Curves | Confusion | Gallery | Note
FEWEST, FEWEST_OF_CLASS = 20, 2  # validation samples, of all classes and of each


def score_name(name: str) -> str:
    """Write a score for people: "top-1" for `top1`, "image to text R@1" for `image_to_text_r1`."""
    for kind, title in (("bbox", "box"), ("segm", "mask")):
        name = re.sub(rf"^(coco/)?{kind}[/_]m?(?=AP)", f"{title} ", name)
    name = re.sub(r"\btop(\d)", r"top-\1", name.replace("_", " "))
    return re.sub(r" r(\d+)$", r" R@\1", name)


def warn_of_few(count: int, classes: Mapping[str, int], unit: str = "images") -> list[Section]:
    """Warn of scores of few validation samples, all and of each class; nothing where they do."""
    rare = [name for name, number in classes.items() if number < FEWEST_OF_CLASS]
    lines = [f"only {count} {unit}"] if count < FEWEST else []
    lines += [f"fewer than {FEWEST_OF_CLASS} {unit} of {list_names(rare)}"] if rare else []
    if not lines:
        return []
    text = f"The validation data have {' and '.join(lines)}: a score may be chance, and so may be "
    return [Note(title="Few validation data", text=text + "which weights are best.")]


@dataclass(frozen=True, kw_only=True)
class Link:
    """A file beside the report, by a path relative to it; one that is not there is left out."""

    title: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class NextStep:
    """A command that a reader may run next, and what it does."""

    text: str
    command: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """A report; sections, links and commands are shown in their order.

    Its facts are those of `eva_runs.record.run_facts`, the data with counts of images, objects and
    classes, and the weights that the run began from.
    """

    title: str  # such as "Detection: training of cascade_mask_rcnn_vitdet_eva_debug"
    summary: str  # a sentence or two: what was done, and the score that counts
    facts: Sequence[tuple[str, str]]  # name and value
    sections: Sequence[Section] = ()
    links: Sequence[Link] = ()  # weights, `results.json`, log
    next_steps: Sequence[NextStep] = ()
