"""Mask2Former (arXiv 2112.01527) on ViT-Adapter, and EoMT, in mmdetection's `MaskFormer`.

Shapes: Q queries, K classes, H x W pixels.
"""

from typing import Any

from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.models.layers import MSDeformAttnPixelDecoder
from mmdet.models.seg_heads.panoptic_fusion_heads import MaskFormerFusionHead
from mmdet.registry import MODELS
from mmdet.structures import INSTANCE_OFFSET
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from eva_openmmlab.deformable_attention import StablePixelDecoder
from eva_openmmlab.eomt import QueryHead, StableLosses

_NO_OBJECT_WEIGHT = 0.1  # class weight of "no object" in the classification loss


@MODELS.register_module()
class EVAPixelDecoder(StablePixelDecoder, MSDeformAttnPixelDecoder):
    """mmdetection's pixel decoder, in float32; see `StablePixelDecoder`."""


@MODELS.register_module()
class EVAMask2FormerHead(StableLosses, Mask2FormerHead):
    """mmdetection's Mask2Former head with losses in float32, for any number of classes.

    Args:
        num_things_classes: Classes of things.
        num_stuff_classes: Classes of stuff; 0 for instances alone.
        loss_cls: Classification loss; without `class_weight` it is 1 for each class and 0.1 for
            "no object".
        **head: Further arguments of mmdetection's head.
    """

    def __init__(
        self,
        *,
        num_things_classes: int,
        num_stuff_classes: int = 0,
        loss_cls: dict[str, Any],
        **head: Any,
    ) -> None:
        weights = [1.0] * (num_things_classes + num_stuff_classes) + [_NO_OBJECT_WEIGHT]
        super().__init__(
            num_things_classes=num_things_classes,
            num_stuff_classes=num_stuff_classes,
            loss_cls=ConfigDict({"class_weight": weights, **loss_cls}),
            **head,
        )


@MODELS.register_module()
class EoMTHead(QueryHead, Mask2FormerHead):
    """A `panoptic_head` for `EoMTBackbone`; arguments are those of `QueryHead`."""


@MODELS.register_module()
class EVAFusionHead(MaskFormerFusionHead):
    """mmdetection's `MaskFormerFusionHead`, for few classes too; panoptic segments have scores.

    A segment's is the probability of its class times the mean of its mask over its pixels, of the
    query for which that is most: `scores`, id -> 0..1, in the metainfo.
    """

    def instance_postprocess(self, mask_cls: Tensor, mask_pred: Tensor) -> InstanceData:
        """Find the best instances of classes (Q, K + 1) and masks (Q, H, W): at most Q x K."""
        most, pairs = self.test_cfg.get("max_per_image", 100), mask_cls[:, :-1].numel()
        self.test_cfg["max_per_image"] = min(most, pairs)
        return super().instance_postprocess(mask_cls, mask_pred)

    def panoptic_postprocess(self, mask_cls: Tensor, mask_pred: Tensor) -> PixelData:
        """Merge classes (Q, K + 1) and masks (Q, H, W) of an image into segments."""
        result = super().panoptic_postprocess(mask_cls, mask_pred)
        ids, masks, scores = result.sem_seg[0], mask_pred.sigmoid(), dict[int, float]()
        probabilities, labels = mask_cls.softmax(-1).max(-1)
        for key in ids.unique().tolist():
            queries = labels == key % INSTANCE_OFFSET
            if key % INSTANCE_OFFSET != self.num_classes:
                fits = masks[queries][:, ids == key].mean(1)
                scores[key] = (probabilities[queries] * fits).max().item()
        result.set_metainfo({"scores": scores})
        return result
