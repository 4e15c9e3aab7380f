"""Sections of the page of a detector: scores, curves, classes, confusion, worst and best images.

It takes what every detector's evaluation leaves: ground truth and predictions in COCO format, and
scores. Nothing here depends on the framework that made them. `matching` and `detection_errors`
compute, `detection_examples` draws.
"""

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eva_data.bands import Bands
from eva_data.detection.scoring import PredictionFile
from eva_report.content import (
    Cell,
    Confusion,
    Curve,
    Curves,
    Gallery,
    ScoreRow,
    ScoreTable,
    Section,
    Table,
    warn_of_few,
)
from eva_report.detection_errors import DetectionErrors, SuspiciousLabel
from eva_report.detection_examples import DetectionExamples
from eva_report.drawing import score_text
from eva_report.matching import (
    DetectionTruth,
    ImageMatches,
    ThresholdCurves,
    confusion,
    threshold_curves,
)
from eva_report.page import finite_or_none, write_csv
from eva_report.terminal import counted
from eva_runs.record import write_threshold

Scores = Mapping[str, Mapping[str, float | None]]  # task ("bbox", "segm") -> metric -> percent

PER_CLASS, CONFUSION = "per_class.csv", "confusion.csv"
LABEL_ERRORS = "label_errors.csv"
THRESHOLD = 0.5  # least score of what counts in tables and images
WORST, BEST = 8, 4  # images
_LOWER = (0.4, 0.3, 0.2, 0.1, 0.05, 0.01, 0.0)  # thresholds where nothing passes the first one
_KINDS = {"bbox": "box", "segm": "mask", "keypoints": "keypoint"}
_SIZES = {
    "s": "small objects, below 32 x 32 px",
    "m": "medium objects, from 32 x 32 to 96 x 96 px",
    "l": "large objects, above 96 x 96 px",
}
_FREQUENCIES = {
    "r": "rare classes, in 1 to 10 training images",
    "c": "common classes, in 11 to 100 training images",
    "f": "frequent classes, in more than 100 training images",
}
_MEANINGS = {
    "AP": "average precision, the mean over classes and IoU thresholds from 0.50 to 0.95",
    "AP50": "AP at an IoU threshold of 0.50, a loose fit",
    "AP75": "AP at an IoU threshold of 0.75, a close fit",
    **{f"AP{key}": f"AP of {description}" for key, description in (_SIZES | _FREQUENCIES).items()},
}
_RECALL = re.compile(r"AR_?(?P<size>[sml]?)@?(?P<limit>\d*)")


def detection_sections(
    *,
    truth: Mapping[str, Any],
    predictions: Path,
    images: Mapping[Any, Path],
    scores: Scores,
    folder: Path,
    bands: Bands | None = None,
    best: Path | None = None,
) -> list[Section]:
    """Make the sections of a detector's report, and the tables beside it.

    Where no prediction passes the threshold of tables and images, a lower one is taken, and the
    sections say so.

    Args:
        truth: Labels in COCO's format, as `json.load` gives them; ids of any kind.
        predictions: File of predictions in COCO's format of results, read object by object.
        images: Image id -> file.
        scores: Task ("bbox", "segm", and others of the evaluator) -> metric ("AP", "AP50", ...)
            -> percent; None or NaN where there is nothing to score. Metrics named "AP-CLASS" are
            taken for those of classes.
        folder: Folder of the report, which receives `per_class.csv`, `confusion.csv`,
            `label_errors.csv`, and the threshold that a demo and exports begin with.
        bands: Bands of the images; None for RGB.
        best: Predictions of the run's best weights, if these are others: the threshold is theirs.

    Returns:
        Scores, curves over the score threshold, calibration, classes, confusion, kinds of errors,
        labels that may be wrong, worst and best images; without those that have nothing to show.

    Raises:
        ValueError: If a file of predictions is damaged.
    """
    labels, entries = DetectionTruth(truth), PredictionFile(predictions)
    examples = DetectionExamples(labels, images, bands)
    matches = labels.match(entries)
    curves = threshold_curves(matches.values())
    _note_threshold(
        folder,
        threshold_curves(labels.match(PredictionFile(best)).values()) if best else None,
        curves,
    )
    highest = max((m.predictions.scores.max(initial=-1) for m in matches.values()), default=-1)
    threshold, note = _choose_threshold(highest)
    counts = confusion(matches.values(), len(labels.names), threshold=threshold)
    errors = DetectionErrors(matches, labels.names)
    scores = {task: metrics for task, metrics in scores.items() if metrics}
    description = f"In percent, on {data_fact(truth)}."
    if "keypoints" in scores:
        description += " The IoU of keypoints is their similarity, OKS."
    is_blank = labels.annotations and highest < 0
    missing = "nothing was found" if is_blank else "there are none in the data"
    rule = (
        f"Predictions with a confidence of at least {threshold:g} are matched to objects at a box "
        f"IoU of at least 0.5, the most confident first, regardless of class.{note}"
    )
    sections = [
        _score_table(scores, description, missing),
        _curves(curves),
        errors.calibration(),
        *warn_of_few(len(labels.images), labels.images_of_classes()),
        _class_table(labels.names, scores, counts, rule, folder) if counts.any() else None,
        _confusion(labels.names, counts, folder) if counts.any() else None,
        errors.table(),
        _label_errors(labels, examples, errors.suspicious_labels(), folder),
        *_galleries(examples, matches, entries, threshold=threshold),
    ]
    return [section for section in sections if section is not None]


