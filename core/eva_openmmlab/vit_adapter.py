"""The parts that ViT-Adapter (arXiv 2205.08534) adds to a plain ViT, under their official names.

A small convolutional network makes a spatial prior of strides 8, 16 and 32. Before each quarter
of the ViT's blocks an injector adds it to the patches; after each quarter an extractor updates it
from them. The classes here do not depend on the ViT.

Shapes: B images, H x W patches of 16 pixels, N = H * W patches, C channels, M = 21 N / 4 spatial
tokens: strides 8, 16 and 32 one after the other, each row-major.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from eva_backbone.layers import LAYER_NORM_EPS, Linear, StochasticDepth
from eva_openmmlab.deformable_attention import MultiScaleDeformableAttention, Sampling

NormLayer = Callable[[int], nn.Module]


class Layout(NamedTuple):
    """Where patches and spatial tokens of one size of image stand."""

    levels: tuple[tuple[int, int], ...]  # (H, W) of the spatial tokens at strides 8, 16 and 32
    inject: Sampling  # how patches read the three levels of spatial tokens
    extract: Sampling  # how spatial tokens read the patches


def layout(grid: tuple[int, int], device: torch.device) -> Layout:
    """Lay out positions for a grid (H, W) of patches, both even."""
    height, width = grid
    levels = ((2 * height, 2 * width), grid, (height // 2, width // 2))
    centres = [_centres(level, device) for level in levels]
    return Layout(
        levels=levels,
        inject=Sampling(reference=centres[1], shapes=levels),
        extract=Sampling(reference=torch.cat(centres), shapes=(grid,)),
    )


def _centres(grid: tuple[int, int], device: torch.device) -> Tensor:
    """(H * W, 2) centre (x, y) of each cell, in 0..1."""
    height, width = grid
    y = (torch.arange(height, device=device) + 0.5) / height
    x = (torch.arange(width, device=device) + 0.5) / width
    return torch.stack([x.repeat(height), y.repeat_interleave(width)], -1)


class SpatialPriorModule(nn.Module):
    """Convolutions that turn an image into maps of strides 4, 8, 16 and 32, of C channels each.

    The stem has `width` channels; 2 and 4 times as many follow.
    """

    def __init__(
        self, *, width: int, embed_dim: int, norm_layer: NormLayer, in_channels: int = 3
    ) -> None:
        super().__init__()

        def convolution(inputs: int, outputs: int, *, stride: int = 2) -> list[nn.Module]:
            layer = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
            return [layer, norm_layer(outputs), nn.ReLU(inplace=True)]

        self.stem = nn.Sequential(
            *convolution(in_channels, width),
            *convolution(width, width, stride=1),
            *convolution(width, width, stride=1),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        self.conv2 = nn.Sequential(*convolution(width, 2 * width))
        self.conv3 = nn.Sequential(*convolution(2 * width, 4 * width))
        self.conv4 = nn.Sequential(*convolution(4 * width, 4 * width))
        self.fc1 = nn.Conv2d(width, embed_dim, kernel_size=1)
        self.fc2 = nn.Conv2d(2 * width, embed_dim, kernel_size=1)
        self.fc3 = nn.Conv2d(4 * width, embed_dim, kernel_size=1)
        self.fc4 = nn.Conv2d(4 * width, embed_dim, kernel_size=1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Map images (B, 3, 16 H, 16 W) to four (B, C, ., .) of strides 4, 8, 16 and 32."""
        c1 = self.stem(images)
        c2 = self.conv2(c1)
        c3 = self.conv3(c2)
        c4 = self.conv4(c3)
        return self.fc1(c1), self.fc2(c2), self.fc3(c3), self.fc4(c4)


