"""Sections of the page of a detector: scores, curves, classes, confusion, worst and best images.

It takes what every detector's evaluation leaves: ground truth and predictions in COCO format, and
scores. Nothing here depends on the framework that made them.
"""

import logging
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_api
from numpy.typing import NDArray
from PIL import Image

from eva_data.bands import Bands, draw_pixels, read_pixels
from eva_data.detection.scoring import PredictionFile
from eva_data.images import UnreadableImageError
from eva_report.content import (
    Cell,
    Confusion,
    Curve,
    Curves,
    Example,
    Gallery,
    ScoreRow,
    ScoreTable,
    Section,
    Table,
    TitledImage,
    warn_of_few,
)
from eva_report.detection_errors import DetectionErrors, SuspiciousLabel
from eva_report.drawing import DrawnObject, draw_objects, score_text
from eva_report.matching import (
    IGNORED,
    Boxes,
    ImageMatches,
    boxes_of,
    confusion,
    judgements,
    match_image,
)
from eva_report.page import finite_or_none, write_csv
from eva_report.terminal import counted
from eva_runs.record import write_threshold

logger = logging.getLogger(__name__)

Scores = Mapping[str, Mapping[str, float | None]]  # task ("bbox", "segm") -> metric -> percent

PER_CLASS, CONFUSION = "per_class.csv", "confusion.csv"
LABEL_ERRORS = "label_errors.csv"
THRESHOLD = 0.5  # least score of what counts in tables and images
WORST, BEST = 8, 4  # images
_SIDE = 1024  # px; larger images are reduced, since the page has no room for them
_LOWER = (0.4, 0.3, 0.2, 0.1, 0.05, 0.01, 0.0)  # thresholds where nothing passes the first one
_STEPS = np.linspace(0, 1, 101)  # thresholds of the curves
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


class _Dataset:
    """Ground truth; its classes are numbered in order of their ids, as detectors do.

    Args:
        truth: Labels in COCO's format; ids of any kind, which if not numbers stay in their order.
        files: Image id -> file.
        bands: Of the images; None for RGB.
    """

    def __init__(
        self, truth: Mapping[str, Any], files: Mapping[Any, Path], bands: Bands | None = None
    ) -> None:
        self.files, self.bands = files, bands
        self.annotations = truth.get("annotations") or ()
        categories = list(truth["categories"])
        if all(isinstance(entry["id"], int) for entry in categories):
            categories.sort(key=lambda entry: entry["id"])
        self.numbers = {entry["id"]: index for index, entry in enumerate(categories)}
        self.names = [str(entry["name"]) for entry in categories]
        self.skeletons = {entry["id"]: entry.get("skeleton") or () for entry in categories}
        self.images = {image["id"]: image for image in truth["images"]}
        self._judgements = judgements(truth, self.numbers)

    def images_of_classes(self) -> dict[str, int]:
        """Count the images with objects of each class; nothing of LVIS, whose classes are rare."""
        if any("neg_category_ids" in image for image in self.images.values()):
            return {}
        pairs = {(a["category_id"], a["image_id"]) for a in self.annotations}
        counts = Counter(self.numbers[key] for key, _ in pairs if key in self.numbers)
        return {name: counts[number] for number, name in enumerate(self.names)}

    def image_name(self, image: Hashable) -> str:
        """Return the name of an image's file, or its id."""
        file = self.files.get(image)
        return str(self.images[image].get("file_name") or (file.name if file else image))

    def matched(self, predictions: Iterable[Mapping[str, Any]]) -> dict[Hashable, ImageMatches]:
        """Match the predictions of each image; of unknown images or classes there are none."""
        labels = self._boxes(self.annotations)
        predicted = self._boxes(predictions)
        none = boxes_of(())
        return {
            image: match_image(
                labels.get(image, none), predicted.get(image, none), self._judgements.get(image)
            )
            for image in self.images
        }

    def _boxes(self, ones: Iterable[Mapping[str, Any]]) -> dict[Hashable, Boxes]:
        rows: dict[Hashable, array[float]] = defaultdict(lambda: array("d"))
        for entry in ones:
            number = self.numbers.get(entry["category_id"])
            if number is not None and entry["image_id"] in self.images:
                more = (number, entry.get("score", 1), entry.get("iscrowd") or 0)
                rows[entry["image_id"]].extend((*entry["bbox"], *more))
        return {image: boxes_of(np.frombuffer(values)) for image, values in rows.items()}


