"""A linear layer on frozen features, as the evaluations of DINOv2 and DINOv3 have it."""

from typing import Any

from mmcv.cnn import build_norm_layer
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class LinearHead(BaseDecodeHead):
    """Classifies each patch from features normalised over the batch (arXiv 2304.07193, appendix).

    Args:
        in_channels: Channels of the map.
        channels: The same number.
        **head: Arguments of mmsegmentation's heads (`num_classes`, `loss_decode`, ...).
    """

    def __init__(self, *, in_channels: int, channels: int, **head: Any) -> None:
        super().__init__(in_channels=in_channels, channels=channels, in_index=-1, **head)
        self.norm = build_norm_layer(self.norm_cfg, in_channels)[1]

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Map the last of the maps (B, C, H / p, W / p) to scores (B, K, H / p, W / p)."""
        scores: Tensor = self.cls_seg(self.norm(self._transform_inputs(inputs)))
        return scores
