"""Simple feature pyramid: several scales from the ViT's last map (ViTDet, arXiv 2203.16527).

Shapes: B images, C channels of the ViT, F channels of the pyramid, H x W patches.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from eva_backbone.layers import ChannelLayerNorm


class NormedConv2d(nn.Conv2d):
    """Convolution (kernel 1 or 3) without bias, then a channel LayerNorm named `norm`."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False
        )
        self.norm = ChannelLayerNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H, W)."""
        return self.norm(super().forward(x))


class SimpleFeaturePyramid(nn.Module):
    """Pyramid whose level at stride 2**n is the module `simfp_n`, as in detectron2.

    Args:
        in_channels: C.
        patch_size: Patch side in pixels, the stride of the input map.
        out_channels: F.
        scale_factors: Scale of each level relative to the input map: 4, 2, 1 or 0.5.

    Attributes:
        strides: Stride in pixels of each level, in the order of `scale_factors`.

    Raises:
        ValueError: For an unknown scale or a stride that is not a power of two.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        patch_size: int = 16,
        out_channels: int = 256,
        scale_factors: Sequence[float] = (4.0, 2.0, 1.0, 0.5),
    ) -> None:
        super().__init__()
        self.strides = tuple(int(patch_size / scale) for scale in scale_factors)
        self._names = [f"simfp_{stride.bit_length() - 1}" for stride in self.strides]
        for name, stride, scale in zip(self._names, self.strides, scale_factors, strict=True):
            whole = stride * scale == patch_size and stride.bit_count() == 1
            if scale not in (4.0, 2.0, 1.0, 0.5) or not whole:
                raise ValueError(
                    f"patch size {patch_size} at scale {scale} gives stride "
                    f"{patch_size / scale:g}: a scale must be 4, 2, 1 or 0.5, and a stride a power "
                    "of two; resample the patch embedding (load_pretrained does) to 16"
                )
            self.add_module(name, _level(in_channels, out_channels, scale))

    def pyramid(self, feature_map: Tensor) -> list[Tensor]:
        """Compute one (B, F, H * scale, W * scale) of (B, C, H, W) for each scale factor."""
        return [self.get_submodule(name)(feature_map) for name in self._names]

    def forward(self, feature_map: Tensor) -> list[Tensor]:
        """Compute the same as `pyramid`."""
        return self.pyramid(feature_map)


def _level(channels: int, out_channels: int, scale: float) -> nn.Sequential:
    if scale == 4.0:
        layers = [
            nn.ConvTranspose2d(channels, channels // 2, 2, stride=2),
            ChannelLayerNorm(channels // 2),
            nn.GELU(),
            nn.ConvTranspose2d(channels // 2, channels // 4, 2, stride=2),
        ]
        channels //= 4
    elif scale == 2.0:
        layers = [nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)]
        channels //= 2
    elif scale == 1.0:
        layers = []
    else:
        layers = [nn.MaxPool2d(2)]
    layers += [
        NormedConv2d(channels, out_channels, kernel_size=1),
        NormedConv2d(out_channels, out_channels, kernel_size=3),
    ]
    return nn.Sequential(*layers)