def detection_sections(
    *,
    truth: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]] | Path,
    images: Mapping[Any, Path],
    scores: Scores,
    folder: Path | None = None,
    bands: Bands | None = None,
    best: Path | None = None,
) -> list[Section]:
    """Make the sections of a detector's report.

    Where no prediction passes the threshold of tables and images, a lower one is taken, and the
    sections say so.

    Args:
        truth: Labels in COCO's format, as `json.load` gives them; ids of any kind.
        predictions: Predictions in COCO's format of results, or a file of them, which is read
            object by object.
        images: Image id -> file.
        scores: Task ("bbox", "segm", and others of the evaluator) -> metric ("AP", "AP50", ...)
            -> percent; None or NaN where there is nothing to score. Metrics named "AP-CLASS" are
            taken for those of classes.
        folder: Folder of the report, which receives `per_class.csv`, `confusion.csv` and
            `label_errors.csv`.
        bands: Bands of the images; None for RGB.
        best: Predictions of the run's best weights, if these are others: by them the folder notes
            the threshold that its demo and exports begin with.

    Returns:
        Scores, curves over the score threshold, calibration, classes, confusion, kinds of errors,
        labels that may be wrong, worst and best images; without those that have nothing to show.
    """
    data = _Dataset(truth, images, bands)
    entries = PredictionFile(predictions) if isinstance(predictions, Path) else predictions
    matches = data.matched(entries)
    highest = (match.predictions.scores.max(initial=-1) for match in matches.values())
    top = max(highest, default=-1)
    threshold, note = THRESHOLD, " There are no predictions." if top < 0 else ""
    if 0 <= top < THRESHOLD:
        threshold = next((step for step in _LOWER if step <= top), 0.0)
        note = (
            f" No confidence reaches {THRESHOLD:g} (the highest is {score_text(top)}): the "
            f"threshold is {threshold:g} here."
        )
    scores = {task: metrics for task, metrics in scores.items() if metrics}
    description = f"In percent, on {data_fact(truth)}."
    if "keypoints" in scores:
        description += " The IoU of keypoints is their similarity, OKS."
    missing = "nothing was found" if data.annotations and top < 0 else "there are none in the data"
    sections: list[Section | None] = [_score_table(scores, description, missing)]
    errors = DetectionErrors(matches, data.names)
    sections += [_curves(matches.values(), folder), errors.calibration()]
    if best:
        _curves(data.matched(PredictionFile(best)).values(), folder)
    sections += warn_of_few(len(data.images), data.images_of_classes())
    counts = confusion(matches.values(), len(data.names), threshold=threshold)
    rule = (
        f"Predictions with a confidence of at least {threshold:g} are matched to objects at a box "
        f"IoU of at least 0.5, the most confident first, regardless of class.{note}"
    )
    if counts.any():
        sections += [_class_table(data.names, scores, counts, rule, folder)]
        sections += [_confusion(data.names, counts, folder)]
    sections += [errors.table(), _label_errors(data, errors.suspicious_labels(), folder)]
    sections += _galleries(data, matches, entries, threshold=threshold)
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


def _curves(matches: Iterable[ImageMatches], folder: Path | None) -> Curves | None:
    """Draw precision, recall and F1 over the score threshold; note the best in the folder."""
    judged = [(match, match.matched != IGNORED) for match in matches]
    objects = sum(int((~match.truth.crowd).sum()) for match, _ in judged)
    scores = [match.predictions.scores[which] for match, which in judged]
    right = [match.right[which] for match, which in judged]
    all_scores = np.concatenate(scores) if scores else np.zeros(0)
    if not objects or not len(all_scores):
        return None
    all_right = np.sort(all_scores[np.concatenate(right)])
    detected = len(all_scores) - np.searchsorted(np.sort(all_scores), _STEPS)
    hits = len(all_right) - np.searchsorted(all_right, _STEPS)
    f1 = 2 * hits / (detected + objects)
    precision = np.divide(hits, detected, out=np.full(len(_STEPS), np.nan), where=detected > 0)
    best = int(f1.argmax())
    measures = {"precision": precision, "recall": hits / objects, "F1": f1}
    steps = _STEPS.tolist()
    if folder is not None and hits[best]:
        write_threshold(folder, steps[best])
    return Curves(
        title="Precision and recall",
        x_label="confidence threshold",
        y_label="share",
        curves=[
            Curve(name=name, points=list(zip(steps, values.tolist(), strict=True)))
            for name, values in measures.items()
        ],
        text="Precision: share of predictions with the right class and an IoU of at least 0.5. "
        "Recall: share of objects that are found. F1 peaks at "
        f"{score_text(f1[best])}, at a confidence of {score_text(steps[best])}.",
    )


