"""Scores that mmdetection's metrics do not give: of LVIS, and of each class."""

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from hotcoco import COCO
from mmdet.evaluation.metrics import CocoMetric
from mmdet.registry import METRICS

from eva_data.detection.scoring import (
    DetectionTable,
    read_lvis,
    score,
)


@METRICS.register_module()
class EVALVISMetric(CocoMetric):
    """Box and mask AP by LVIS's rules through hotcoco, as `detection/` computes them.

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
        self._max_dets = max_dets
        self._coco_api = SimpleNamespace(dataset=read_lvis(ann_file, otherwise="CocoMetric"))
        self._truth = COCO(self._coco_api.dataset)
        self.class_scores: dict[str, dict[int, float]] = {}  # of the latest evaluation

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Score the predictions of all processes.

        Returns:
            Name, such as `bbox_AP` or `segm_APr` -> 0..1, NaN where the set has no such objects or
            nothing was found.
        """
        self.cat_ids = sorted(self._truth.get_cat_ids())
        predictions = [prediction for _, prediction in results]
        self.class_scores = {}
        if self.outfile_prefix:
            self.results2json(predictions, self.outfile_prefix)
        if self.format_only:
            return {}
        ids, scores = np.array(self.cat_ids), dict[str, float]()
        tables = [
            DetectionTable.of_image(
                prediction["img_id"],
                corners=prediction["bboxes"].astype(np.float64),
                category_id=ids[prediction["labels"]],
                score=prediction["scores"],
                masks=prediction.get("masks"),
            )
            for prediction in predictions
        ]
        detections = DetectionTable.concatenate(tables)
        for kind in self.metrics:
            loaded = detections.load(self._truth, kind)
            metrics, self.class_scores[kind] = score(
                self._truth, loaded, kind, limit=self._max_dets, lvis=True
            )
            scores |= {f"{kind}_{name}": value for name, value in metrics.items()}
        return scores


def scores_of_classes(metric: CocoMetric, labels: Mapping[str, Any]) -> dict[str, dict[int, float]]:
    """Score each class, which mmdetection's metric does for the last kind of objects alone.

    `labels` are those of the scored images in COCO's format.

    Returns:
        Kind ("bbox", "segm") -> id of a class -> AP, 0 to 1; NaN without objects.
    """
    if isinstance(metric, EVALVISMetric):
        return metric.class_scores
    truth, scores = COCO(dict(labels)), {}
    for kind in (kind for kind in metric.metrics if kind in ("bbox", "segm")):
        detections = truth.load_res(f"{metric.outfile_prefix}.{kind}.json")
        _, scores[kind] = score(truth, detections, kind, limit=100)
    return scores


def or_nan(value: float) -> float:
    """Give NaN in place of COCO's -1 for what has no objects."""
    return float(value) if value >= 0 else math.nan
