"""Sections of the page of a detector: scores, curves, classes, confusion, worst and best images.

It takes what every detector's evaluation leaves: ground truth and predictions in COCO format, and
scores. Nothing here depends on the framework that made them.
"""

import json
import math
import re
from array import array
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
    Picture,
    ScoreRow,
    ScoreTable,
    Section,
    Table,
)
from eva_report.drawing import DrawnObject, draw_objects, score_text
from eva_report.matching import (
    IGNORED,
    NO_BOXES,
    Boxes,
    ImageMatches,
    boxes_of,
    confusion,
    judgements,
    match_image,
)
from eva_report.page import write_csv

Scores = Mapping[str, Mapping[str, float | None]]  # task ("bbox", "segm") -> metric -> percent

PER_CLASS, CONFUSION = "per_class.csv", "confusion.csv"
OF_CLASS = "AP-"  # and the name of a class
WORST, BEST = 8, 4  # images
_TRIED = 4  # times as many images may be unreadable
_SIDE = 1024  # px; larger images are reduced, since the page has no room for them
_LOWER = (0.4, 0.3, 0.2, 0.1, 0.05, 0.01, 0.0)  # thresholds where nothing passes the given one
_STEPS = np.linspace(0, 1, 101)  # thresholds of the curves
_CHUNK = 2**20  # characters
_FIELDS = {"bbox", "category_id", "image_id", "score"}  # of a prediction
_KINDS = {"bbox": "box", "segm": "mask"}
_SIZES = {"s": "small", "m": "medium", "l": "large"}
_PIXELS = {"s": "below 32 x 32 px", "m": "from 32 x 32 to 96 x 96 px", "l": "above 96 x 96 px"}
_FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}
_IMAGES = {"r": "1 to 10", "c": "11 to 100", "f": "more than 100"}
_MEANINGS = {
    "AP": "average precision: mean over classes, and over IoUs from 0.50 to 0.95",
    "AP50": "AP at an IoU of 0.50: found, roughly",
    "AP75": "AP at an IoU of 0.75: found with a close fit",
    **{f"AP{key}": f"AP of {_SIZES[key]} objects, {_PIXELS[key]}" for key in _SIZES},
    **{
        f"AP{key}": f"AP of {_FREQUENCIES[key]} classes, in {_IMAGES[key]} training images"
        for key in _FREQUENCIES
    },
}
_RECALL = re.compile(r"AR_?(?P<size>[sml]?)@?(?P<limit>\d*)")


@dataclass(frozen=True)
class _Dataset:
    """Ground truth of a detector's page.

    Attributes:
        truth: Ground truth in COCO format.
        images: Folder of the images, or image id -> file.
        numbers: Category id -> number of the class.
        names: Names of the classes, by number.
    """

    truth: Mapping[str, Any]
    images: Path | Mapping[Any, Path]
    numbers: Mapping[Hashable, int]
    names: Sequence[str]

    def file(self, image: Hashable) -> Path | None:
        """Return the file of an image, None if it is not known."""
        if not isinstance(self.images, Path):
            return self.images.get(image)
        name = self.entries[image].get("file_name")
        return self.images / name if name else None

    @cached_property
    def entries(self) -> dict[Hashable, Mapping[str, Any]]:
        """Return the entry of each image by its id."""
        return {one["id"]: one for one in self.truth["images"]}


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
    found = _each_prediction(predictions)
    matches = _matched(data, found)
    best = max((float(one.predictions.scores[0]) for one in matches.values()
                if len(one.predictions.scores)), default=None)  # fmt: skip
    threshold = _threshold(score_threshold, best)
    note = _note(score_threshold, threshold, best)
    text = f"Percent, on {data_fact(truth)}."
    table = _score_table(truth, scores, found=best is not None, text=text)
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
    sections += _galleries(data, matches, found, threshold=threshold)
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


def _labelled(truth: Mapping[str, Any], images: Path | Mapping[Any, Path]) -> _Dataset:
    """Number the classes in order of their ids, as detectors do, or else of the file."""
    categories = list(truth["categories"])
    if all(isinstance(entry["id"], int) for entry in categories):
        categories.sort(key=lambda entry: entry["id"])
    numbers = {entry["id"]: index for index, entry in enumerate(categories)}
    return _Dataset(truth, images, numbers, [str(entry["name"]) for entry in categories])


