"""EoMT for instances and panoptic segments in mmdetection's `MaskFormer`."""

from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.registry import MODELS

from eva_openmmlab.eomt import QueryHead


@MODELS.register_module()
class EoMTHead(QueryHead, Mask2FormerHead):
    """A `panoptic_head` for `EoMTBackbone`; arguments are those of `QueryHead`."""
