"""Cascade RoI heads with the official EVA options, and heads in float32 under mixed precision.

Letters: R proposals of an image, K classes.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from detectron2.layers import batched_nms
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import CascadeROIHeads
from detectron2.structures import Boxes, Instances
from torch import Tensor

from eva_detection.model.soft_nms import METHODS, Method, soft_nms


class EVACascadeROIHeads(CascadeROIHeads):
    """detectron2's cascade heads with soft-NMS, maskness rescoring and float32 training.

    Args:
        use_soft_nms: Soft-NMS instead of NMS. Then `test_topk_per_image` is not applied, as in the
            official code, whose published AP counts on it; see `max_detections`.
        method: "linear", "gaussian" or "naive".
        iou_threshold: Overlap from which "linear" and "naive" act; 0.6 in the published results.
        sigma: Width of "gaussian".
        override_score_thresh: Score threshold in place of the predictors' `test_score_thresh`.
        maskness_thresh: Multiply scores by the mean mask probability above this threshold; None
            leaves them. Changes the scores of boxes too.
        class_wise: Whether boxes of different classes leave each other alone under soft-NMS, as
            always in EVA-01.
        max_detections: Cap on the detections of an image after soft-NMS; None for no cap.
        **heads: Arguments of detectron2's `CascadeROIHeads`.

    Raises:
        ValueError: For an unknown method, or settings of soft-NMS without `use_soft_nms`.
    """

    def __init__(
        self,
        *,
        use_soft_nms: bool = False,
        method: Method = "linear",
        iou_threshold: float = 0.3,
        sigma: float = 0.5,
        override_score_thresh: float | None = None,
        maskness_thresh: float | None = None,
        class_wise: bool = True,
        max_detections: int | None = None,
        **heads: Any,
    ) -> None:
        super().__init__(**heads)
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
        if maskness_thresh is not None and not self.mask_on:
            raise ValueError(f"{maskness_thresh=} needs a mask head, and this detector has none")
        self.use_soft_nms, self.class_wise = use_soft_nms, class_wise
        self.soft_nms: Any = dict(method=method, iou_threshold=iou_threshold, sigma=sigma)
        self.override_score_thresh, self.maskness_thresh = override_score_thresh, maskness_thresh
        self.max_detections = max_detections

    def forward(
        self,
        images: Any,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Run the heads: float32 in training, maskness in inference; see `CascadeROIHeads`."""
        with _full_precision(features, only=self.training) as levels:
            return super().forward(images, levels, proposals, targets)

    def forward_with_given_boxes(
        self, features: dict[str, Tensor], instances: list[Instances]
    ) -> list[Instances]:
        """Add masks, then rescore by maskness where that is asked for."""
        instances = super().forward_with_given_boxes(features, instances)
        if self.maskness_thresh is not None:
            for result in instances:
                result.scores = result.scores * maskness(result.pred_masks, self.maskness_thresh)
        return instances

    def _forward_box(
        self,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> Any:
        if self.training:
            return super()._forward_box(features, proposals, targets)
        return self.detect_boxes(features, proposals)

    def detect_boxes(
        self, features: dict[str, Tensor], proposals: list[Instances], *, suppress: bool = True
    ) -> list[Instances]:
        """Detect the boxes of each image above the score threshold, without masks, in inference.

        All of them without `suppress`, else after NMS or soft-NMS and the cap.
        """
        boxes, scores = self.run_cascade(features, proposals)
        sizes = [proposal.image_size for proposal in proposals]
        threshold = self.override_score_thresh
        threshold = self.box_predictor[-1].test_score_thresh if threshold is None else threshold
        images = zip(boxes, scores, sizes, strict=True)
        candidates = [_candidates(*image, score_threshold=threshold) for image in images]
        return [self.suppress(image) for image in candidates] if suppress else candidates

    def run_cascade(
        self, features: dict[str, Tensor], proposals: list[Instances]
    ) -> tuple[Sequence[Tensor], list[Tensor]]:
        """Run the cascade: boxes (R, 4) of its last stage, and scores (R, K + 1) as their mean."""
        levels = [features[name] for name in self.box_in_features]
        sizes = [proposal.image_size for proposal in proposals]
        boxes: Sequence[Tensor] = ()
        per_stage: list[Sequence[Tensor]] = []
        for stage in range(self.num_cascade_stages):
            if stage > 0:
                proposals = self._create_proposals_from_boxes(boxes, sizes)
            predictions = self._run_stage(levels, proposals, stage)
            predictor = self.box_predictor[stage]
            boxes = predictor.predict_boxes(predictions, proposals)
            per_stage.append(predictor.predict_probs(predictions, proposals))
        per_image = zip(*per_stage, strict=True)
        return boxes, [torch.stack(stages).mean(dim=0) for stages in per_image]

    def suppress(self, candidates: Instances) -> Instances:
        """Apply NMS or soft-NMS and the cap to the candidates, best score first."""
        boxes, scores = candidates.pred_boxes.tensor, candidates.scores
        classes, cap = candidates.pred_classes, self.max_detections
        if self.use_soft_nms:
            groups = classes if self.class_wise else None
            keep, scores = soft_nms(boxes, scores, groups, **self.soft_nms)
        else:
            predictor = self.box_predictor[-1]
            keep = batched_nms(boxes, scores, classes, predictor.test_nms_thresh)
            scores, most = scores[keep], predictor.test_topk_per_image
            cap = most if most >= 0 else None
        result = candidates[keep[:cap]]
        result.scores = scores[:cap]
        return result


class EVARPN(RPN):
    """detectron2's RPN, in float32 when training with mixed precision, as in the official code."""

    def forward(
        self, images: Any, features: dict[str, Tensor], gt_instances: list[Instances] | None = None
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Propose boxes, see `RPN.forward`."""
        with _full_precision(features, only=self.training) as levels:
            return super().forward(images, levels, gt_instances)


def maskness(masks: Tensor, threshold: float) -> Tensor:
    """Mean probability of the pixels that belong to a mask (SOLO, arXiv 1912.04488).

    Pixels of the masks (n, 1, H, W) above the threshold do; an empty mask gets 0. Returns (n,).
    """
    inside = (masks > threshold).to(masks.dtype)
    count = inside.sum(dim=(1, 2, 3))
    return (masks * inside).sum(dim=(1, 2, 3)) / count.clamp(min=1)


def _candidates(
    boxes: Tensor, scores: Tensor, size: tuple[int, int], *, score_threshold: float
) -> Instances:
    """Choose candidates for suppression: each box with each class above the threshold."""
    finite = boxes.isfinite().all(dim=1) & scores.isfinite().all(dim=1)
    clipped = Boxes(boxes[finite])
    clipped.clip(size)
    scores = scores[finite, :-1]  # (R, K), without background
    above = (scores > score_threshold).nonzero()  # rows of (proposal, class)
    return Instances(
        size,
        pred_boxes=clipped[above[:, 0]],
        scores=scores[above[:, 0], above[:, 1]],
        pred_classes=above[:, 1],
    )


@contextlib.contextmanager
def _full_precision(features: dict[str, Tensor], *, only: bool) -> Iterator[dict[str, Tensor]]:
    """Leave mixed precision where `only` float32 is wanted; yields the features to use."""
    if not only:
        yield features
        return
    with torch.autocast(next(iter(features.values())).device.type, enabled=False):
        yield {name: level.float() for name, level in features.items()}
