"""A two-stage detector of batches without a loop over images, so that a trace holds for any batch.

The boxes of all images are one list, which detectron2's heads see as those of one image; the index
of its image lies beside each.

Shapes: B images, N anchors or proposals of each, R boxes of all images, K classes.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.export.torchscript_patch import patch_builtin_len
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.modeling.roi_heads import CascadeROIHeads
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torchvision.ops import nms

from eva_detection.model.roi_heads import EVACascadeROIHeads


class BatchedDetector(nn.Module):
    """The inference of a detector with plain NMS, for images of one size.

    Args:
        detector: detectron2's `GeneralizedRCNN`, which is left as it is.
    """

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.detector = detector
        self.heads = copy.copy(detector.roi_heads)
        modules = dict(self.heads._modules)
        for name, module in modules.items():
            if isinstance(module, ROIPooler):
                modules[name] = _BatchedPooler(module)
        self.heads._modules = modules

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Detect in images (B, 3, H, W), 0 to 255: fields of `Instances`, and `image_index`.

        Each has R rows, the best score first.
        """
        with patch_builtin_len():  # numbers of boxes stay numbers of a trace
            padded = self.detector.preprocess_image([{"image": images}])  # a batch for an image
            size = padded.image_sizes[0]
            features = self.detector.backbone(padded.tensor[0])
            proposals, image_index = self._propose(features, size)
            detections, image_index = self._detect_boxes(features, proposals, image_index)
            self._set_images(image_index)
            (detections,) = self.heads.forward_with_given_boxes(features, [detections])
        fields = detections.get_fields()
        outputs = {name: getattr(fields[name], "tensor", fields[name]) for name in sorted(fields)}
        return {"image_index": image_index, **outputs}

    def _set_images(self, image_index: Tensor) -> None:
        for module in self.heads.children():
            if isinstance(module, _BatchedPooler):
                module.image_index = image_index

    def _propose(self, features: dict[str, Tensor], size: Any) -> tuple[Instances, Tensor]:
        """Propose boxes as `find_top_rpn_proposals` does: R of them, and their images (R,)."""
        rpn = self.detector.proposal_generator
        levels = [features[name] for name in rpn.in_features]
        batch, dim = levels[0].shape[0], rpn.anchor_generator.box_dim
        outputs = zip(*rpn.rpn_head(levels), rpn.anchor_generator(levels), strict=True)
        selected: list[tuple[Tensor, Tensor, Tensor]] = []
        for level, (logits, deltas, anchors) in enumerate(outputs):
            logits = logits.permute(0, 2, 3, 1).flatten(1)  # (B, N)
            deltas = deltas.permute(0, 2, 3, 1).reshape(batch, -1, dim)
            most, count = rpn.pre_nms_topk[False], logits.shape[1]
            most = count.clamp(max=most) if isinstance(count, Tensor) else min(count, most)
            scores, order = logits.topk(most, dim=1)
            deltas = deltas.gather(1, order[..., None].expand(-1, -1, dim)).flatten(0, 1)
            boxes = rpn.box2box_transform.apply_deltas(deltas, anchors.tensor[order.flatten()])
            selected.append((boxes.reshape(batch, -1, dim), scores, torch.full_like(order, level)))
        boxes, scores, level_index = (
            torch.cat(parts, dim=1) for parts in zip(*selected, strict=True)
        )
        image_index = torch.arange(batch, device=boxes.device)[:, None].expand_as(scores)
        flat = Boxes(boxes.flatten(0, 1))
        flat.clip(size)
        keep = flat.nonempty(rpn.min_box_size)
        scores, level_index, image_index = (
            part.flatten()[keep] for part in (scores, level_index, image_index)
        )
        flat = flat[keep]
        keep = _suppress(
            flat.tensor,
            scores,
            (level_index, image_index),
            threshold=rpn.nms_thresh,
            most=rpn.post_nms_topk[False],
            images=(batch, *size),
        )
        return Instances(size, proposal_boxes=flat[keep]), image_index[keep]

    def _detect_boxes(
        self, features: dict[str, Tensor], proposals: Instances, image_index: Tensor
    ) -> tuple[Instances, Tensor]:
        """Detect as `EVACascadeROIHeads.detect_boxes` does: R boxes, and their images (R,)."""
        heads, size = self.heads, proposals.image_size
        self._set_images(image_index)
        if isinstance(heads, CascadeROIHeads):
            predictor = heads.box_predictor[-1]
            (boxes,), (scores,) = EVACascadeROIHeads.run_cascade(heads, features, [proposals])
        else:
            predictor = heads.box_predictor
            levels = [features[name] for name in heads.box_in_features]
            pooled = heads.box_head(heads.box_pooler(levels, [proposals.proposal_boxes]))
            predictions = predictor(pooled)
            (boxes,) = predictor.predict_boxes(predictions, [proposals])
            (scores,) = predictor.predict_probs(predictions, [proposals])
        threshold = getattr(heads, "override_score_thresh", None)
        threshold = predictor.test_score_thresh if threshold is None else threshold
        rows, classes = (scores[:, :-1] > threshold).nonzero(as_tuple=True)
        clipped = Boxes(boxes)
        clipped.clip(size)
        candidates = Instances(
            size, pred_boxes=clipped[rows], scores=scores[rows, classes], pred_classes=classes
        )
        image_index = image_index[rows]
        keep = _suppress(
            candidates.pred_boxes.tensor,
            candidates.scores,
            (classes, image_index),
            threshold=predictor.test_nms_thresh,
            most=predictor.test_topk_per_image,
            images=(features[heads.box_in_features[0]].shape[0], *size),
        )
        return candidates[keep], image_index[keep]


