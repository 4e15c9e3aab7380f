"""Errors of a detector by their kind, its calibration, and labels that may be wrong.

The kinds are those of TIDE (arXiv 2008.08115), computed by hotcoco from boxes at an IoU of 0.5.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from hotcoco import COCO, COCOeval
from numpy.typing import NDArray

from eva_report.content import Curve, Curves, Table
from eva_report.drawing import score_text
from eva_report.matching import IGNORED, ImageMatches

_KINDS = {
    "Cls": ("class", "the right box, another class"),
    "Loc": ("localization", "the right class, an IoU of 0.1 to 0.5"),
    "Both": ("both", "another class, an IoU of 0.1 to 0.5"),
    "Dupe": ("duplicate", "an object that a more confident prediction has found already"),
    "Bkg": ("background", "an IoU below 0.1 with every object"),
    "Miss": ("missed", "objects that no prediction above explains"),
}


class SuspiciousLabel(NamedTuple):
    """A confident prediction that contradicts the labels of its image."""

    image: Hashable
    category: int  # number of the predicted class
    score: float
    box: tuple[float, float, float, float]  # x, y, width, height of the prediction
    labelled_as: int | None  # number of the class of the object there; None where there is none


class DetectionErrors:
    """The evaluation of matched boxes from which errors are counted.

    Args:
        matches: Image -> its labels and predictions; those that are ignored do not count.
        names: Names of the classes.
    """

    def __init__(self, matches: Mapping[Hashable, ImageMatches], names: Sequence[str]) -> None:
        self._images = list(matches)
        objects = list[dict[str, Any]]()
        rows: list[NDArray[Any]] = [np.zeros((0, 7))]
        for number, match in enumerate(matches.values(), start=1):
            boxes, labels, _, crowd = match.truth
            columns = zip(boxes.tolist(), labels.tolist(), crowd.tolist(), strict=True)
            for box, label, is_crowd in columns:
                objects.append(
                    {"id": len(objects) + 1, "image_id": number, "category_id": label + 1}
                    | {"bbox": box, "area": box[2] * box[3], "iscrowd": int(is_crowd)}
                )
            counts, predicted = match.matched != IGNORED, match.predictions
            columns_of_image = (
                np.full((counts.sum(), 1), number),
                predicted.boxes[counts],
                predicted.scores[counts, None],
                predicted.labels[counts, None] + 1,
            )
            rows.append(np.concatenate(columns_of_image, axis=1))
        self._predictions = np.concatenate(rows)
        self._is_empty = not objects or not len(self._predictions)
        if self._is_empty:
            return
        truth = COCO(
            {
                "images": [{"id": number + 1} for number in range(len(matches))],
                "annotations": objects,
                "categories": [{"id": i + 1, "name": name} for i, name in enumerate(names)],
            }
        )
        self._evaluation = COCOeval(truth, truth.load_res(self._predictions), "bbox")
        most = np.unique(self._predictions[:, 0], return_counts=True)[1].max()
        self._evaluation.params.maxDets = [int(most)]
        self._evaluation.evaluate()

    def table(self) -> Table | None:
        """Make the table of the kinds of errors; None without an object or a prediction."""
        if self._is_empty:
            return None
        errors = self._evaluation.tide_errors()
        kinds = sorted(_KINDS, key=lambda kind: -errors["delta_ap"][kind])
        rows = [
            [*_KINDS[kind], errors["counts"][kind], 100 * errors["delta_ap"][kind]]
            for kind in kinds
        ]
        return Table(
            title="Errors",
            heads=["error", "what it is", "number", "AP50 lost"],
            rows=rows,
            text="All predictions, by TIDE (arXiv 2008.08115): the AP50 that each kind of error "
            "costs. Errors of low confidence are many and cost little.",
        )

    def calibration(self) -> Curves | None:
        """Plot how many predictions of a score are right."""
        if self._is_empty:
            return None
        calibration = self._evaluation.calibration()
        points = [
            (entry["avg_confidence"], entry["avg_accuracy"])
            for entry in calibration["bins"]
            if entry["count"]
        ]
        return Curves(
            title="Calibration",
            x_label="confidence",
            y_label="share of right predictions",
            curves=[
                Curve(name="this detector", points=points),
                Curve(name="perfect calibration", points=[(0.0, 0.0), (1.0, 1.0)]),
            ],
            text="A prediction is right if its class is and its IoU is at least 0.5. Expected "
            f"calibration error: {score_text(calibration['ece'])}.",
        )

    def suspicious_labels(self, *, score: float = 0.5) -> list[SuspiciousLabel]:
        """List labels that a prediction from a score contradicts, the most confident first."""
        if self._is_empty:
            return []
        contradictions = self._evaluation.image_diagnostics(score_thr=score)["label_errors"]
        contradictions.sort(key=lambda entry: -entry["dt_score"])
        labels = []
        for entry in contradictions:
            _, *box, _, _ = self._predictions[entry["dt_id"] - 1].tolist()
            other = entry["gt_category_id"]
            labels.append(
                SuspiciousLabel(
                    image=self._images[entry["image_id"] - 1],
                    category=entry["dt_category_id"] - 1,
                    score=entry["dt_score"],
                    box=(box[0], box[1], box[2], box[3]),
                    labelled_as=None if other is None else other - 1,
                )
            )
        return labels
