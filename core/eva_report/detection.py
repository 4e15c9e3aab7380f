"""Sections of the page of a detector: scores, curves, classes, confusion, worst and best images.

It takes what every detector's evaluation leaves: ground truth and predictions in COCO format, and
scores. Nothing here depends on the framework that made them.
"""

import contextlib
import json
import re
from array import array
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_api
from numpy.typing import NDArray
from PIL import Image

from eva_data.files import require_regular_file
from eva_data.images import UnreadableImageError, read_rgb
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
)
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
from eva_report.page import known, write_csv
from eva_report.terminal import counted

Scores = Mapping[str, Mapping[str, float | None]]  # task ("bbox", "segm") -> metric -> percent

PER_CLASS, CONFUSION = "per_class.csv", "confusion.csv"
THRESHOLD = 0.5  # least score of what counts in tables and images
WORST, BEST = 8, 4  # images
_TRIED = 4  # times as many images may be unreadable
_SIDE = 1024  # px; larger images are reduced, since the page has no room for them
_LOWER = (0.4, 0.3, 0.2, 0.1, 0.05, 0.01, 0.0)  # thresholds where nothing passes the first one
_STEPS = np.linspace(0, 1, 101)  # thresholds of the curves
_CHUNK = 2**20  # characters
_FIELDS = {"bbox", "category_id", "image_id", "score"}  # of a prediction
_KINDS = {"bbox": "box", "segm": "mask"}
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
    "AP": "average precision: mean over classes, and over IoUs from 0.50 to 0.95",
    "AP50": "AP at an IoU of 0.50: found, roughly",
    "AP75": "AP at an IoU of 0.75: found with a close fit",
    **{f"AP{key}": f"AP of {text}" for key, text in (_SIZES | _FREQUENCIES).items()},
}
_RECALL = re.compile(r"AR_?(?P<size>[sml]?)@?(?P<limit>\d*)")


class _Dataset:
    """Ground truth; its classes are numbered in order of their ids, as detectors do.

    Args:
        truth: Labels in COCO's format; ids of any kind, which if not numbers stay in their order.
        files: Image id -> file.
    """

    def __init__(self, truth: Mapping[str, Any], files: Mapping[Any, Path]) -> None:
        self.files = files
        self.annotations = truth.get("annotations") or ()
        categories = list(truth["categories"])
        if all(isinstance(entry["id"], int) for entry in categories):
            categories.sort(key=lambda entry: entry["id"])
        self.numbers = {entry["id"]: index for index, entry in enumerate(categories)}
        self.names = [str(entry["name"]) for entry in categories]
        self.images = {one["id"]: one for one in truth["images"]}
        self._judgements = judgements(truth, self.numbers)

    def matched(self, predictions: Iterable[Mapping[str, Any]]) -> dict[Hashable, ImageMatches]:
        """Match the predictions of each image; of unknown images or classes there are none."""
        labels, found, none = self._boxes(self.annotations), self._boxes(predictions), boxes_of(())
        return {
            image: match_image(
                labels.get(image, none), found.get(image, none), self._judgements.get(image)
            )
            for image in self.images
        }

    def _boxes(self, ones: Iterable[Mapping[str, Any]]) -> dict[Hashable, Boxes]:
        rows: dict[Hashable, array[float]] = defaultdict(lambda: array("d"))
        for one in ones:
            number = self.numbers.get(one["category_id"])
            if number is not None and one["image_id"] in self.images:
                more = (number, one.get("score", 1), one.get("iscrowd") or 0)
                rows[one["image_id"]].extend((*one["bbox"], *more))
        return {image: boxes_of(np.frombuffer(values)) for image, values in rows.items()}


