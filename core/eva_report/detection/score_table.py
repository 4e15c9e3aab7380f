"""The scores of detectors as a table: what each means, and why one is missing."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from eva_report.content import ScoreRow, ScoreTable

Scores = Mapping[str, Mapping[str, float | None]]  # task ("bbox", "segm") -> metric -> percent

OF_CLASS = "AP-"  # and the name of a class
_KINDS = {"bbox": "box", "segm": "mask"}
_SIZES = {"s": "small", "m": "medium", "l": "large"}
_PIXELS = {"s": "below 32 x 32 px", "m": "from 32 x 32 to 96 x 96 px", "l": "above 96 x 96 px"}
_FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}
_IMAGES = {"r": "1 to 10", "c": "11 to 100", "f": "more than 100"}
_MEANINGS = {
    "AP": "average precision: mean over classes, and over IoUs from 0.50 to 0.95",
    "AP50": "AP at an IoU of 0.50: found, roughly",
    "AP75": "AP at an IoU of 0.75: found with a close fit",
} | {f"AP{key}": f"AP of {_SIZES[key]} objects, {_PIXELS[key]}" for key in _SIZES}
_MEANINGS |= {
    f"AP{key}": f"AP of {_FREQUENCIES[key]} classes, in {_IMAGES[key]} training images"
    for key in _FREQUENCIES
}
_RECALL = re.compile(r"AR_?(?P<size>[sml]?)@?(?P<limit>\d*)")


def number(value: float | None) -> float | None:
    """Return a score, or None where there is nothing to score (None, NaN)."""
    return None if value is None or math.isnan(value) else float(value)


def title_of(task: str) -> str:
    """Name a task of an evaluator for people: "bbox" is "box", "segm-fixed" is "mask, fixed"."""
    kind, _, rule = task.partition("-")
    return _KINDS.get(kind, kind) + (f", {rule}" if rule else "")


def tasks_of(scores: Scores) -> list[str]:
    """Return the tasks that have scores, in their order."""
    return [task for task, metrics in scores.items() if metrics]


def score_table(
    truth: Mapping[str, Any], scores: Scores, *, found: bool, text: str
) -> ScoreTable | None:
    """Make the table of scores, without those of single classes.

    Args:
        truth: Labels in COCO's format, which say why a score is missing.
        scores: Task -> metric -> percent.
        found: Whether there are predictions.
        text: What was scored.

    Returns:
        The table; None without scores.
    """
    tasks = tasks_of(scores)
    names = dict.fromkeys(
        name for task in tasks for name in scores[task] if not name.startswith(OF_CLASS)
    )
    if not names:
        return None
    rows = []
    for name in names:
        values = [number(scores[task].get(name)) for task in tasks]
        meaning = meaning_of(name)
        if None in values:
            reason = _reason(name, truth, found=found)
            meaning = f"{meaning}; {reason}" if meaning else reason
        rows.append(ScoreRow(name=name, values=values, meaning=meaning))
    titles = [title_of(task) for task in tasks]
    return ScoreTable(title="Scores", columns=titles, rows=rows, text=text)


def meaning_of(name: str) -> str:
    """Say what a metric measures; nothing for one that is not known."""
    if name in _MEANINGS:
        return _MEANINGS[name]
    if not (recall := _RECALL.fullmatch(name)):
        return ""
    size, limit = recall["size"], recall["limit"]
    objects = f" of {_SIZES[size]} objects, {_PIXELS[size]}" if size else ""
    most = f", with up to {int(limit):,} predictions an image" if limit else ""
    return f"average recall{objects}{most}"


def _reason(name: str, truth: Mapping[str, Any], *, found: bool) -> str:
    areas = [*_areas(truth)]
    if not areas:
        return "there are no objects in the data"
    size = name[-1] if name in _MEANINGS else (_RECALL.fullmatch(name) or {"size": ""})["size"]
    if size in _SIZES and not any(_size(area) == size for area in areas):
        return f"there are no {_SIZES[size]} objects in the data"
    if size in _FREQUENCIES and name in _MEANINGS:
        entries = truth["categories"]
        those = {one["id"] for one in entries if one.get("frequency") == size}
        if not any(one["category_id"] in those for one in truth["annotations"]):
            return f"there are no objects of {_FREQUENCIES[size]} classes in the data"
    return "not scored" if found else "nothing was found"


def _areas(truth: Mapping[str, Any]) -> Iterator[float]:
    for one in truth.get("annotations") or ():
        if not one.get("iscrowd"):
            yield one["area"] if one.get("area") else one["bbox"][2] * one["bbox"][3]


def _size(area: float) -> str:
    """Name the size of an object by COCO's rules."""
    return "s" if area < 32**2 else "m" if area < 96**2 else "l"