class _BatchedPooler(nn.Module):
    """A `ROIPooler` of one list of boxes from several images."""

    def __init__(self, pooler: ROIPooler) -> None:
        super().__init__()
        self.pooler = pooler
        self.image_index = torch.empty(0)

    def forward(self, levels: Sequence[Tensor], boxes: Sequence[Boxes]) -> Tensor:
        """Pool (R, C, S, S) from levels (B, C, H, W)."""
        pooler, tensor = self.pooler, boxes[0].tensor
        regions = torch.cat([self.image_index[:, None].to(tensor), tensor], dim=1)  # (R, 5)
        level_of = assign_boxes_to_levels(
            [*boxes],
            pooler.min_level,
            pooler.max_level,
            pooler.canonical_box_size,
            pooler.canonical_level,
        )
        pooled = tensor.new_zeros(tensor.shape[0], levels[0].shape[1], *pooler.output_size)
        for index, (level, pool) in enumerate(zip(levels, pooler.level_poolers, strict=True)):
            (rows,) = (level_of == index).nonzero(as_tuple=True)
            pooled.index_put_((rows,), pool(level, regions[rows]))
        return pooled


def _suppress(
    boxes: Tensor,
    scores: Tensor,
    groups: tuple[Tensor, Tensor],
    *,
    threshold: float,
    most: int,
    images: tuple[Any, Any, Any],
) -> Tensor:
    """Apply NMS within levels or classes of each image, and keep its `most` best boxes, -1 all.

    Boxes of other `groups`, (R,) classes and image indexes, are moved apart: classes in x and
    images in y, because of the precision of float32. `images` are their number, height and width.

    Returns:
        Rows of the boxes, the best score first.
    """
    classes, image_index = groups
    count, height, width = images
    offsets = torch.stack([classes, image_index] * 2, dim=1) * (height + width + 1)
    keep = nms(boxes + offsets.to(boxes), scores, threshold)
    if most < 0:
        return keep
    own_image = image_index[keep][:, None]
    ranks = (own_image == torch.arange(count, device=keep.device)).long().cumsum(dim=0)
    return keep[ranks.gather(1, own_image)[:, 0] <= most]
