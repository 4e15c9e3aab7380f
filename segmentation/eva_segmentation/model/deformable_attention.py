"""Multi-scale deformable attention (Deformable DETR, arXiv 2010.04159).

ViT-Adapter and the pixel decoder of Mask2Former use it. Each query reads a few points of each
level at positions that it predicts itself. The sum over levels, points and the four pixels around
a point is a weighted sum of rows of the values, so one `embedding_bag` does all of it and nothing
of size queries x points x channels is ever stored. With the official 44 and 32 channels of a head
that is faster on a CPU than `grid_sample` on each level, as mmcv does it (benchmarks/results.md),
and slower with few channels, the sooner where gradients are wanted, because the backward pass of
`embedding_bag` has one thread; the width decides. On a GPU mmcv's operation is used where it is
compiled, else `grid_sample`: the backward pass of `embedding_bag` would sort all rows there.

Shapes: B images, Q queries, N values over all levels, C channels, h heads, D channels of a value
head, L levels of H x W values, P points of a level.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eva_backbone.layers import Linear
from eva_backbone.resample import no_autocast
from eva_openmmlab.stand_in import has_cuda_operations, install_stand_in

install_stand_in()
from mmcv.ops.multi_scale_deform_attn import (  # noqa: E402
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)

IMAGES_PER_STEP = 64  # of the compiled operation
# channels D below which one `grid_sample` for each level is faster
NARROW_HEAD, NARROW_HEAD_IN_TRAINING = 28, 40
Grid = tuple[int, int]


class Sampling(NamedTuple):
    """Where queries stand and what they read from.

    Attributes:
        reference: (Q, 2) position (x, y) of each query, in 0..1 over the image.
        shapes: (H, W) of each of the L levels, in the order of the values.
    """

    reference: Tensor
    shapes: tuple[Grid, ...]


class MultiScaleDeformableAttention(nn.Module):
    """Deformable attention with values narrower than the tokens (ViT-Adapter, arXiv 2205.08534).

    Args:
        dim: Width C of queries and features.
        num_heads: Heads h.
        num_levels: Levels L that a query reads from.
        num_points: Points P that it reads from each.
        value_ratio: Width of the values divided by C.

    Raises:
        ValueError: If the heads do not divide the width of the values.
    """

    def __init__(
        self, dim: int, *, num_heads: int, num_levels: int, num_points: int, value_ratio: float
    ) -> None:
        super().__init__()
        value_dim = int(dim * value_ratio)
        if not value_dim or value_dim % num_heads:
            raise ValueError(f"deform_num_heads {num_heads} do not divide a width of {value_dim}")
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
        sizes = _sizes(sampling.shapes, offsets.device)[:, None]  # (L, 1, 2)
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
        inputs = (value.to(full), tuple(shapes), locations.to(full), weights.to(full))
        if value.is_cuda and _compiled():
            return compiled_attention(*inputs).to(value.dtype)
        training = torch.is_grad_enabled() and value.requires_grad
        narrow = NARROW_HEAD_IN_TRAINING if training else NARROW_HEAD
        if value.is_cuda or value.shape[-1] < narrow:
            return level_attention(*inputs).to(value.dtype)
        return bag_attention(*inputs).to(value.dtype)


def compiled_attention(
    value: Tensor, shapes: tuple[Grid, ...], locations: Tensor, weights: Tensor
) -> Tensor:
    """Compute `deformable_attention` with mmcv's CUDA operation."""
    sizes = torch.tensor(shapes, device=value.device)
    starts = torch.tensor(_starts(shapes), device=value.device)
    # the operation wants a number of images per step that divides the batch
    step = math.gcd(len(value), IMAGES_PER_STEP) if len(value) > IMAGES_PER_STEP else len(value)
    out: Tensor = MultiScaleDeformableAttnFunction.apply(
        value.contiguous(), sizes, starts, locations.contiguous(), weights.contiguous(), step
    )
    return out


def level_attention(
    value: Tensor, shapes: tuple[Grid, ...], locations: Tensor, weights: Tensor
) -> Tensor:
    """Compute `deformable_attention` with mmcv's function in PyTorch, for narrow heads and GPUs."""
    sizes = torch.tensor(shapes, device="cpu")  # read as numbers, whatever the device
    out: Tensor = multi_scale_deformable_attn_pytorch(value, sizes, locations, weights)
    return out


def bag_attention(
    value: Tensor, shapes: tuple[Grid, ...], locations: Tensor, weights: Tensor
) -> Tensor:
    """Compute `deformable_attention` in PyTorch for wide heads on a CPU."""
    queries = locations.shape[1]
    sizes = _sizes(shapes, value.device).to(locations.dtype)[:, None]  # (L, 1, 2)
    position = locations * sizes - 0.5  # (B, Q, h, L, P, 2) in values; their centres are integers
    low = position.detach().floor()
    share = position - low  # of the higher neighbour
    with torch.no_grad():
        last = sizes - 1
        has_low = (low >= 0) & (low <= last)
        has_high = (low >= -1) & (low < last)
        # fmax: positions of a run that diverged are nan and must not become rows
        neighbours = torch.stack([low, low + 1], -1).fmax(torch.zeros_like(last[..., None]))
        neighbours = neighbours.minimum(last[..., None]).int()
        rows = _rows(neighbours, shapes, value)  # (B, Q, h, L, P, 2, 2)
    axis = torch.stack([(1 - share) * has_low, share * has_high], -1)  # (B, Q, h, L, P, xy, 2)
    along_y = axis[..., 1, :] * weights[..., None]
    pixel_weights = along_y[..., :, None] * axis[..., 0, None, :]  # (B, Q, h, L, P, 2, 2)
    out = F.embedding_bag(
        rows.flatten(3).flatten(0, 2),  # (B * Q * h, 4 L P)
        value.reshape(-1, value.shape[-1]),  # (B * N * h, D)
        per_sample_weights=pixel_weights.flatten(3).flatten(0, 2),
        mode="sum",
    )
    return out.view(len(value), queries, -1)


def _rows(neighbours: Tensor, shapes: tuple[Grid, ...], value: Tensor) -> Tensor:
    """Row in (B * N * h, D) of the four pixels around each point: (B, Q, h, L, P, 2, 2) int32."""
    batch, count, heads, _ = value.shape
    starts = torch.tensor(_starts(shapes), device=value.device)  # (L,)
    widths = torch.tensor([width for _, width in shapes], device=value.device)
    image = torch.arange(batch, device=value.device)[:, None, None] * count  # (B, 1, 1)
    head = torch.arange(heads, device=value.device)[:, None]  # (h, 1)
    first = ((image + starts) * heads + head).int()  # (B, h, L)
    columns = neighbours[..., 0, :] * heads  # (B, Q, h, L, P, 2)
    lines = neighbours[..., 1, :] * (widths * heads).int()[:, None, None]
    lines += first[:, None, :, :, None, None]
    return lines[..., :, None] + columns[..., None, :]


def _sizes(shapes: Sequence[Grid], device: torch.device) -> Tensor:
    """(L, 2) width and height of each level, float32."""
    return torch.tensor(
        [[width, height] for height, width in shapes], dtype=torch.float32, device=device
    )


def _starts(shapes: Sequence[Grid]) -> list[int]:
    """Position of each level's first value."""
    counts = [height * width for height, width in shapes]
    return [sum(counts[:level]) for level in range(len(counts))]


@cache
def _compiled() -> bool:
    return has_cuda_operations()
