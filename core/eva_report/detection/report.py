"""Sections of the report of a detector: scores, classes, confusion, pictures of best and worst.

It takes what every detector's evaluation leaves: labels and predictions in COCO's format, and
scores. Nothing here depends on the framework that made them.
"""

from array import array
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eva_report.content import Cell, Confusion, Curve, Curves, Section, Table
from eva_report.detection.examples import Labelled, galleries
from eva_report.detection.matching import (
    IGNORED,
    NO_BOXES,
    Boxes,
    ImageMatches,
    boxes_of,
    confusion,
    judgements,
    match_image,
)
from eva_report.detection.results import each_prediction
from eva_report.detection.score_table import (
    OF_CLASS,
    Scores,
    number,
    score_table,
    tasks_of,
    title_of,
)
from eva_report.drawing.style import score_text
from eva_report.tables import write_csv

PER_CLASS, CONFUSION = "per_class.csv", "confusion.csv"
_LOWER = (0.4, 0.3, 0.2, 0.1, 0.05, 0.01, 0.0)  # thresholds where nothing passes the given one
_STEPS = np.linspace(0, 1, 101)  # thresholds of the curves


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
    data = _labelled(truth, images)
    found = each_prediction(predictions)
    matches = _matched(data, found)
    best = max((float(one.predictions.scores[0]) for one in matches.values()
                if len(one.predictions.scores)), default=None)  # fmt: skip
    threshold = _threshold(score_threshold, best)
    note = _note(score_threshold, threshold, best)
    text = f"Percent, on {data_fact(truth)}."
    table = score_table(truth, scores, found=best is not None, text=text)
    sections: list[Section | None] = [table, _curves(matches.values())]
    counts = confusion(matches.values(), len(data.names), threshold=threshold)
    rule = (
        f"Predictions with a score of at least {threshold:g} are matched to objects at an IoU of "
        f"at least 0.5 between their boxes, the highest score first, whatever their class.{note}"
    )
    if counts.any():
        aps = _class_scores(scores, per_class, data.names)
        sections += [_class_table(data.names, aps, counts, rule, folder)]
        sections += [_confusion(data.names, counts, folder)]
    sections += galleries(data, matches, found, threshold=threshold)
    return [one for one in sections if one is not None]


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


def _labelled(truth: Mapping[str, Any], images: Path | Mapping[Any, Path]) -> Labelled:
    """Number the classes in order of their ids, as detectors do, or else of the file."""
    categories = list(truth["categories"])
    if all(isinstance(entry["id"], int) for entry in categories):
        categories.sort(key=lambda entry: entry["id"])
    numbers = {entry["id"]: index for index, entry in enumerate(categories)}
    return Labelled(truth, images, numbers, [str(entry["name"]) for entry in categories])


def _matched(
    data: Labelled, predictions: Iterable[Mapping[str, Any]]
) -> dict[Hashable, ImageMatches]:
    """Match the predictions of each image; of unknown images or classes there are none."""
    images = {entry["id"] for entry in data.truth["images"]}
    labels = _boxes(data.truth.get("annotations") or (), images, data.numbers)
    found = _boxes(predictions, images, data.numbers)
    judged = judgements(data.truth, data.numbers)
    return {
        image: match_image(
            labels.get(image, NO_BOXES), found.get(image, NO_BOXES), judged.get(image)
        )
        for image in (entry["id"] for entry in data.truth["images"])
    }


def _boxes(
    ones: Iterable[Mapping[str, Any]], images: set[Hashable], numbers: Mapping[Hashable, int]
) -> dict[Hashable, Boxes]:
    rows: dict[Hashable, array[float]] = defaultdict(lambda: array("d"))
    for one in ones:
        image, category = one["image_id"], one["category_id"]
        if image in images and category in numbers:
            row = (*one["bbox"], numbers[category], one.get("score", 1), one.get("iscrowd") or 0)
            rows[image].extend(row)
    return {image: boxes_of(np.frombuffer(values)) for image, values in rows.items()}


def _threshold(wanted: float, best: float | None) -> float:
    """Return the threshold, or the highest lower one that something passes."""
    if best is None or best >= wanted:
        return wanted
    return next((one for one in _LOWER if one < wanted and one <= best), 0.0)


def _note(wanted: float, threshold: float, best: float | None) -> str:
    if best is None:
        return " There are no predictions."
    if threshold == wanted:
        return ""
    return (
        f" No prediction has a score of {wanted:g} (the best: {score_text(best)}), so those from "
        f"{threshold:g} count here."
    )


