"""Mask2Former (arXiv 2112.01527) on ViT-Adapter in mmdetection's `MaskFormer`."""

from typing import Any

from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.models.layers import MSDeformAttnPixelDecoder
from mmdet.registry import MODELS
from mmengine.config import ConfigDict

from eva_openmmlab.deformable_attention import StablePixelDecoder
from eva_openmmlab.eomt import StableLosses

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