def _class_table(
    names: Sequence[str], scores: Scores, counts: NDArray[np.int64], rule: str, folder: Path | None
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
    if folder is not None:
        short = [
            [round(cell, 3) if isinstance(cell, float) else cell for cell in row] for row in rows
        ]
        write_csv(folder / PER_CLASS, heads, short)
    description = (
        f"Lowest {'AP' if aps else 'share of found objects'} first. {rule} An object is found if "
        "its match has the right class, otherwise missed; all other predictions are false."
    )
    return Table(
        title="Classes",
        heads=heads,
        rows=[rows[index] for index in order],
        text=description,
        complete_in=PER_CLASS if folder is not None else "",
    )


def _confusion(names: Sequence[str], counts: NDArray[np.int64], folder: Path | None) -> Confusion:
    classes = [*names, "background"]
    if folder is not None:
        rows = [[classes[a], classes[b], int(counts[a, b])] for a, b in np.argwhere(counts)]
        write_csv(folder / CONFUSION, ["label", "prediction", "objects"], rows)
    return Confusion(
        title="Confusion",
        classes=classes,
        counts=counts,
        unit="objects",
        text="Matched as above. The background column counts objects without a prediction, the "
        "background row predictions without an object.",
        complete_in=CONFUSION if folder is not None else "",
    )


def title_of(task: str) -> str:
    """Name a task of an evaluator for people: "bbox" is "box", "segm-fixed" is "mask, fixed"."""
    kind, _, rule = task.partition("-")
    return _KINDS.get(kind, kind) + (f", {rule}" if rule else "")


def _score_table(scores: Scores, description: str, missing: str) -> ScoreTable | None:
    """Make the table of scores, without those of single classes; None without scores."""
    every = dict.fromkeys(name for metrics in scores.values() for name in metrics)
    rows = []
    for name in (name for name in every if not name.startswith("AP-")):
        values = [finite_or_none(metrics.get(name)) for metrics in scores.values()]
        meaning = _MEANINGS.get(name, "")
        recall = _RECALL.fullmatch(name)
        if recall:
            kind, limit = recall["size"], recall["limit"]
            most = f", with up to {int(limit):,} predictions an image" if limit else ""
            meaning = f"average recall{f' of {_SIZES[kind]}' if kind else ''}{most}"
        if None in values:
            meaning = f"{meaning}; {missing}" if meaning else missing
        rows.append(ScoreRow(name=name, values=values, meaning=meaning))
    titles = [title_of(task) for task in scores]
    return ScoreTable(title="Scores", columns=titles, rows=rows, text=description) if rows else None


def _galleries(
    data: _Dataset,
    matches: Mapping[Hashable, ImageMatches],
    predictions: Iterable[Mapping[str, Any]],
    *,
    threshold: float,
) -> list[Gallery]:
    """Draw the worst images, of those with mistakes, and the best ones, by F1 at a threshold."""
    counts = {image: match.counts(threshold) for image, match in matches.items()}
    f1 = {
        image: 2 * right / (objects + predicted)
        for image, (right, objects, predicted) in counts.items()
        if objects + predicted
    }
    mistakes = {image: counts[image][1] + counts[image][2] - 2 * counts[image][0] for image in f1}
    worst = sorted(filter(mistakes.get, f1), key=lambda image: (f1[image], -mistakes[image]))
    best = [image for image in f1 if counts[image][0]]
    best.sort(key=lambda image: (-f1[image], -counts[image][1]))
    worst = worst[:WORST]
    best = [image for image in best if image not in worst][:BEST]
    image_ids = {*worst, *best}
    passing = (prediction for prediction in predictions if prediction["score"] >= threshold)
    sides = {
        "truth": _by_image(data.annotations, image_ids),
        "prediction": _by_image(passing, image_ids),
    }

    def example(image: Hashable) -> Example | None:
        right, objects, predicted = counts[image]
        result = f"{right} of {objects} found, {predicted - right} false"
        return _compare_sides(data, f"{data.image_name(image)}: {result}", sides, image)

    return [
        Gallery(
            title=title,
            examples=[*filter(None, map(example, images))],
            text=f"At a confidence of {threshold:g} and an IoU of 0.5, {description}.",
        )
        for title, images, description in (
            ("Worst images", worst, "lowest F1 first"),
            ("Best images", best, "highest F1 and most objects first"),
        )
    ]


def _label_errors(
    data: _Dataset, suspicious: Sequence[SuspiciousLabel], folder: Path | None
) -> Gallery | None:
    """Draw the images whose labels the most confident predictions contradict, and list all."""
    predictions: dict[Hashable, list[Mapping[str, Any]]] = defaultdict(list)
    ids = list(data.numbers)
    for label in suspicious:
        entry = {"category_id": ids[label.category], "bbox": label.box, "score": label.score}
        predictions[label.image].append(entry)
    if folder is not None:
        heads = ["image", "labelled as", "prediction", "score", "x", "y", "width", "height"]
        rows: list[list[Cell]] = [
            [
                data.image_name(label.image),
                "" if label.labelled_as is None else data.names[label.labelled_as],
                data.names[label.category],
                *(round(value, 3) for value in (label.score, *label.box)),
            ]
            for label in suspicious
        ]
        write_csv(folder / LABEL_ERRORS, heads, rows)
    if not suspicious:
        return None
    sides = {"truth": _by_image(data.annotations, {*predictions}), "prediction": predictions}
    shown = [*predictions][:WORST]
    examples = (_compare_sides(data, data.image_name(image), sides, image) for image in shown)
    more = f" {LABEL_ERRORS} lists all." if folder is not None else ""
    return Gallery(
        title="Labels to check",
        examples=[*filter(None, examples)],
        text=f"{counted(len(suspicious), 'prediction')} with a confidence of {THRESHOLD:g} or more "
        "that the labels contradict: an object of another class is there, or none. The detector "
        f"or the label is wrong; the most confident come first.{more}",
    )


def _compare_sides(
    data: _Dataset,
    caption: str,
    sides: Mapping[str, Mapping[Hashable, Sequence[Mapping[str, Any]]]],
    image: Hashable,
) -> Example | None:
    """Draw labels and predictions of an image; None of one that cannot be read."""
    try:
        rgb = draw_pixels(read_pixels(data.files[image], data.bands), data.bands)
    except UnreadableImageError as error:  # which the evaluation has left out, or was whole then
        logger.warning("%s is not drawn: %s", caption, error)
        return None
    shown = [
        TitledImage(title=side, image=_drawing(data, rgb, entries.get(image, ())))
        for side, entries in sides.items()
    ]
    return Example(caption=caption, images=shown)


def _drawing(
    data: _Dataset, rgb: NDArray[np.uint8], ones: Sequence[Mapping[str, Any]]
) -> Image.Image:
    drawn = []
    for entry in (entry for entry in ones if entry["category_id"] in data.numbers):
        x, y, width, height = entry["bbox"]
        number = data.numbers[entry["category_id"]]
        name = data.names[number] + (" (crowd)" if entry.get("iscrowd") else "")
        mask = _mask(entry.get("segmentation"), rgb.shape[:2])
        box = (x, y, x + width, y + height)
        points, lines = entry.get("keypoints") or (), data.skeletons[entry["category_id"]]
        drawn.append(DrawnObject(box, name, number, entry.get("score"), mask, points, lines))
    return Image.fromarray(draw_objects(rgb, drawn, longest=_SIDE))


def _by_image(
    ones: Iterable[Mapping[str, Any]], image_ids: set[Hashable]
) -> dict[Hashable, list[Mapping[str, Any]]]:
    entries: dict[Hashable, list[Mapping[str, Any]]] = defaultdict(list)
    for entry in ones:
        if entry["image_id"] in image_ids:
            entries[entry["image_id"]].append(entry)
    return entries


def _mask(segmentation: Any, size: tuple[int, ...]) -> dict[str, Any] | None:
    """Return polygons or run lengths as a compressed code; None where there is no mask."""
    if not segmentation:
        return None
    code = segmentation
    if isinstance(segmentation, list) or isinstance(segmentation.get("counts"), list):
        code = mask_api.frPyObjects(segmentation, *size)
    if isinstance(code, list):
        code = mask_api.merge(code)
    return code if list(code["size"]) == list(size) else None  # of a turned image
