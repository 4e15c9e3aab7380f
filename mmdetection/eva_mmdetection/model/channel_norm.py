"""LayerNorm over channels as mmcv builds it from `norm_cfg`."""

from mmdet.registry import MODELS

from eva_backbone.layers import LAYER_NORM_EPS, ChannelLayerNorm


@MODELS.register_module()
class EVAChannelNorm(ChannelLayerNorm):
    """The pyramid's LayerNorm over channels, for mmcv's `norm_cfg`.

    Args:
        num_channels: Channels of the maps.
        eps: 1e-6, as in every layer of the detector; mmcv's default differs.

    Raises:
        ValueError: For another `eps`.
    """

    _abbr_ = "ln"  # what mmcv calls it inside its `ConvModule`

    def __init__(self, num_channels: int, *, eps: float) -> None:
        if eps != LAYER_NORM_EPS:
            raise ValueError(
                f"eps of EVAChannelNorm must be {LAYER_NORM_EPS}, got {eps}; use "
                f"norm_cfg=dict(type='EVAChannelNorm', eps={LAYER_NORM_EPS})"
            )
        super().__init__(num_channels)
