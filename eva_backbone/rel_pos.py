"""Attention with relative positions, without ever holding a heads x N x N map.

Decomposed relative positions (ViTDet) add q . R_h[y - y'] + q . R_w[x - x'] to the scaled
scores. Two exact ways to compute that:

* appended channels: q' = [q * scale, q . R_h, q . R_w] against k' = [k, onehot(y'), onehot(x')];
  no bias tensor at all, any fused kernel serves. Used on accelerators.
* chunks of queries: scores and bias of one chunk only, recomputed in the backward pass. Used on
  CPU, for every type and size: a chunk that stays in the cache is faster than the first way and
  than a fused kernel with a bias (docs/benchmarks.md).

BEiT's table has chunks only: of this kind on CPU, of a fused kernel with a bias on accelerators.

Shapes: B batch (windows count as batch), h heads, D channels of a head, H x W token map,
N = H * W tokens (plus the class token for BEiT's table), c queries of a chunk.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from eva_backbone.recording import is_recorded, is_traced
from eva_backbone.resample import (
    RelPosInterpolation,
    cached_tensor,
    largest,
    no_autocast,
    resample_rel_pos,
)

CHUNK_ELEMENTS = 2**25  # scores held at once by a chunk, all heads: 128 MiB in float32
CACHE_ELEMENTS = 2**20  # scores held at once by a thread on CPU: 4 MiB in float32
SMALLEST_CHUNK = 32  # queries
KEPT_INDEX = 10_000_000  # pairs of tokens whose rows of a bias table are kept: 80 MB, 896 px
_PARTS = 32  # of a sum over pairs of tokens, which threads share
_Chunk = tuple[slice, int, slice]  # images, a head, queries
# Types that attend in the cache of a CPU -> types of a chunk's products and of its scores. Products
# in float16 are slow there; sums and softmax in bfloat16 would double the error.
_CACHED = {
    torch.float64: (torch.float64, torch.float64),
    torch.float32: (torch.float32, torch.float32),
    torch.bfloat16: (torch.bfloat16, torch.float32),
    torch.float16: (torch.float32, torch.float32),
}


def axis_embeddings(
    table: Tensor, size: int, interpolation: RelPosInterpolation, *, square: int = 0
) -> Tensor:
    """Look up the embedding of every (query, key) pair along one axis: (size, size, D).

    Args:
        table: (L, D) learned table; resampled when L != 2 * size - 1.
        size: Tokens along the axis.
        interpolation: See `eva_backbone.resample.resample_rel_pos`.
        square: Tokens along the axis of a square that the map is cut from, by whose size the table
            is resampled; 0 is the map itself.
    """
    side = largest(square, size) if square else size
    table = resample_rel_pos(table, 2 * side - 1, interpolation)
    position = torch.arange(size, device=table.device)
    return table[position[:, None] - position[None, :] + side - 1]


def decomposed_attention(
    q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, *, chunked: bool | None = None
) -> Tensor:
    """Apply softmax attention over a map with decomposed relative positions: (B, h, N, D).

    Args:
        q: (B, h, N, D) queries, not scaled; N = H * W, row-major.
        k: (B, h, N, D) keys.
        v: (B, h, N, D) values.
        rel_h: (H, H, D) from `axis_embeddings`.
        rel_w: (W, W, D).
        chunked: Force one of the two ways; None chooses by device, type and size. A graph that
            is exported or compiled gets the first way, whose size does not grow with the map.
    """
    if chunked is None:
        chunked = q.device.type == "cpu" and not is_recorded()
    narrow, wide = _CACHED[q.dtype] if chunked else (q.dtype, q.dtype)
    bias_h, bias_w = _position_scores(q.to(wide), rel_h.to(wide), rel_w.to(wide))
    if not chunked:
        return _appended_channels(q, k, v, bias_h, bias_w)
    inputs = (x.to(narrow) for x in (q, k, v))
    return _CachedChunks.apply(_AxisTerms(), *inputs, bias_h, bias_w).to(q.dtype)


def table_attention(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, grid: tuple[int, int]
) -> Tensor:
    """Apply softmax attention with BEiT's bias table, for some queries at a time: (B, h, N, D).

    In training each chunk is recomputed in the backward pass, so that only one chunk takes
    memory.

    Args:
        q: (B, h, N, D) queries, not scaled; N = 1 + H * W, the class token first.
        k: (B, h, N, D) keys.
        v: (B, h, N, D) values.
        table: (L, h) for the grid.
        grid: (H, W) patches.
    """
    batch, heads, tokens, _ = q.shape
    if q.device.type == "cpu" and not is_recorded():
        narrow, wide = _CACHED[q.dtype]
        inputs, columns = (x.to(narrow) for x in (q, k, v)), table.to(wide).t().contiguous()
        return _CachedChunks.apply(_TableTerms(grid), *inputs, columns).to(q.dtype)
    step = max(SMALLEST_CHUNK, CHUNK_ELEMENTS // max(1, batch * heads * tokens))

    def attend(rows: slice) -> Tensor:
        index = table_bias_index(grid, rows, table.device)  # (c, N)
        bias = table[index].permute(2, 0, 1)[None].to(q.dtype)  # (1, h, c, N)
        bias = bias.contiguous()  # keys beside each other, else no fused kernel of a GPU takes it
        return F.scaled_dot_product_attention(q[:, :, rows], k, v, attn_mask=bias)

    parts = []
    for start in range(0, tokens, step):
        rows = slice(start, min(start + step, tokens))
        if torch.is_grad_enabled() and step < tokens and not is_traced():
            parts.append(checkpoint(attend, rows, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(attend(rows))
    return torch.cat(parts, dim=2)


def _position_scores(q: Tensor, rel_h: Tensor, rel_w: Tensor) -> tuple[Tensor, Tensor]:
    """Compute scores (B, h, N, H) and (B, h, N, W) of queries (B, h, N, D) against positions."""
    q_map = q.reshape(*q.shape[:2], rel_h.shape[0], rel_w.shape[0], q.shape[-1])  # (B, h, H, W, D)
    with no_autocast(q.device):
        bias_h = torch.einsum("bhyxd,ykd->bhyxk", q_map, rel_h).flatten(2, 3)
        bias_w = torch.einsum("bhyxd,xkd->bhyxk", q_map, rel_w).flatten(2, 3)
    return bias_h, bias_w


class _AxisTerms:
    """Bias (b, c, N) of a chunk from decomposed positions, (B, h, N, H) and (B, h, N, W)."""

    shared = False  # by the images

    def write_bias(self, scores: Tensor, chunk: _Chunk, bias_h: Tensor, bias_w: Tensor) -> None:
        pair = scores.unflatten(-1, (bias_h.shape[-1], bias_w.shape[-1]))  # (b, c, H, W)
        torch.add(bias_h[chunk][..., None], bias_w[chunk][..., None, :], out=pair)

    def add_gradients(self, grad: Tensor, chunk: _Chunk, grad_h: Tensor, grad_w: Tensor) -> None:
        pair = grad.unflatten(-1, (grad_h.shape[-1], grad_w.shape[-1]))  # (b, c, H, W)
        grad_h[chunk] = pair.sum(-1)
        grad_w[chunk] = pair.sum(-2)


class _TableTerms(NamedTuple):
    """Bias (b, c, N) of a chunk from BEiT's table, whose columns are (h, L) for a grid."""

    grid: tuple[int, int]
    shared: bool = True

    def write_bias(self, scores: Tensor, chunk: _Chunk, columns: Tensor) -> None:
        _, head, rows = chunk
        index = table_bias_index(self.grid, rows, columns.device)  # (c, N)
        torch.gather(columns[head].expand(len(index), -1), 1, index, out=scores[0])
        scores[1:] = scores[0]

    def add_gradients(self, grad: Tensor, chunk: _Chunk, grad_columns: Tensor) -> None:
        _, head, rows = chunk
        index = table_bias_index(self.grid, rows, grad_columns.device).flatten()
        sums = grad[0] if len(grad) == 1 else grad.sum(0)
        even = len(index) // _PARTS * _PARTS
        parts = (part[:even].view(_PARTS, -1) for part in (index, sums.flatten()))
        column = grad_columns[head].scatter_add_(0, index[even:], sums.flatten()[even:])
        column += column.new_zeros(_PARTS, len(column)).scatter_add_(1, *parts).sum(0)


