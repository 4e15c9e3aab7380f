"""Predictions matched to labels at one IoU, regardless of class: what was taken for what.

COCO's AP matches each class by itself, at ten thresholds of the IoU. For people the question is
another one: which label did this box mean, and is its class right? So, in each image, predictions
choose in order of their scores the free label with the highest IoU of at least 0.5, of whatever
class. Those that lie in a crowd without matching a label count neither way, as in COCO's rules.
"""

from collections import defaultdict
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
    """Boxes of an image.

    Attributes:
        boxes: (n, 4) x, y, width, height.
        labels: (n,) numbers of classes.
        scores: (n,) in descending order; of labels 1.
        crowd: (n,) whether each is a crowd; of predictions False.
    """

    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]
    crowd: NDArray[np.bool_]


def boxes_of(rows: Sequence[Sequence[float]] | NDArray[np.float64]) -> Boxes:
    """Collect boxes, the highest score first; of equal ones the first.

    Args:
        rows: (n, 7) x, y, width, height, number of the class, score, and 1 for a crowd.
    """
    given = np.asarray(rows, np.float64).reshape(-1, 7)
    values = given[np.argsort(-given[:, 5], kind="stable")]
    labels, crowd = values[:, 4].astype(np.int64), values[:, 6].astype(np.bool_)
    return Boxes(values[:, :4], labels, values[:, 5], crowd)


def match(truth: Boxes, predictions: Boxes) -> NDArray[np.int64]:
    """Match the predictions of an image to its labels.

    Whoever takes predictions above a score alone gets the same matches for them.

    Args:
        truth: Labels.
        predictions: Predictions, the highest score first.

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
    """What an image of a federated dataset (LVIS) says about its classes.

    Attributes:
        known: Classes that are labelled, or are known to be absent; others do not count.
        not_exhaustive: Classes of which some objects are not labelled: a prediction without a label
            is not wrong.
    """

    known: frozenset[int]
    not_exhaustive: frozenset[int]


@dataclass(frozen=True)
class ImageMatches:
    """Labels and predictions of an image, and which belong together.

    Attributes:
        truth: Labels.
        predictions: Predictions, the highest score first.
        matched: (n,) label of each prediction, see `match`.
    """

    truth: Boxes
    predictions: Boxes
    matched: NDArray[np.int64]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each prediction has a label of its class."""
        found = self.matched >= 0
        right = np.zeros(len(self.matched), np.bool_)
        right[found] = self.truth.labels[self.matched[found]] == self.predictions.labels[found]
        return right

    def counts(self, threshold: float) -> tuple[int, int, int]:
        """Count right predictions, objects and predictions from a score, ignored ones aside."""
        counted = (self.predictions.scores >= threshold) & (self.matched != IGNORED)
        objects = int((~self.truth.crowd).sum())
        return int((self.right & counted).sum()), objects, int(counted.sum())


def match_image(
    truth: Boxes, predictions: Boxes, judgement: Judgement | None = None
) -> ImageMatches:
    """Match an image, by LVIS's rules for what counts where its labels have them.

    Args:
        truth: Labels.
        predictions: Predictions, the highest score first.
        judgement: What the image says about classes; None for all of them.
    """
    if judgement is None:
        return ImageMatches(truth, predictions, match(truth, predictions))
    known = np.isin(predictions.labels, [*judgement.known])
    boxes, labels, scores, crowd = predictions
    predictions = Boxes(boxes[known], labels[known], scores[known], crowd[known])
    matched = match(truth, predictions)
    partly = np.isin(predictions.labels, [*judgement.not_exhaustive])
    matched[(matched == NOTHING) & partly] = IGNORED
    return ImageMatches(truth, predictions, matched)


def judgements(
    truth: Mapping[str, Any], numbers: Mapping[Hashable, int]
) -> dict[Hashable, Judgement]:
    """Read what the images of an LVIS file say about classes; nothing from other files.

    Args:
        truth: Labels in COCO's or LVIS's format.
        numbers: Category id -> number of the class.
    """
    present: dict[Hashable, set[Hashable]] = defaultdict(set)
    for one in truth.get("annotations") or ():
        present[one["image_id"]].add(one["category_id"])

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


def confusion(
    images: Iterable[ImageMatches], classes: int, *, threshold: float
) -> NDArray[np.int64]:
    """Count which labels were taken for what.

    Args:
        images: Matched images.
        classes: Number of classes K.
        threshold: Least score of a prediction.

    Returns:
        (K + 1, K + 1), labels of each class (row) that were taken for each class (column). The
        last row are predictions without a label, the last column labels without a prediction.
    """
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    for one in images:
        passing = one.predictions.scores >= threshold
        found = passing & (one.matched >= 0)
        np.add.at(counts, (one.truth.labels[one.matched[found]], one.predictions.labels[found]), 1)
        false = passing & (one.matched == NOTHING)
        np.add.at(counts[classes], one.predictions.labels[false], 1)
        missed = ~one.truth.crowd
        missed[one.matched[found]] = False
        np.add.at(counts[:, classes], one.truth.labels[missed], 1)
    return counts