def detection_sections(
    *,
    truth: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]] | Path,
    images: Mapping[Any, Path],
    scores: Scores,
    folder: Path | None = None,
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
        folder: Folder of the report, which receives `per_class.csv` and `confusion.csv`.

    Returns:
        Scores, curves over the score threshold, classes, confusion, worst and best images; without
        those that have nothing to show.
    """
    data = _Dataset(truth, images)
    found = _File(predictions) if isinstance(predictions, Path) else predictions
    matches = data.matched(found)
    best = max((one.predictions.scores.max(initial=-1) for one in matches.values()), default=-1)
    threshold, note = THRESHOLD, " There are no predictions." if best < 0 else ""
    if 0 <= best < THRESHOLD:
        threshold = next((one for one in _LOWER if one <= best), 0.0)
        note = (
            f" No prediction has a score of {THRESHOLD:g} (the best: {score_text(best)}), so those "
            f"from {threshold:g} count here."
        )
    scores = {task: metrics for task, metrics in scores.items() if metrics}
    text = f"Percent, on {data_fact(truth)}."
    missing = "nothing was found" if data.annotations and best < 0 else "there are none in the data"
    sections: list[Section | None] = [_score_table(scores, text, missing)]
    sections += [_curves(matches.values())]
    counts = confusion(matches.values(), len(data.names), threshold=threshold)
    rule = (
        f"Predictions with a score of at least {threshold:g} are matched to objects at an IoU of "
        f"at least 0.5 between their boxes, the highest score first, whatever their class.{note}"
    )
    if counts.any():
        sections += [_class_table(data.names, scores, counts, rule, folder)]
        sections += [_confusion(data.names, counts, folder)]
    sections += _galleries(data, matches, found, threshold=threshold)
    return [one for one in sections if one is not None]


def data_fact(truth: Mapping[str, Any]) -> str:
    """Count images, objects (crowds aside) and classes of labels in COCO's format.

    Returns:
        Such as "300 images, 1,543 objects of 10 classes".
    """
    images, classes = len(truth["images"]), len(truth["categories"])
    objects = sum(not one.get("iscrowd") for one in truth.get("annotations") or ())
    named = f"{classes:,} class{'es' * (classes != 1)}"
    return f"{counted(images, 'image')}, {counted(objects, 'object')} of {named}"


def _curves(matches: Iterable[ImageMatches]) -> Curves | None:
    """Draw precision, recall and F1 over the score threshold."""
    judged = [(one, one.matched != IGNORED) for one in matches]
    objects = sum(int((~one.truth.crowd).sum()) for one, _ in judged)
    scores = [one.predictions.scores[which] for one, which in judged]
    right = [one.right[which] for one, which in judged]
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
    steps = _STEPS.tolist()
    return Curves(
        title="Precision and recall",
        x_label="least score",
        y_label="share",
        curves=[
            Curve(name=name, points=list(zip(steps, values.tolist(), strict=True)))
            for name, values in named.items()
        ],
        text="Precision is the share of predictions that are right (class, and IoU of at least "
        "0.5), recall the share of objects that are found. F1 is highest, "
        f"{score_text(f1[best])}, at a score of {score_text(steps[best])}.",
    )


def _class_table(
    names: Sequence[str], scores: Scores, counts: NDArray[np.int64], rule: str, folder: Path | None
) -> Table:
    """Make the table of classes, the lowest AP first; the AP of a single class is the task's."""
    aps = {}
    for task, metrics in scores.items():
        alone = metrics.get("AP") if len(names) == 1 else None
        values = [known(metrics.get(f"AP-{name}", alone)) for name in names]
        if any(value is not None for value in values):
            aps[task] = values
    heads = ["class", *(f"AP {title_of(task)}" for task in aps)]
    heads += ["objects", "found", "missed", "false"]
    objects, found = counts.sum(axis=1)[:-1], counts.sum(axis=0)[:-1]  # without the background
    right = counts.diagonal()[:-1]
    amounts = np.stack([objects, right, objects - right, found - right])
    columns = zip(names, *aps.values(), *amounts.tolist(), strict=True)
    rows: list[list[Cell]] = [list(one) for one in columns]
    shares = (right / np.maximum(objects, 1)).tolist()
    first: Sequence[float | None] = next(iter(aps.values()), shares)
    empty = [not count or value is None for count, value in zip(objects, first, strict=True)]
    order = sorted(range(len(rows)), key=lambda place: (empty[place], first[place] or 0.0))
    if folder is not None:
        short = [[round(one, 3) if isinstance(one, float) else one for one in row] for row in rows]
        write_csv(folder / PER_CLASS, heads, short)
    text = (
        f"The lowest {'AP' if aps else 'share of found objects'} comes first. {rule} Found objects "
        "have a prediction of their class; the others are missed, and all other predictions false."
    )
    return Table(
        title="Classes",
        heads=heads,
        rows=[rows[place] for place in order],
        text=text,
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
        text="Matched as above. In the column of the background: missed objects; in its row: "
        "predictions where no object is left.",
        complete_in=CONFUSION if folder is not None else "",
    )


def title_of(task: str) -> str:
    """Name a task of an evaluator for people: "bbox" is "box", "segm-fixed" is "mask, fixed"."""
    kind, _, rule = task.partition("-")
    return _KINDS.get(kind, kind) + (f", {rule}" if rule else "")


def _score_table(scores: Scores, text: str, missing: str) -> ScoreTable | None:
    """Make the table of scores, without those of single classes; None without scores."""
    every = dict.fromkeys(name for metrics in scores.values() for name in metrics)
    rows = []
    for name in (name for name in every if not name.startswith("AP-")):
        values = [known(metrics.get(name)) for metrics in scores.values()]
        meaning = _MEANINGS.get(name, "")
        if recall := _RECALL.fullmatch(name):
            kind, limit = recall["size"], recall["limit"]
            most = f", with up to {int(limit):,} predictions an image" if limit else ""
            meaning = f"average recall{f' of {_SIZES[kind]}' if kind else ''}{most}"
        if None in values:
            meaning = f"{meaning}; {missing}" if meaning else missing
        rows.append(ScoreRow(name=name, values=values, meaning=meaning))
    titles = [title_of(task) for task in scores]
    return ScoreTable(title="Scores", columns=titles, rows=rows, text=text) if rows else None