def _curves(matches: Iterable[ImageMatches]) -> Curves | None:
    """Draw precision, recall and F1 over the score threshold."""
    scores, right, objects = [], [], 0
    for one in matches:
        counted = one.matched != IGNORED
        scores.append(one.predictions.scores[counted])
        right.append(one.right[counted])
        objects += int((~one.truth.crowd).sum())
    all_scores = np.concatenate(scores) if scores else np.zeros(0)
    if not objects or not len(all_scores):
        return None
    all_right = np.sort(all_scores[np.concatenate(right)])
    found = len(all_scores) - np.searchsorted(np.sort(all_scores), _STEPS)
    hits = len(all_right) - np.searchsorted(all_right, _STEPS)
    f1 = 2 * hits / (found + objects)
    precision = np.divide(hits, found, out=np.full(len(_STEPS), np.nan), where=found > 0)
    best = int(f1.argmax())
    named = {"precision": precision, "recall": hits / objects, "F1": f1}
    return Curves(
        title="Precision and recall",
        x_label="least score",
        y_label="share",
        curves=[Curve(name=name, points=_points(values)) for name, values in named.items()],
        text="Precision is the share of predictions that are right (class, and IoU of at least "
        "0.5), recall the share of objects that are found. F1 is highest, "
        f"{score_text(float(f1[best]))}, at a score of {score_text(float(_STEPS[best]))}.",
    )


def _points(values: NDArray[np.float64]) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in zip(_STEPS, values, strict=True) if np.isfinite(y)]


def _class_scores(
    scores: Scores, per_class: Scores | None, names: Sequence[str]
) -> dict[str, list[float | None]]:
    """Return the AP of each class for each task that has some; of a single class, the task's."""
    found = {}
    for task in tasks_of(per_class if per_class is not None else scores):
        if per_class is not None:
            values = [per_class[task].get(name) for name in names]
        elif len(names) == 1:
            values = [scores[task].get(OF_CLASS + names[0], scores[task].get("AP"))]
        else:
            values = [scores[task].get(OF_CLASS + name) for name in names]
        numbers = [number(value) for value in values]
        if any(value is not None for value in numbers):
            found[task] = numbers
    return found


def _class_table(
    names: Sequence[str],
    aps: Mapping[str, Sequence[float | None]],
    counts: NDArray[np.int64],
    rule: str,
    folder: Path | None,
) -> Table:
    heads = ["class", *(f"AP {title_of(task)}" for task in aps)]
    heads += ["objects", "found", "missed", "false"]
    objects, right, found = counts.sum(axis=1), counts.diagonal(), counts.sum(axis=0)
    rows: list[list[Cell]] = []
    order: list[tuple[bool, float]] = []
    for index, name in enumerate(names):
        scores = [values[index] for values in aps.values()]
        missed, false = objects[index] - right[index], found[index] - right[index]
        amounts = map(int, (objects[index], right[index], missed, false))
        rows.append([name, *scores, *amounts])
        first = scores[0] if scores else right[index] / max(1, objects[index])
        order.append((first is None or not objects[index], first or 0.0))
    if folder is not None:
        written = [
            [round(one, 3) if isinstance(one, float) else one for one in row] for row in rows
        ]
        write_csv(folder / PER_CLASS, heads, written)
    rows = [rows[index] for index in sorted(range(len(rows)), key=order.__getitem__)]
    text = (
        f"The lowest {'AP' if aps else 'share of found objects'} comes first. {rule} Found objects "
        "have a prediction of their class; the others are missed, and all other predictions false."
    )
    complete = PER_CLASS if folder is not None else ""
    return Table(title="Classes", heads=heads, rows=rows, text=text, complete_in=complete)


def _confusion(names: Sequence[str], counts: NDArray[np.int64], folder: Path | None) -> Confusion:
    classes = [*names, "background"]
    if folder is not None:
        pairs = zip(*np.nonzero(counts), strict=True)
        rows = [[classes[a], classes[b], int(counts[a, b])] for a, b in pairs]
        write_csv(folder / CONFUSION, ["label", "prediction", "objects"], rows)
    return Confusion(
        title="Confusion",
        classes=classes,
        counts=counts,
        unit="objects",
        text="Matched as above. In the column of the background: missed objects; in its row: "
        "predictions where no object is left.",
        complete_in=CONFUSION if folder is not None else "",
    )