def _matched(
    data: _Dataset, predictions: Iterable[Mapping[str, Any]]
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
    for task in _tasks_of(per_class if per_class is not None else scores):
        if per_class is not None:
            values = [per_class[task].get(name) for name in names]
        elif len(names) == 1:
            values = [scores[task].get(OF_CLASS + names[0], scores[task].get("AP"))]
        else:
            values = [scores[task].get(OF_CLASS + name) for name in names]
        numbers = [_number(value) for value in values]
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


def _number(value: float | None) -> float | None:
    """Return a score, or None where there is nothing to score (None, NaN)."""
    return None if value is None or math.isnan(value) else float(value)


def title_of(task: str) -> str:
    """Name a task of an evaluator for people: "bbox" is "box", "segm-fixed" is "mask, fixed"."""
    kind, _, rule = task.partition("-")
    return _KINDS.get(kind, kind) + (f", {rule}" if rule else "")


def _tasks_of(scores: Scores) -> list[str]:
    """Return the tasks that have scores, in their order."""
    return [task for task, metrics in scores.items() if metrics]


def _score_table(
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
    tasks = _tasks_of(scores)
    names = dict.fromkeys(
        name for task in tasks for name in scores[task] if not name.startswith(OF_CLASS)
    )
    if not names:
        return None
    rows = []
    for name in names:
        values = [_number(scores[task].get(name)) for task in tasks]
        meaning = _meaning_of(name)
        if None in values:
            reason = _reason(name, truth, found=found)
            meaning = f"{meaning}; {reason}" if meaning else reason
        rows.append(ScoreRow(name=name, values=values, meaning=meaning))
    titles = [title_of(task) for task in tasks]
    return ScoreTable(title="Scores", columns=titles, rows=rows, text=text)


def _meaning_of(name: str) -> str:
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


def _galleries(
    data: _Dataset,
    matches: Mapping[Hashable, ImageMatches],
    predictions: Iterable[Mapping[str, Any]],
    *,
    threshold: float,
) -> list[Gallery]:
    """Draw the worst and the best images, by their F1 at the threshold.

    Args:
        data: Labels and images.
        matches: Image id -> its labels, predictions and what belongs together.
        predictions: Predictions in COCO's format of results.
        threshold: Least score of a prediction.

    Returns:
        Up to `WORST` images with mistakes, and up to `BEST` others.
    """
    counts = {image: one.counts(threshold) for image, one in matches.items()}
    busy = [image for image, (_, objects, found) in counts.items() if objects + found]
    worst = sorted(busy, key=lambda image: (_f1(counts[image]), -_mistakes(counts[image])))
    worst = [image for image in worst if _mistakes(counts[image])][: _TRIED * WORST]
    best = sorted(busy, key=lambda image: (-_f1(counts[image]), -counts[image][1]))
    best = [image for image in best if counts[image][0]][: _TRIED * BEST]
    drawer = _Drawer(data, counts, {*worst, *best}, predictions, threshold)
    made: list[Gallery] = []
    for title, images, most, text in (
        ("Worst images", worst, WORST, "those with the lowest F1 come first"),
        ("Best images", best, BEST, "those with the highest F1 and the most objects come first"),
    ):
        examples, lost = drawer.examples(images, most)
        rule = f"Objects found and named at a score of {threshold:g} and an IoU of 0.5; {text}."
        if lost:
            rule += f" {len(lost)} of them could not be read and are left out, such as {lost[0]}."
        if examples or lost:
            made.append(Gallery(title=title, examples=examples, text=rule))
    return made


def _mistakes(counts: tuple[int, int, int]) -> int:
    right, objects, found = counts
    return objects + found - 2 * right


def _f1(counts: tuple[int, int, int]) -> float:
    right, objects, found = counts
    return 2 * right / (objects + found)


class _Drawer:
    def __init__(
        self,
        data: _Dataset,
        counts: Mapping[Hashable, tuple[int, int, int]],
        wanted: set[Hashable],
        predictions: Iterable[Mapping[str, Any]],
        threshold: float,
    ) -> None:
        self._data, self._counts, self._entries = data, counts, data.entries
        self._drawn: set[Hashable] = set()
        self._truth = _by_image(data.truth.get("annotations") or (), wanted)
        passing = (one for one in predictions if one["score"] >= threshold)
        self._found = _by_image(passing, wanted)

    def examples(self, images: Sequence[Hashable], most: int) -> tuple[list[Example], list[str]]:
        """Draw the first readable images that are not drawn yet; name the unreadable ones."""
        made: list[Example] = []
        lost: list[str] = []
        for image in images:
            if len(made) == most:
                break
            if image in self._drawn:
                continue
            file = self._data.file(image)
            name = str(self._entries[image].get("file_name") or (file.name if file else image))
            try:
                rgb = read_rgb(file, upright=True) if file else None
            except (UnreadableImageError, OSError):
                rgb = None
            if rgb is None:
                lost.append(name)
                continue
            self._drawn.add(image)
            made.append(self._example(image, name, rgb))
        return made, lost

    def _example(self, image: Hashable, name: str, rgb: NDArray[np.uint8]) -> Example:
        right, objects, found = self._counts[image]
        caption = f"{name}: {right} of {objects} found, {found - right} false"
        sides = (self._truth[image], "truth"), (self._found[image], "prediction")
        pictures = [
            Picture(title=title, image=Image.fromarray(self._drawing(rgb, ones)))
            for ones, title in sides
        ]
        return Example(caption=caption, pictures=pictures)

    def _drawing(
        self, rgb: NDArray[np.uint8], ones: Sequence[Mapping[str, Any]]
    ) -> NDArray[np.uint8]:
        drawn = []
        for one in ones:
            x, y, width, height = one["bbox"]
            if (number := self._data.numbers.get(one["category_id"])) is None:
                continue
            name = self._data.names[number] + (" (crowd)" if one.get("iscrowd") else "")
            mask = _mask(one.get("segmentation"), rgb.shape[:2])
            box = (x, y, x + width, y + height)
            drawn.append(DrawnObject(box, name, number, one.get("score"), mask))
        return draw_objects(rgb, drawn, longest=_SIDE)


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
    return code if list(code["size"]) == list(size) else None  # of a turned picture


def _each_prediction(
    predictions: Sequence[Mapping[str, Any]] | Path,
) -> Iterable[Mapping[str, Any]]:
    """Iterate over predictions, which can be done again.

    Args:
        predictions: Predictions, or a file with a list of them, of which one is in memory at a
            time.

    Returns:
        The predictions in their order.

    Raises:
        ValueError: While it is iterated, if the file is not such a list.
        OSError: Then, if it cannot be read.
    """
    return _File(predictions) if isinstance(predictions, Path) else predictions


class _File:
    def __init__(self, file: Path) -> None:
        require_regular_file(file)
        self._file = file

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        decode = json.JSONDecoder().raw_decode
        with self._file.open(encoding="utf-8") as stream:
            text = stream.read(_CHUNK).lstrip()
            if not text.startswith("["):
                raise ValueError(f"{self._file} is not a list of predictions")
            place = 1
            while True:
                while place < len(text) and text[place] in " \n\r\t,":
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