def _galleries(
    data: _Dataset,
    matches: Mapping[Hashable, ImageMatches],
    predictions: Iterable[Mapping[str, Any]],
    *,
    threshold: float,
) -> list[Gallery]:
    """Draw the worst images, of those with mistakes, and the best ones, by F1 at a threshold."""
    counts = {image: one.counts(threshold) for image, one in matches.items()}
    f1 = {image: 2 * right / (objects + found)
          for image, (right, objects, found) in counts.items() if objects + found}  # fmt: skip
    mistakes = {image: counts[image][1] + counts[image][2] - 2 * counts[image][0] for image in f1}
    worst = sorted(filter(mistakes.get, f1), key=lambda image: (f1[image], -mistakes[image]))
    best = [image for image in f1 if counts[image][0]]
    best.sort(key=lambda image: (-f1[image], -counts[image][1]))
    worst, best = worst[: _TRIED * WORST], best[: _TRIED * BEST]
    wanted = {*worst, *best}
    passing = (one for one in predictions if one["score"] >= threshold)
    sides = {"truth": _by_image(data.annotations, wanted), "prediction": _by_image(passing, wanted)}
    drawn: set[Hashable] = set()
    made: list[Gallery] = []
    for title, images, most, text in (
        ("Worst images", worst, WORST, "those with the lowest F1 come first"),
        ("Best images", best, BEST, "those with the highest F1 and the most objects come first"),
    ):
        examples: list[Example] = []
        lost: list[str] = []
        for image in (image for image in images if image not in drawn):
            name, rgb = _read(data, image)
            if rgb is None:
                lost.append(name)
                continue
            drawn.add(image)
            right, objects, found = counts[image]
            caption = f"{name}: {right} of {objects} found, {found - right} false"
            shown = [TitledImage(title=side, image=_drawing(data, rgb, of_images[image]))
                        for side, of_images in sides.items()]  # fmt: skip
            examples.append(Example(caption=caption, images=shown))
            if len(examples) == most:
                break
        rule = f"Objects found and named at a score of {threshold:g} and an IoU of 0.5; {text}."
        if lost:
            rule += f" {len(lost)} of them could not be read and are left out, such as {lost[0]}."
        if examples or lost:
            made.append(Gallery(title=title, examples=examples, text=rule))
    return made


def _read(data: _Dataset, image: Hashable) -> tuple[str, NDArray[np.uint8] | None]:
    """Read an image, if that is possible, and name it."""
    file = data.files.get(image)
    name = str(data.images[image].get("file_name") or (file.name if file else image))
    with contextlib.suppress(UnreadableImageError, OSError):
        return name, read_rgb(file, upright=True) if file else None
    return name, None


def _drawing(
    data: _Dataset, rgb: NDArray[np.uint8], ones: Sequence[Mapping[str, Any]]
) -> Image.Image:
    drawn = []
    for one in (one for one in ones if one["category_id"] in data.numbers):
        x, y, width, height = one["bbox"]
        number = data.numbers[one["category_id"]]
        name = data.names[number] + (" (crowd)" if one.get("iscrowd") else "")
        mask = _mask(one.get("segmentation"), rgb.shape[:2])
        box = (x, y, x + width, y + height)
        drawn.append(DrawnObject(box, name, number, one.get("score"), mask))
    return Image.fromarray(draw_objects(rgb, drawn, longest=_SIDE))


def _by_image(
    ones: Iterable[Mapping[str, Any]], wanted: set[Hashable]
) -> dict[Hashable, list[Mapping[str, Any]]]:
    found: dict[Hashable, list[Mapping[str, Any]]] = defaultdict(list)
    for one in ones:
        if one["image_id"] in wanted:
            found[one["image_id"]].append(one)
    return found


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


class _File:
    """The predictions in a file of COCO's results, of which one is in memory at a time."""

    def __init__(self, file: Path) -> None:
        require_regular_file(file)
        self._file = file

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """Read the predictions in their order; a ValueError names a file that is damaged."""
        decode = json.JSONDecoder().raw_decode
        with self._file.open(encoding="utf-8") as stream:
            text, place = stream.read(_CHUNK).lstrip(), 1
            if not text.startswith("["):
                raise ValueError(f"{self._file} is not a list of predictions")
            while True:
                while text[place : place + 1] in tuple(" \n\r\t,"):
                    place += 1
                if text[place : place + 1] == "]":
                    return
                try:
                    one, place = decode(text, place)
                except ValueError as error:
                    more = stream.read(_CHUNK)
                    if not more:
                        raise ValueError(
                            f"{self._file} is not a complete list of predictions: {error}"
                        ) from error
                    text, place = text[place:] + more, 0
                    continue
                if not isinstance(one, dict) or not one.keys() >= _FIELDS:
                    named = ", ".join(sorted(_FIELDS))
                    raise ValueError(f"{self._file} holds {one!r:.200}, without {named}")
                yield one
