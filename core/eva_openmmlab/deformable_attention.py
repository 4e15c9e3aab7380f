"""Multi-scale deformable attention (Deformable DETR, arXiv 2010.04159).

ViT-Adapter and the pixel decoder of Mask2Former use it. Each query reads a few points of each
level at positions that it predicts itself. On a GPU mmcv's operation is used where it is compiled,
else mmcv's function in PyTorch.

Shapes: B images, Q queries, N values over all levels, C channels, h heads, D channels of a value
head, L levels of H x W values, P points of a level.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from eva_backbone.layers import Linear
from eva_backbone.resample import no_autocast
from eva_openmmlab.stand_in import install_stand_in

install_stand_in()
from mmcv.ops import multi_scale_deform_attn as mmcv_attention  # noqa: E402

IMAGES_PER_STEP = 64  # of the compiled operation
Grid = tuple[int, int]


class Sampling(NamedTuple):
    """Where queries stand and what they read from."""

    reference: Tensor  # (Q, 2) position (x, y) of each query, in 0..1 over the image
    shapes: tuple[Grid, ...]  # (H, W) of each of the L levels, in the order of the values


class MultiScaleDeformableAttention(nn.Module):
    """Deformable attention with values narrower than the tokens (ViT-Adapter, arXiv 2205.08534).

    Queries and features have `dim` C channels, values `value_ratio` times as many, which the heads
    divide; a query reads `num_points` P of each of `num_levels` L.
    """

    def __init__(
        self, dim: int, *, num_heads: int, num_levels: int, num_points: int, value_ratio: float
    ) -> None:
        super().__init__()
        value_dim = int(dim * value_ratio)
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        points = num_heads * num_levels * num_points
        self.sampling_offsets = Linear(dim, 2 * points)
        self.attention_weights = Linear(dim, points)
        self.value_proj = Linear(dim, value_dim)
        self.output_proj = Linear(value_dim, dim)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Let head i look into direction i of h, point j at a distance of j + 1 values."""
        angle = torch.arange(self.num_heads) * (2.0 * math.pi / self.num_heads)
        direction = torch.stack([angle.cos(), angle.sin()], -1)  # (h, 2)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        distance = torch.arange(1, self.num_points + 1)[:, None]  # (P, 1)
        offsets = (direction[:, None, None] * distance).expand(-1, self.num_levels, -1, -1)
        self.sampling_offsets.bias.copy_(offsets.flatten())
        for parameter in (self.sampling_offsets.weight, *self.attention_weights.parameters()):
            nn.init.zeros_(parameter)
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, query: Tensor, features: Tensor, sampling: Sampling) -> Tensor:
        """Let queries (B, Q, C) read features (B, N, C), level after level, each row-major."""
        heads, levels, points = self.num_heads, self.num_levels, self.num_points
        value = self.value_proj(features).unflatten(-1, (heads, -1))  # (B, N, h, D)
        # (B, Q, h, L, P, 2)
        offsets = self.sampling_offsets(query).unflatten(-1, (heads, levels, points, 2))
        weights = self.attention_weights(query).unflatten(-1, (heads, levels * points))
        weights = weights.float().softmax(-1).unflatten(-1, (levels, points))  # (B, Q, h, L, P)
        sides = [(width, height) for height, width in sampling.shapes]
        sizes = torch.tensor(sides, dtype=torch.float32, device=offsets.device)[
            :, None
        ]  # (L, 1, 2)
        locations = sampling.reference[:, None, None, None] + offsets.float() / sizes
        out = deformable_attention(value, sampling.shapes, locations, weights)
        return self.output_proj(out)


def deformable_attention(
    value: Tensor, shapes: Sequence[Grid], locations: Tensor, weights: Tensor
) -> Tensor:
    """Sum weighted, bilinearly interpolated values, zero outside a level; in float32.

    Args:
        value: (B, N, h, D).
        shapes: (H, W) of each level.
        locations: (B, Q, h, L, P, 2), (x, y) in 0..1 over the level.
        weights: (B, Q, h, L, P).

    Returns:
        (B, Q, h * D) in the dtype of `value`.
    """
    full = torch.promote_types(value.dtype, torch.float32)
    with no_autocast(value.device):
        values, locations, weights = value.to(full), locations.to(full), weights.to(full)
        if value.is_cuda and mmcv_attention.IS_CUDA_AVAILABLE:
            counts = [height * width for height, width in shapes]
            starts = [sum(counts[:level]) for level in range(len(counts))]
            # the operation wants a number of images per step that divides the batch
            batch = len(value)
            step = math.gcd(batch, IMAGES_PER_STEP) if batch > IMAGES_PER_STEP else batch
            out: Tensor = mmcv_attention.MultiScaleDeformableAttnFunction.apply(
                values.contiguous(),
                torch.tensor(shapes, device=value.device),
                torch.tensor(starts, device=value.device),
                locations.contiguous(),
                weights.contiguous(),
                step,
            )
        else:
            in_pytorch = mmcv_attention.multi_scale_deformable_attn_pytorch
            out = in_pytorch(values, shapes, locations, weights)
    return out.to(value.dtype)


class StablePixelDecoder:
    """Part of mmdetection's pixel decoder: float32 also under automatic mixed precision.

    With bfloat16 the points that deformable attention reads would be off by up to half a cell.
    Arguments are mmdetection's. The attention is the adapter's, under mmcv's names; it has no
    dropout.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for layer in self.encoder.layers:  # type: ignore[attr-defined]
            layer.self_attn = _EncoderAttention.like(layer.self_attn)

    def init_weights(self) -> None:
        """Initialise all parts as mmdetection does."""
        super().init_weights()  # type: ignore[misc]
        for layer in self.encoder.layers:  # type: ignore[attr-defined]
            layer.self_attn.init_weights()

    def forward(self, feats: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Compute mask features at stride 4, and three maps, coarsest first."""
        with torch.autocast(feats[0].device.type, enabled=False):
            features, levels = super().forward([level.float() for level in feats])  # type: ignore[misc]
        return features, levels


class _EncoderAttention(MultiScaleDeformableAttention):
    """Self attention of the encoder, called as mmdetection calls mmcv's module."""

    @classmethod
    def like(cls, module: Any) -> "_EncoderAttention":
        """Build one with the sizes of mmcv's module."""
        if module.dropout.p:
            raise ValueError(f"EVAPixelDecoder has no dropout, got {module.dropout.p}")
        return cls(
            module.embed_dims,
            num_heads=module.num_heads,
            num_levels=module.num_levels,
            num_points=module.num_points,
            value_ratio=module.value_proj.out_features / module.embed_dims,
        )

    def forward(  # type: ignore[override]  # as mmcv
        self,
        query: Tensor,
        *,
        query_pos: Tensor,
        reference_points: Tensor,
        spatial_shapes: Tensor,
        **_: Any,
    ) -> Tensor:
        """Add what tokens read from each other to `query` (B, N, C); nothing is padded."""
        shapes = tuple((int(height), int(width)) for height, width in spatial_shapes.tolist())
        where = Sampling(reference=reference_points[0, :, 0], shapes=shapes)
        return query + super().forward(query + query_pos, query, where)
