"""Mask2Former head with the official inference order and the official checkpoints' names.

Shapes: B images, Q queries, K classes, h x w the mask's resolution (a quarter of the input's).
"""

import copy
import inspect
import re
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.transformer import FFN
from mmdet.models.dense_heads import Mask2FormerHead as DetectionMask2FormerHead
from mmdet.models.layers import MSDeformAttnPixelDecoder
from mmengine.config import ConfigDict
from mmseg.models.decode_heads import Mask2FormerHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from eva_openmmlab.deformable_attention import StablePixelDecoder
from eva_openmmlab.eomt import QueryHead, StableLosses

# The official files have the names of mmsegmentation 0.x, which numbers attention modules, and the
# decoder's cross attention comes first. Taking 0 for self attention would load without any error.
_RULES = (
    (r"(pixel_decoder\.encoder\.layers\.\d+)\.attentions\.0\.", r"\1.self_attn."),
    (r"(transformer_decoder\.layers\.\d+)\.attentions\.0\.", r"\1.cross_attn."),
    (r"(transformer_decoder\.layers\.\d+)\.attentions\.1\.", r"\1.self_attn."),
    (r"((?:pixel_decoder\.encoder|transformer_decoder)\.layers\.\d+)\.ffns\.0\.", r"\1.ffn."),
)
_NO_OBJECT_WEIGHT = 0.1  # class weight of "no object" in the classification loss
_KNOWN = set(inspect.signature(DetectionMask2FormerHead.__init__).parameters) - {"self", "kwargs"}


@MODELS.register_module()
class EVAMask2FormerHead(StableLosses, Mask2FormerHead):
    """mmsegmentation's Mask2Former head, evaluated as in the official EVA code.

    Classes and masks are combined at a quarter of the input's resolution and the result is
    enlarged; mmsegmentation enlarges all masks before the sigmoid, which gives other numbers and
    does not work with sliding windows. Official names of weights are translated while loading.

    Args:
        num_classes: Number of classes K.
        align_corners: Passed to the segmentor, which resizes the result with it.
        ignore_index: Label of pixels without ground truth.
        loss_cls: Classification loss; without `class_weight` it is 1 for each class and 0.1 for
            "no object", of any number of classes.
        checkpoint_ffn: Compute the MLPs of both transformers again in the backward pass, as the
            official code does; saves 0.5 GB an image of 896 px (computed) and costs little time.
        **head: Arguments of mmdetection's head (`in_channels`, `feat_channels`, `num_queries`,
            `pixel_decoder`, `transformer_decoder`, `loss_mask`, `loss_dice`, `train_cfg`, ...).

    Raises:
        TypeError: For an argument that the head does not have; the base class would ignore it.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        align_corners: bool = False,
        ignore_index: int = 255,
        loss_cls: dict[str, Any],
        checkpoint_ffn: bool = False,
        **head: Any,
    ) -> None:
        unknown = sorted(head.keys() - _KNOWN)
        if unknown:
            raise TypeError(f"EVAMask2FormerHead has no argument {', '.join(unknown)}")
        loss_cls = {"class_weight": [1.0] * num_classes + [_NO_OBJECT_WEIGHT], **loss_cls}
        # mmdetection reads these by attribute
        nested = {k: ConfigDict(v) if isinstance(v, dict) else v for k, v in head.items()}
        super().__init__(
            num_classes=num_classes,
            align_corners=align_corners,
            ignore_index=ignore_index,
            num_things_classes=num_classes,
            num_stuff_classes=0,
            loss_cls=ConfigDict(copy.deepcopy(loss_cls)),
            **nested,
        )
        if checkpoint_ffn:
            for layers in (self.pixel_decoder.encoder.layers, self.transformer_decoder.layers):
                for layer in layers:
                    layer.ffn.__class__ = _CheckpointedFFN  # same weights under the same names
        self.register_load_state_dict_pre_hook(_translate_names)

    def forward(
        self, x: Any, batch_data_samples: Sequence[SegDataSample] | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Compute (B, Q, K + 1) classes and (B, Q, h, w) masks, of the queries and of each layer.

        The maps have strides 4, 8, 16 and 32.
        """
        samples = batch_data_samples or [SegDataSample() for _ in x[0]]  # none for counts of FLOPs
        outputs: tuple[list[Tensor], list[Tensor]] = super().forward(x, samples)
        return outputs

    def predict(
        self, x: tuple[Tensor, ...], batch_img_metas: list[dict[str, Any]], test_cfg: Any
    ) -> Tensor:
        """Compute class scores (B, K, H, W) of crops of a size `img_shape`, whatever surrounds it.

        They are between 0 and 1, and not normalised over the classes.
        """
        samples = [SegDataSample(metainfo=metainfo) for metainfo in batch_img_metas]
        all_classes, all_masks = self(x, samples)
        classes = F.softmax(all_classes[-1], dim=-1)[..., :-1]  # (B, Q, K)
        masks = all_masks[-1].sigmoid()  # (B, Q, h, w)
        scores = torch.einsum("bqk,bqhw->bkhw", classes, masks)
        size = tuple(batch_img_metas[0]["img_shape"][:2])
        return F.interpolate(scores, size=size, mode="bilinear", align_corners=False)


@MODELS.register_module()
class EoMTSemanticHead(QueryHead, EVAMask2FormerHead):
    """The classes of `EoMTBackbone`'s queries as a segmentation, combined as Mask2Former's here.

    Args:
        num_classes: Number of classes K.
        align_corners: Passed to the segmentor, which resizes the result with it.
        ignore_index: Label of pixels without ground truth.
        **head: Arguments of `QueryHead`.
    """

    def __init__(
        self, *, num_classes: int, align_corners: bool = False, ignore_index: int = 255, **head: Any
    ) -> None:
        QueryHead.__init__(self, num_things_classes=num_classes, **head)
        self.align_corners, self.ignore_index = align_corners, ignore_index
        self.out_channels = num_classes


@MODELS.register_module()
class EVAPixelDecoder(StablePixelDecoder, MSDeformAttnPixelDecoder):
    """mmdetection's pixel decoder, in float32; see `StablePixelDecoder`."""


class _CheckpointedFFN(FFN):
    def forward(self, x: Tensor, identity: Tensor | None = None) -> Tensor:
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(x, identity)
        return checkpoint(super().forward, x, identity, use_reentrant=False)


def _translate_names(module: Any, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    for name in list(state_dict):
        modern = modern_name(name, prefix)
        if modern != name:
            state_dict[modern] = state_dict.pop(name)


def modern_name(name: str, prefix: str = "decode_head.") -> str:
    """Translate a name behind `prefix` to mmsegmentation 1.x; other and modern ones stay."""
    if not name.startswith(prefix):
        return name
    for old, new in _RULES:
        name = re.sub(f"^{re.escape(prefix)}{old}", prefix + new, name)
    return name
