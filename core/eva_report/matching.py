"""Predictions matched to labels at one IoU, regardless of class: what was taken for what.

COCO's AP matches each class by itself, at ten thresholds of the IoU. For people the question is
another one: which label did this box mean, and is its class right? So, in each image, predictions
choose in order of their scores the free label with the highest IoU of at least 0.5, of whatever
class. Those that lie in a crowd without matching a label count neither way, as in COCO's rules.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pycocotools.mask as mask_api
from numpy.typing import NDArray

IOU = 0.5
NOTHING = -1  # matched to no label
IGNORED = -2  # in a crowd, or of a class about which the labels of the image say nothing


class Boxes(NamedTuple):
    """Boxes of an image."""

    boxes: NDArray[np.float64]  # (n, 4) x, y, width, height
    labels: NDArray[np.int64]  # (n,) numbers of classes
    scores: NDArray[np.float64]  # (n,) in descending order; of labels 1
    crowd: NDArray[np.bool_]  # (n,) whether each is a crowd; of predictions False


def boxes_of(rows: Sequence[Sequence[float]] | NDArray[np.float64]) -> Boxes:
    """Collect boxes, the highest score first; of equal ones the first.

    The rows (n, 7) are x, y, width, height, number of the class, score, and 1 for a crowd.
    """
    table = np.asarray(rows, np.float64).reshape(-1, 7)
    values = table[np.argsort(-table[:, 5], kind="stable")]
    labels, crowd = values[:, 4].astype(np.int64), values[:, 6].astype(np.bool_)
    return Boxes(values[:, :4], labels, values[:, 5], crowd)


def match(truth: Boxes, predictions: Boxes) -> NDArray[np.int64]:
    """Match predictions of an image, the highest score first, to its labels.

    Whoever takes predictions above a score alone gets the same matches for them.

    Returns:
        (n,) index of the label of each prediction, `NOTHING` or `IGNORED`.
    """
    matched = np.full(len(predictions.boxes), NOTHING, np.int64)
    if not len(truth.boxes) or not len(matched):
        return matched
    crowd = truth.crowd.astype(np.uint8)
    # of a crowd: the part of the prediction that lies in it
    overlaps = np.asarray(mask_api.iou(predictions.boxes, truth.boxes, crowd.tolist()))
    enough = overlaps >= IOU
    free = ~truth.crowd
    for index in np.flatnonzero(enough.any(axis=1)):
        places = np.flatnonzero(enough[index] & free)
        if len(places):
            values = overlaps[index, places]
            best = places[len(values) - 1 - int(values[::-1].argmax())]  # of equal ones the last
            matched[index], free[best] = best, False
        elif (enough[index] & truth.crowd).any():
            matched[index] = IGNORED
    return matched


class Judgement(NamedTuple):
    """What an image of a federated dataset (LVIS) says about its classes."""

    known: frozenset[int]  # are labelled, or known to be absent; others do not count
    # of these some objects are not labelled: a prediction without a label is not wrong
    not_exhaustive: frozenset[int]


@dataclass(frozen=True)
class ImageMatches:
    """Labels and predictions of an image, and which belong together."""

    truth: Boxes
    predictions: Boxes  # the highest score first
    matched: NDArray[np.int64]  # (n,) label of each prediction, see `match`

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each prediction has a label of its class."""
        labels = np.append(self.truth.labels, -1)[np.maximum(self.matched, NOTHING)]
        return labels == self.predictions.labels

    def counts(self, threshold: float) -> tuple[int, int, int]:
        """Count right predictions, objects and predictions from a score, ignored ones aside."""
        counted = (self.predictions.scores >= threshold) & (self.matched != IGNORED)
        objects = int((~self.truth.crowd).sum())
        return int((self.right & counted).sum()), objects, int(counted.sum())


def match_image(
    truth: Boxes, predictions: Boxes, judgement: Judgement | None = None
) -> ImageMatches:
    """Match an image, by LVIS's rules for what counts if it says something about classes."""
    if judgement is None:
        return ImageMatches(truth, predictions, match(truth, predictions))
    is_judged = np.isin(predictions.labels, [*judgement.known])
    boxes, labels, scores, crowd = predictions
    predictions = Boxes(boxes[is_judged], labels[is_judged], scores[is_judged], crowd[is_judged])
    matched = match(truth, predictions)
    partly = np.isin(predictions.labels, [*judgement.not_exhaustive])
    matched[(matched == NOTHING) & partly] = IGNORED
    return ImageMatches(truth, predictions, matched)


def judgements(
    truth: Mapping[str, Any], numbers: Mapping[Hashable, int]
) -> dict[Hashable, Judgement]:
    """Read what the images of an LVIS file say about classes; nothing from other files.

    `numbers` has the number of each category's id.
    """
    present: dict[Hashable, set[Hashable]] = defaultdict(set)
    for annotation in truth.get("annotations") or ():
        present[annotation["image_id"]].add(annotation["category_id"])

    def numbered(keys: Iterable[Hashable]) -> frozenset[int]:
        return frozenset(numbers[key] for key in keys if key in numbers)

    return {
        image["id"]: Judgement(
            numbered({*present[image["id"]], *image["neg_category_ids"]}),
            numbered(image.get("not_exhaustive_category_ids") or ()),
        )
        for image in truth["images"]
        if "neg_category_ids" in image
    }


