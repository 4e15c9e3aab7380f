"""Attention with relative positions, without ever holding a heads x N x N map.

Decomposed relative positions (ViTDet) add q . R_h[y - y'] + q . R_w[x - x'] to the scaled
scores. Two exact ways to compute that with `scaled_dot_product_attention`:

* appended channels: q' = [q * scale, q . R_h, q . R_w] against k' = [k, onehot(y'), onehot(x')];
  no bias tensor at all, any fused kernel serves. Used on accelerators and for small maps.
* chunks of queries: the bias of one chunk only, recomputed in the backward pass. On CPU faster than
  the first way for large maps (benchmarks/results.md).

Shapes: B batch (windows count as batch), h heads, D channels of a head, H x W token map,
N = H * W tokens (plus the class token for BEiT's table), c queries of a chunk.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from eva_backbone.resample import RelPosInterpolation, cached_tensor, resample_rel_pos

CHUNK_ELEMENTS = 2**25  # scores held at once by a chunk, all heads: 128 MiB in float32
SMALL_MAP = 1024  # up to this many tokens the appended channels win on CPU too


def axis_embeddings(table: Tensor, size: int, interpolation: RelPosInterpolation) -> Tensor:
    """Look up the embedding of every (query, key) pair along one axis.

    Args:
        table: (L, D) learned table; resampled when L != 2 * size - 1.
        size: Tokens along the axis.
        interpolation: See `eva_backbone.resample.resample_rel_pos`.

    Returns:
        (size, size, D), entry [i, j] for query i and key j.
    """
    table = resample_rel_pos(table, 2 * size - 1, interpolation)
    position = torch.arange(size, device=table.device)
    return table[position[:, None] - position[None, :] + size - 1]


def decomposed_attention(
    q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, *, chunked: bool | None = None
) -> Tensor:
    """Softmax attention over a map with decomposed relative positions.

    Args:
        q: (B, h, N, D) queries, not scaled; N = H * W, row-major.
        k: (B, h, N, D) keys.
        v: (B, h, N, D) values.
        rel_h: (H, H, D) from `axis_embeddings`.
        rel_w: (W, W, D).
        chunked: Force one of the two ways; None chooses by device and size.

    Returns:
        (B, h, N, D).
    """
    height, width = rel_h.shape[0], rel_w.shape[0]
    q_map = q.unflatten(2, (height, width))  # (B, h, H, W, D)
    bias_h = torch.einsum("bhyxd,ykd->bhyxk", q_map, rel_h.to(q.dtype)).flatten(2, 3)
    bias_w = torch.einsum("bhyxd,xkd->bhyxk", q_map, rel_w.to(q.dtype)).flatten(2, 3)
    # bias_h (B, h, N, H), bias_w (B, h, N, W)
    if chunked is None:
        chunked = q.device.type == "cpu" and q.shape[2] > SMALL_MAP
    if not chunked:
        return _appended_channels(q, k, v, bias_h, bias_w)

    def chunk_bias(rows: slice) -> Tensor:
        pair = bias_h[:, :, rows, :, None] + bias_w[:, :, rows, None, :]  # (B, h, c, H, W)
        return pair.flatten(-2)  # (B, h, c, N)

    return chunked_attention(q, k, v, chunk_bias)


def chunked_attention(
    q: Tensor, k: Tensor, v: Tensor, chunk_bias: Callable[[slice], Tensor]
) -> Tensor:
    """Attention with an additive bias that is made for one chunk of queries at a time.

    In training each chunk is recomputed in the backward pass, so that memory stays that of one
    chunk.

    Args:
        q: (B, h, N, D) queries, not scaled.
        k: (B, h, N, D) keys.
        v: (B, h, N, D) values.
        chunk_bias: Gives the bias (B or 1, h, c, N) for a slice of the queries.

    Returns:
        (B, h, N, D).
    """
    batch, heads, tokens, _ = q.shape
    step = max(32, CHUNK_ELEMENTS // (batch * heads * tokens))

    def attend(rows: slice) -> Tensor:
        bias = chunk_bias(rows).to(q.dtype)
        return F.scaled_dot_product_attention(q[:, :, rows], k, v, attn_mask=bias)

    parts = []
    for start in range(0, tokens, step):
        rows = slice(start, min(start + step, tokens))
        if torch.is_grad_enabled() and step < tokens:
            parts.append(checkpoint(attend, rows, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(attend(rows))
    return torch.cat(parts, dim=2)


def _appended_channels(q: Tensor, k: Tensor, v: Tensor, bias_h: Tensor, bias_w: Tensor) -> Tensor:
    batch, heads, _, dim = q.shape
    height, width = bias_h.shape[-1], bias_w.shape[-1]
    one_hot_h = torch.eye(height, dtype=k.dtype, device=k.device).repeat_interleave(width, 0)
    one_hot_w = torch.eye(width, dtype=k.dtype, device=k.device).repeat(height, 1)
    position = torch.cat([one_hot_h, one_hot_w], dim=1)  # (N, H + W)
    query = torch.cat([q * dim**-0.5, bias_h, bias_w], dim=-1)  # (B, h, N, D + H + W)
    key = torch.cat([k, position.expand(batch, heads, -1, -1)], dim=-1)
    # Fused kernels want equal widths and multiples of 8; zeros change nothing.
    extra = -query.shape[-1] % 8
    query, key = F.pad(query, (0, extra)), F.pad(key, (0, extra))
    value = F.pad(v, (0, query.shape[-1] - dim))
    out = F.scaled_dot_product_attention(query, key, value, scale=1.0)
    return out[..., :dim]


@cached_tensor(maxsize=2)
def table_bias_index(grid: tuple[int, int], device: torch.device) -> Tensor:
    """Row of BEiT's bias table for every pair of tokens, the class token first.

    Cached: all blocks of a model share one index.

    Args:
        grid: (H, W) patches.
        device: Where to build it.

    Returns:
        (1 + N, 1 + N) int64. The last three rows of the table serve class -> patch,
        patch -> class and class -> class, in this order.
    """
    height, width = grid
    y = torch.arange(height, device=device).repeat_interleave(width)
    x = torch.arange(width, device=device).repeat(height)
    rows = y[:, None] - y[None, :] + height - 1
    columns = x[:, None] - x[None, :] + width - 1
    count = (2 * height - 1) * (2 * width - 1)
    index = torch.empty(height * width + 1, height * width + 1, dtype=torch.int64, device=device)
    index[1:, 1:] = rows * (2 * width - 1) + columns
    index[0, :] = count
    index[:, 0] = count + 1
    index[0, 0] = count + 2
    return index
