"""Scores that mmdetection's metrics do not give: of LVIS, and of each class."""

import itertools
import logging
import math
import tempfile
from collections.abc import Sequence
from typing import Any

import faster_coco_eval
from faster_coco_eval import COCOeval_faster
from mmdet.evaluation.metrics import CocoMetric
from mmdet.registry import METRICS
from mmengine.fileio import load

from eva_data.detection.scoring import (
    Detection,
    as_lvis,
    cap_per_image,
    class_scores,
    judged,
    read_annotations,
)

logger = logging.getLogger(__name__)

_NAMES = {"AP": "AP_all", "AP50": "AP_50", "AP75": "AP_75"}
_NAMES |= {f"AP{size[0]}": f"AP_{size}" for size in ("small", "medium", "large")}
_NAMES |= {name: name for name in ("APr", "APc", "APf")}
_UNUSED = {"bbox": "segmentation", "segm": "bbox"}


@METRICS.register_module()
class EVALVISMetric(CocoMetric):
    """Box and mask AP by LVIS's rules through faster-coco-eval, as `detection/` computes them.

    mmdetection's `LVISMetric` needs the package `lvis`, which stops at numpy's removed `np.float`.

    Args:
        ann_file: Annotations in LVIS's format.
        max_dets: Detections of an image that count, those of the highest scores.
        **settings: Further arguments of `CocoMetric`, of which `metric` ("bbox", "segm"),
            `format_only`, `outfile_prefix`, `prefix` and `collect_device` have an effect.
    """

    default_prefix = "lvis"

    def __init__(self, *, ann_file: str, max_dets: int = 300, **settings: Any) -> None:
        super().__init__(**settings)
        self._file, self._max_dets = ann_file, max_dets
        self._coco_api = read_annotations(ann_file)
        self.class_scores: dict[str, dict[int, float]] = {}  # of the latest evaluation

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Score the predictions of all processes.

        Returns:
            Name, such as `bbox_AP` or `segm_APr` -> 0..1, NaN where the set has no such objects or
            nothing was found.
        """
        truth = as_lvis(self._coco_api, self._file, otherwise="CocoMetric")
        self.cat_ids = sorted(truth.cats)
        predictions = [prediction for _, prediction in results]
        self.class_scores = {}
        scores: dict[str, float] = {}
        with tempfile.TemporaryDirectory() as folder:
            files = self.results2json(predictions, self.outfile_prefix or f"{folder}/results")
            if self.format_only:
                return {}
            for kind in self.metrics:
                found = self._score(kind, load(files[kind]))
                scores |= {f"{kind}_{name}": value for name, value in found.items()}
        return scores

    def _score(self, kind: str, found: Sequence[Detection]) -> dict[str, float]:
        by_image = itertools.groupby(found, key=lambda one: one["image_id"])
        images = cap_per_image((list(image) for _, image in by_image), self._max_dets)
        detections = list(judged(images, self._coco_api))
        if not detections:
            return dict.fromkeys(_NAMES, math.nan)
        scorer = _scorer(self._coco_api, detections, kind, lvis_style=True)
        scorer.params.maxDets = [self._max_dets]
        scorer.run()
        self.class_scores[kind] = class_scores(scorer)
        return {name: or_nan(scorer.stats_as_dict[key]) for name, key in _NAMES.items()}


def scores_of_classes(metric: CocoMetric) -> dict[str, dict[int, float]]:
    """Score each class, which mmdetection's metric does for the last kind of objects alone.

    Returns:
        Kind ("bbox", "segm") -> id of a class -> AP, 0 to 1; NaN without objects.
    """
    if isinstance(metric, EVALVISMetric):
        return metric.class_scores
    labels = metric._coco_api.dataset
    objects = [one | {"id": n} for n, one in enumerate(labels["annotations"], start=1)]
    truth = faster_coco_eval.COCO({**labels, "annotations": objects})
    scores = {}
    for kind in (kind for kind in metric.metrics if kind in _UNUSED):
        found = load(f"{metric.outfile_prefix}.{kind}.json")
        if not found:
            return {}
        scorer = _scorer(truth, found, kind)
        scorer.params.catIds = list(metric.cat_ids)
        scorer.run()
        scores[kind] = class_scores(scorer)
    return scores


def _scorer(truth: Any, found: Sequence[Detection], kind: str, **style: Any) -> COCOeval_faster:
    """Make an evaluation in which the area of an object is that of its box, or of its mask."""
    ones = [{name: v for name, v in one.items() if name != _UNUSED[kind]} for one in found]
    return COCOeval_faster(truth, truth.loadRes(ones), kind, print_function=logger.debug, **style)


def or_nan(value: float) -> float:
    """Give NaN in place of COCO's -1 for what has no objects."""
    return float(value) if value >= 0 else math.nan