class DetectionTruth:
    """Ground truth; its classes are numbered in order of their ids, as detectors do.

    Args:
        content: Labels in COCO's format; ids of any kind, which if not numbers stay in their order.

    Attributes:
        annotations: Those of the content.
        images: Id -> entry of the content.
        numbers: Id of a class -> its number.
        names: Names of the classes, by number.
        skeletons: Id of a class -> pairs of its keypoints, from 1, that a line connects.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.annotations = content.get("annotations") or ()
        self.images = {image["id"]: image for image in content["images"]}
        categories = list(content["categories"])
        if all(isinstance(entry["id"], int) for entry in categories):
            categories.sort(key=lambda entry: entry["id"])
        self.numbers = {entry["id"]: index for index, entry in enumerate(categories)}
        self.names = [str(entry["name"]) for entry in categories]
        self.skeletons = {entry["id"]: entry.get("skeleton") or () for entry in categories}
        self._judgements = judgements(content, self.numbers)

    def images_of_classes(self) -> dict[str, int]:
        """Count the images with objects of each class; nothing of LVIS, whose classes are rare."""
        if self._judgements:
            return {}
        pairs = {(a["category_id"], a["image_id"]) for a in self.annotations}
        counts = Counter(self.numbers[key] for key, _ in pairs if key in self.numbers)
        return {name: counts[number] for number, name in enumerate(self.names)}

    def match(self, predictions: Iterable[Mapping[str, Any]]) -> dict[Hashable, ImageMatches]:
        """Match predictions in COCO's format, image by image; unknown images and classes are out.

        Returns:
            Id -> labels and predictions of each image, also of one without any.
        """
        labels, predicted = self._boxes(self.annotations), self._boxes(predictions)
        none = boxes_of(())
        return {
            image: match_image(
                labels.get(image, none), predicted.get(image, none), self._judgements.get(image)
            )
            for image in self.images
        }

    def _boxes(self, entries: Iterable[Mapping[str, Any]]) -> dict[Hashable, Boxes]:
        rows: dict[Hashable, array[float]] = defaultdict(lambda: array("d"))
        for entry in entries:
            number = self.numbers.get(entry["category_id"])
            if number is not None and entry["image_id"] in self.images:
                more = (number, entry.get("score", 1), entry.get("iscrowd") or 0)
                rows[entry["image_id"]].extend((*entry["bbox"], *more))
        return {image: boxes_of(np.frombuffer(values)) for image, values in rows.items()}


def confusion(
    images: Iterable[ImageMatches], classes: int, *, threshold: float
) -> NDArray[np.int64]:
    """Count which labels of K classes were taken for what, by predictions from a score.

    Returns:
        (K + 1, K + 1), labels of each class (row) that were taken for each class (column). The
        last row are predictions without a label, the last column labels without a prediction.
    """
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    for match in images:
        passing = match.predictions.scores >= threshold
        is_matched = passing & (match.matched >= 0)
        np.add.at(
            counts,
            (match.truth.labels[match.matched[is_matched]], match.predictions.labels[is_matched]),
            1,
        )
        false = passing & (match.matched == NOTHING)
        np.add.at(counts[classes], match.predictions.labels[false], 1)
        missed = ~match.truth.crowd
        missed[match.matched[is_matched]] = False
        np.add.at(counts[:, classes], match.truth.labels[missed], 1)
    return counts


class ThresholdCurves(NamedTuple):
    """What predictions above each score threshold are worth."""

    thresholds: NDArray[np.floating]  # (S,) from 0 to 1
    precision: NDArray[np.floating]  # (S,) share of right predictions; NaN without any
    recall: NDArray[np.floating]  # (S,) share of objects with a right prediction
    f1: NDArray[np.floating]  # (S,) their harmonic mean

    @property
    def best(self) -> int:
        """Index of the threshold with the highest F1."""
        return int(self.f1.argmax())


def threshold_curves(images: Iterable[ImageMatches]) -> ThresholdCurves | None:
    """Measure precision, recall and F1 over the score threshold; None without object or prediction.

    Predictions that are ignored do not count.
    """
    objects, scores, right_scores = 0, [np.zeros(0)], [np.zeros(0)]
    for match in images:
        counts = match.matched != IGNORED
        objects += int((~match.truth.crowd).sum())
        scores.append(match.predictions.scores[counts])
        right_scores.append(match.predictions.scores[counts & match.right])
    all_scores, all_right = (np.sort(np.concatenate(parts)) for parts in (scores, right_scores))
    if not objects or not len(all_scores):
        return None
    steps = np.linspace(0, 1, 101)
    predicted = len(all_scores) - np.searchsorted(all_scores, steps)
    hits = len(all_right) - np.searchsorted(all_right, steps)
    precision = np.divide(hits, predicted, out=np.full(len(steps), np.nan), where=predicted > 0)
    return ThresholdCurves(steps, precision, hits / objects, 2 * hits / (predicted + objects))