def data_fact(truth: Mapping[str, Any]) -> str:
    """Count images, objects (crowds aside) and classes of labels in COCO's format.

    Returns:
        Such as "300 images, 1,543 objects of 10 classes".
    """
    images, classes = len(truth["images"]), len(truth["categories"])
    objects = sum(not annotation.get("iscrowd") for annotation in truth.get("annotations") or ())
    return (
        f"{counted(images, 'image')}, {counted(objects, 'object')} of {counted(classes, 'class')}"
    )


def title_of(task: str) -> str:
    """Name a task of an evaluator for people: "bbox" is "box", "segm-fixed" is "mask, fixed"."""
    kind, _, rule = task.partition("-")
    return _KINDS.get(kind, kind) + (f", {rule}" if rule else "")


def _choose_threshold(highest: float) -> tuple[float, str]:
    """Choose the threshold of tables and images by the highest score, -1 for none; and say so."""
    if highest < 0:
        return THRESHOLD, " There are no predictions."
    if highest >= THRESHOLD:
        return THRESHOLD, ""
    threshold = next((step for step in _LOWER if step <= highest), 0.0)
    return threshold, (
        f" No confidence reaches {THRESHOLD:g} (the highest is {score_text(highest)}): the "
        f"threshold is {threshold:g} here."
    )


def _note_threshold(folder: Path, *candidates: ThresholdCurves | None) -> None:
    """Note the threshold with the best F1 of the first curves in which something is right."""
    for curves in candidates:
        if curves is not None and curves.f1.any():
            write_threshold(folder, float(curves.thresholds[curves.best]))
            return


def _score_table(scores: Scores, description: str, missing: str) -> ScoreTable | None:
    """Make the table of scores, without those of single classes; None without scores."""
    names = dict.fromkeys(name for metrics in scores.values() for name in metrics)
    rows = []
    for name in (name for name in names if not name.startswith("AP-")):
        values = [finite_or_none(metrics.get(name)) for metrics in scores.values()]
        meaning = _meaning_of(name)
        if None in values:
            meaning = f"{meaning}; {missing}" if meaning else missing
        rows.append(ScoreRow(name=name, values=values, meaning=meaning))
    titles = [title_of(task) for task in scores]
    return ScoreTable(title="Scores", columns=titles, rows=rows, text=description) if rows else None


def _meaning_of(metric: str) -> str:
    recall = _RECALL.fullmatch(metric)
    if recall is None:
        return _MEANINGS.get(metric, "")
    size, limit = recall["size"], recall["limit"]
    most = f", with up to {int(limit):,} predictions an image" if limit else ""
    return f"average recall{f' of {_SIZES[size]}' if size else ''}{most}"


def _curves(measured: ThresholdCurves | None) -> Curves | None:
    """Plot precision, recall and F1 over the score threshold."""
    if measured is None:
        return None
    thresholds, best = measured.thresholds.tolist(), measured.best
    lines = {"precision": measured.precision, "recall": measured.recall, "F1": measured.f1}
    return Curves(
        title="Precision and recall",
        x_label="confidence threshold",
        y_label="share",
        curves=[
            Curve(name=name, points=list(zip(thresholds, values.tolist(), strict=True)))
            for name, values in lines.items()
        ],
        text="Precision: share of predictions with the right class and an IoU of at least 0.5. "
        "Recall: share of objects that are found. F1 peaks at "
        f"{score_text(measured.f1[best])}, at a confidence of {score_text(thresholds[best])}.",
    )