class _CachedChunks(torch.autograd.Function):
    """Attention whose scores never leave the cache of a CPU; inputs are all that it saves.

    The probabilities of a chunk are computed again in the backward pass, as in FlashAttention
    (arXiv 2205.14135) but without its running maximum: a chunk holds complete rows of scores.
    Transforms of `torch.func` (vmap, jvp, per-sample gradients) are not supported.
    """

    @staticmethod
    def forward(
        ctx: Any, terms: _AxisTerms | _TableTerms, q: Tensor, k: Tensor, v: Tensor, *tables: Tensor
    ) -> Tensor:
        """Attend with the tensors that `terms` makes a bias of."""
        out = q.new_empty(q.shape[0], q.shape[2], q.shape[1], q.shape[3])  # (B, N, h, D)
        out = out.transpose(1, 2)  # as the projection after it wants it
        memory = _chunk_memory(q, tables[0].dtype)
        for group, chunks in _cached_chunks(q):
            key, value = k[group] * q.shape[-1] ** -0.5, v[group].contiguous()  # (b, N, D)
            for chunk in chunks:
                views = _chunk_views(memory, q[chunk], key)
                out[chunk] = _probabilities(q[chunk], key, views, terms, chunk, tables) @ value
        ctx.save_for_backward(q, k, v, out, *tables)
        ctx.terms = terms
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of all inputs but `terms`."""
        q, k, v, out, *tables = ctx.saved_tensors
        terms, wide = ctx.terms, tables[0].dtype
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        gradients = [torch.zeros_like(table) for table in tables]
        mean = (grad * out).sum(-1, keepdim=True, dtype=wide)  # (B, h, N, 1)
        memory = _chunk_memory(q, wide)
        for group, chunks in _cached_chunks(q):
            key, value = k[group] * q.shape[-1] ** -0.5, v[group].contiguous()  # (b, N, D)
            # (b, D, N), as products whose large factor need not be transposed
            sum_k = torch.zeros_like(key.mT, dtype=wide, memory_format=torch.contiguous_format)
            sum_v = torch.zeros_like(sum_k)
            for chunk in chunks:
                exact, scores, narrow = views = _chunk_views(memory, q[chunk], key)
                probabilities = _probabilities(q[chunk], key, views, terms, chunk, tables)
                sum_v += grad[chunk].mT @ probabilities
                torch.bmm(grad[chunk], value.mT, out=narrow)  # first of the probabilities
                _copy(narrow, scores).sub_(mean[chunk]).mul_(exact)
                terms.add_gradients(scores, chunk, *gradients)
                products = _copy(scores, narrow)
                grad_q[chunk] = products @ key
                sum_k += q[chunk].mT @ products
            grad_k[group], grad_v[group] = sum_k.mT * q.shape[-1] ** -0.5, sum_v.mT
        return None, grad_q, grad_k, grad_v, *gradients


def _cached_chunks(q: Tensor) -> Iterator[tuple[tuple[slice, int], list[_Chunk]]]:
    """Indexes of some images' keys of one head, and of its chunks of queries.

    A chunk is several complete windows, or some rows of a large map.
    """
    batch, heads, tokens, _ = q.shape
    images, rows = _chunk_sizes(q)
    if type(q).__name__ == "FakeTensor":  # has no content: one chunk needs the memory of all
        heads, batch, tokens = 1, images, rows
    for head in range(heads):
        for image in range(0, batch, images):
            group = slice(image, min(image + images, batch))
            starts = range(0, tokens, rows)
            yield (group, head), [(group, head, slice(row, row + rows)) for row in starts]


def _chunk_sizes(q: Tensor) -> tuple[int, int]:
    batch, _, tokens, _ = q.shape
    elements = CACHE_ELEMENTS * torch.get_num_threads()
    images = max(1, min(batch, round(elements / tokens**2)))
    return images, min(tokens, max(SMALLEST_CHUNK, elements // tokens))


def _chunk_memory(q: Tensor, wide: torch.dtype) -> list[Tensor]:
    """Allocate scores of a chunk, twice, and products, if of another type, once for all chunks.

    The page faults of fresh memory can take longer than the products.
    """
    images, rows = _chunk_sizes(q)
    types = (wide, wide) if q.dtype == wide else (wide, wide, q.dtype)
    return [q.new_empty(images * rows * q.shape[2], dtype=dtype) for dtype in types]


def _chunk_views(memory: Sequence[Tensor], q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """View memory as two scores and products (b, c, N), which may be the second of the scores."""
    shape = (*q.shape[:2], k.shape[1])
    views = [flat[: math.prod(shape)].view(shape) for flat in memory]
    return views[0], views[1], views[-1]


def _copy(source: Tensor, target: Tensor) -> Tensor:
    return target if target is source else target.copy_(source)


def _probabilities(
    q: Tensor,
    k: Tensor,
    views: tuple[Tensor, Tensor, Tensor],
    terms: _AxisTerms | _TableTerms,
    chunk: _Chunk,
    tables: Sequence[Tensor],
) -> Tensor:
    """(b, c, N) from one head's queries (b, c, D) and scaled keys (b, N, D), also in `views[0]`.

    In bfloat16 only the products are, not the sums and the softmax.
    """
    scores, other, narrow = views
    if narrow is other:
        terms.write_bias(scores, chunk, *tables)
        torch.baddbmm(scores, q, k.mT, out=scores)
        return torch.softmax(scores, -1, out=scores)
    bias = other[:1] if terms.shared else other
    terms.write_bias(bias, chunk, *tables)
    scores.copy_(torch.bmm(q, k.mT, out=narrow)).add_(bias)  # no sum of two types: it allocates
    return narrow.copy_(torch.softmax(scores, -1, out=scores))


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
    value = _fit_values(v, query, key)
    out = F.scaled_dot_product_attention(query, key, value, scale=1.0)
    return out[..., :dim]


def _fit_values(v: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """Pad values (B, h, N, D) to the width of queries with appended channels, where that is faster.

    Wide values cost up to half more, and FlashAttention gains more than that, but it takes half
    precision and widths up to 256 alone: 88 + 2 * 80 at 1280 px. Where PyTorch says that it does
    not serve (`aten/src/ATen/native/transformers/cuda/sdp_utils.cpp`), the memory-efficient kernel
    does, for which a multiple of 8 is enough. The CPU's kernel wants equal widths.
    """
    if query.device.type == "cuda" and not is_recorded():
        narrow = F.pad(v, (0, -v.shape[-1] % 8)) if v.shape[-1] % 8 else v
        flash, efficient = (
            torch.backends.cuda.SDPAParams(query, key, value, None, 0.0, False, False)
            for value in (query, narrow)  # wide values look like the queries
        )
        flash_serves = torch.backends.cuda.can_use_flash_attention(flash)
        if not flash_serves and torch.backends.cuda.can_use_efficient_attention(efficient):
            return narrow
    return F.pad(v, (0, query.shape[-1] - v.shape[-1]))


def table_bias_index(grid: tuple[int, int], queries: slice, device: torch.device) -> Tensor:
    """Compute the rows of BEiT's bias table for pairs of tokens, the class token first.

    All blocks of a model share the index of a small map. That of a large one, 680 MB at 1536 px, is
    made for one chunk of queries at a time.

    Args:
        grid: (H, W) patches; N tokens with the class token.
        queries: Range of the tokens that are queries, with start and stop.
        device: Device of the result.

    Returns:
        (c, N) int64 for c queries. The last three rows of the table serve class -> patch,
        patch -> class and class -> class, in this order.
    """
    tokens = grid[0] * grid[1] + 1
    if tokens**2 <= KEPT_INDEX:
        return _complete_index(grid, device)[queries]
    return _bias_index(grid, queries, device)


@cached_tensor(maxsize=2)
def _complete_index(grid: tuple[int, int], device: torch.device) -> Tensor:
    return _bias_index(grid, slice(0, grid[0] * grid[1] + 1), device)


def _bias_index(grid: tuple[int, int], queries: slice, device: torch.device) -> Tensor:
    height, width = grid
    y = torch.arange(height, device=device).repeat_interleave(width)
    x = torch.arange(width, device=device).repeat(height)
    offset = y * (2 * width - 1) + x  # a difference of places is one of rows and columns
    offset = torch.cat([offset.new_zeros(1), offset])  # (N,)
    centre = (height - 1) * (2 * width - 1) + width - 1
    index = (offset[queries] + centre)[:, None] - offset
    count = (2 * height - 1) * (2 * width - 1)
    index[:, 0] = count + 1
    if queries.start == 0:
        index[0] = count
        index[0, 0] = count + 2
    return index