class DepthwiseConvolution(nn.Module):
    """One depthwise 3x3 convolution, shared by the three levels of spatial tokens."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)

    def forward(self, tokens: Tensor, levels: tuple[tuple[int, int], ...]) -> Tensor:
        """Map (B, M, C) to (B, M, C); `levels` gives the (H, W) of each."""
        parts = tokens.split([height * width for height, width in levels], dim=1)
        maps = (
            self.dwconv(part.transpose(1, 2).unflatten(2, level))  # (B, C, H, W)
            for part, level in zip(parts, levels, strict=True)
        )
        return torch.cat([map_.flatten(2).transpose(1, 2) for map_ in maps], dim=1)


class ConvolutionalFFN(nn.Module):
    """MLP with a depthwise convolution before its activation."""

    def __init__(self, dim: int, *, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.dwconv = DepthwiseConvolution(hidden_dim)
        self.fc2 = Linear(hidden_dim, dim)

    def forward(self, tokens: Tensor, levels: tuple[tuple[int, int], ...]) -> Tensor:
        """Map (B, M, C) to (B, M, C)."""
        return self.fc2(F.gelu(self.dwconv(self.fc1(tokens), levels)))


class Injector(nn.Module):
    """Adds what patches read from the three levels of spatial tokens, at first nothing."""

    def __init__(self, dim: int, *, attention: MultiScaleDeformableAttention) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.feat_norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = attention
        self.gamma = nn.Parameter(torch.zeros(dim))

    def forward(self, patches: Tensor, spatial: Tensor, where: Layout) -> Tensor:
        """Update patches (B, N, C) from spatial tokens (B, M, C)."""
        read = self.attn(self.query_norm(patches), self.feat_norm(spatial), where.inject)
        return patches + self.gamma * read


class Extractor(nn.Module):
    """Updates the spatial tokens from the patches, with stochastic depth of its MLP."""

    def __init__(
        self,
        dim: int,
        *,
        attention: MultiScaleDeformableAttention,
        hidden_dim: int,
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.feat_norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = attention
        self.ffn = ConvolutionalFFN(dim, hidden_dim=hidden_dim)
        self.ffn_norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.drop_path = StochasticDepth(drop_path_rate)

    def forward(self, spatial: Tensor, patches: Tensor, where: Layout) -> Tensor:
        """Update spatial tokens (B, M, C) from patches (B, N, C)."""
        read = self.attn(self.query_norm(spatial), self.feat_norm(patches), where.extract)

        def ffn_branch(selected: Tensor) -> Tensor:
            return self.ffn(self.ffn_norm(selected), where.levels)

        return self.drop_path(spatial + read, ffn_branch)


class InteractionBlock(nn.Module):
    """An injector, used before some blocks of the ViT, and extractors, used after them.

    A frozen ViT has no injector. `activation_checkpointing` recomputes all of them in the backward
    pass.
    """

    def __init__(
        self,
        *,
        injector: Injector | None,
        extractor: Extractor,
        extra_extractors: list[Extractor],
        activation_checkpointing: bool,
    ) -> None:
        super().__init__()
        self.injector, self.extractor = injector, extractor
        self.extra_extractors = nn.ModuleList(extra_extractors)
        self.activation_checkpointing = activation_checkpointing

    def inject(self, patches: Tensor, spatial: Tensor, where: Layout) -> Tensor:
        """Update patches (B, N, C) from spatial tokens (B, M, C); without injector, they stay."""
        if self.injector is None:
            return patches
        return self._run(self.injector, patches, spatial, where)

    def extract(self, spatial: Tensor, patches: Tensor, where: Layout) -> Tensor:
        """Update spatial tokens (B, M, C) from patches (B, N, C)."""
        for extractor in (self.extractor, *self.extra_extractors):
            spatial = self._run(extractor, spatial, patches, where)
        return spatial

    def _run(self, module: nn.Module, *inputs: Any) -> Tensor:
        if self.activation_checkpointing and self.training and torch.is_grad_enabled():
            recomputed: Tensor = checkpoint(module, *inputs, use_reentrant=False)
            return recomputed
        out: Tensor = module(*inputs)
        return out


@torch.no_grad()
def init_adapter(module: nn.Module) -> None:
    """Initialise a part of the adapter like the official code."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            height, width = part.kernel_size
            fan_out = height * width * part.out_channels // part.groups
            nn.init.normal_(part.weight, std=(2.0 / fan_out) ** 0.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, MultiScaleDeformableAttention):
            part.init_weights()
