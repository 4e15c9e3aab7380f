"""Sections of the report of a detector: scores, classes, confusion, pictures of best and worst.

It takes what every detector's evaluation leaves: labels and predictions in COCO's format, and
scores. Nothing here depends on the framework that made them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eva_data.reports.content import Section

Scores = Mapping[str, Mapping[str, float | None]]  # task ("bbox", "segm") -> metric -> percent


def detection_sections(
    *,
    truth: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]] | Path,
    images: Path | Mapping[Any, Path],
    scores: Scores,
    score_threshold: float = 0.5,
    per_class: Scores | None = None,
    folder: Path | None = None,
) -> list[Section]:
    """Make the sections of a detector's report.

    Args:
        truth: Labels in COCO's format, as `json.load` gives them; ids of any kind.
        predictions: Predictions in COCO's format of results, or a file of them, which is read
            object by object.
        images: Folder that the `file_name` of images is relative to, or image id -> file.
        scores: Task ("bbox", "segm", and others of the evaluator) -> metric ("AP", "AP50", ...)
            -> percent; None or NaN where there is nothing to score. Metrics named "AP-CLASS" are
            taken for those of classes.
        score_threshold: Least score of what counts in tables and pictures; where nothing passes
            it, a lower one is taken, and the sections say so.
        per_class: Task -> name of a class -> AP in percent; None for what `scores` has of them.
        folder: Folder of the report, which receives `per_class.csv` and `confusion.csv`.

    Returns:
        Scores, curves over the score threshold, classes, confusion, worst and best pictures;
        without those that have nothing to show.
    """
    raise NotImplementedError


def data_fact(truth: Mapping[str, Any]) -> str:
    """Count images, objects (crowds aside) and classes of labels in COCO's format.

    Args:
        truth: As for `detection_sections`.

    Returns:
        Such as "300 images, 1,543 objects of 10 classes".
    """
    things = [one for one in truth.get("annotations") or () if not one.get("iscrowd")]
    counts = len(truth["images"]), len(things), len(truth["categories"])
    nouns = ("image", "object", "class")
    named = [_counted(count, noun) for count, noun in zip(counts, nouns, strict=True)]
    return f"{named[0]}, {named[1]} of {named[2]}"


def _counted(count: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"