def _class_table(
    names: Sequence[str], scores: Scores, counts: NDArray[np.int64], rule: str, folder: Path
) -> Table:
    """Make the table of classes, the lowest AP first; the AP of a single class is the task's."""
    aps = {}
    for task, metrics in scores.items():
        alone = metrics.get("AP") if len(names) == 1 else None
        values = [finite_or_none(metrics.get(f"AP-{name}", alone)) for name in names]
        if any(value is not None for value in values):
            aps[task] = values
    heads = ["class", *(f"AP {title_of(task)}" for task in aps)]
    heads += ["objects", "found", "missed", "false"]
    objects, predicted = counts.sum(axis=1)[:-1], counts.sum(axis=0)[:-1]  # without the background
    right = counts.diagonal()[:-1]
    amounts = np.stack([objects, right, objects - right, predicted - right])
    columns = zip(names, *aps.values(), *amounts.tolist(), strict=True)
    rows: list[list[Cell]] = [list(column) for column in columns]
    shares = (right / np.maximum(objects, 1)).tolist()
    first: Sequence[float | None] = next(iter(aps.values()), shares)
    empty = [not count or value is None for count, value in zip(objects, first, strict=True)]
    order = sorted(range(len(rows)), key=lambda index: (empty[index], first[index] or 0.0))
    short = [[round(cell, 3) if isinstance(cell, float) else cell for cell in row] for row in rows]
    write_csv(folder / PER_CLASS, heads, short)
    return Table(
        title="Classes",
        heads=heads,
        rows=[rows[index] for index in order],
        text=f"Lowest {'AP' if aps else 'share of found objects'} first. {rule} An object is found "
        "if its match has the right class, otherwise missed; all other predictions are false.",
        complete_in=PER_CLASS,
    )


def _confusion(names: Sequence[str], counts: NDArray[np.int64], folder: Path) -> Confusion:
    classes = [*names, "background"]
    rows = [[classes[a], classes[b], int(counts[a, b])] for a, b in np.argwhere(counts)]
    write_csv(folder / CONFUSION, ["label", "prediction", "objects"], rows)
    return Confusion(
        title="Confusion",
        classes=classes,
        counts=counts,
        unit="objects",
        text="Matched as above. The background column counts objects without a prediction, the "
        "background row predictions without an object.",
        complete_in=CONFUSION,
    )


def _label_errors(
    labels: DetectionTruth,
    examples: DetectionExamples,
    suspicious: Sequence[SuspiciousLabel],
    folder: Path,
) -> Gallery | None:
    """Draw the images whose labels the most confident predictions contradict, and list all."""
    rows: list[list[Cell]] = [
        [
            examples.image_name(label.image),
            "" if label.labelled_as is None else labels.names[label.labelled_as],
            labels.names[label.category],
            *(round(value, 3) for value in (label.score, *label.box)),
        ]
        for label in suspicious
    ]
    heads = ["image", "labelled as", "prediction", "score", "x", "y", "width", "height"]
    write_csv(folder / LABEL_ERRORS, heads, rows)
    if not suspicious:
        return None
    ids = list(labels.numbers)
    predictions = [
        {"image_id": label.image, "category_id": ids[label.category]}
        | {"bbox": label.box, "score": label.score}
        for label in suspicious
    ]
    shown = [*dict.fromkeys(label.image for label in suspicious)][:WORST]
    captions = {image: examples.image_name(image) for image in shown}
    return Gallery(
        title="Labels to check",
        examples=[*examples.draw(captions, predictions).values()],
        text=f"{counted(len(suspicious), 'prediction')} with a confidence of {THRESHOLD:g} or more "
        "that the labels contradict: an object of another class is there, or none. The detector "
        f"or the label is wrong; the most confident come first. {LABEL_ERRORS} lists all.",
    )


def _galleries(
    examples: DetectionExamples,
    matches: Mapping[Hashable, ImageMatches],
    predictions: Iterable[Mapping[str, Any]],
    *,
    threshold: float,
) -> list[Gallery]:
    """Draw the worst images, of those with mistakes, and the best ones, by F1 at a threshold."""
    counts = {image: match.counts(threshold) for image, match in matches.items()}
    worst, best = _worst_and_best(counts)
    captions = {}
    for image in (*worst, *best):
        right, objects, predicted = counts[image]
        name = examples.image_name(image)
        captions[image] = f"{name}: {right} of {objects} found, {predicted - right} false"
    passing = (prediction for prediction in predictions if prediction["score"] >= threshold)
    drawn = examples.draw(captions, passing)
    return [
        Gallery(
            title=title,
            examples=[drawn[image] for image in images if image in drawn],
            text=f"At a confidence of {threshold:g} and an IoU of 0.5, {description}.",
        )
        for title, images, description in (
            ("Worst images", worst, "lowest F1 first"),
            ("Best images", best, "highest F1 and most objects first"),
        )
    ]


def _worst_and_best(
    counts: Mapping[Hashable, tuple[int, int, int]],
) -> tuple[list[Hashable], list[Hashable]]:
    """Choose images by their right predictions, objects and predictions; none is in both lists."""
    f1 = {
        image: 2 * right / (objects + predicted)
        for image, (right, objects, predicted) in counts.items()
        if objects + predicted
    }
    mistakes = {image: counts[image][1] + counts[image][2] - 2 * counts[image][0] for image in f1}
    worst = sorted(filter(mistakes.get, f1), key=lambda image: (f1[image], -mistakes[image]))
    best = [image for image in f1 if counts[image][0] and image not in worst[:WORST]]
    best.sort(key=lambda image: (-f1[image], -counts[image][1]))
    return worst[:WORST], best[:BEST]
