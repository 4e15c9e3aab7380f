"""Resampling of everything in a ViT that depends on the input's size.

Position embeddings and patch kernels use plain bicubic interpolation like the official
`interpolate_patch_14to16.py`, so that our 14 -> 16 conversion equals the released
`eva_psz14to16.pt` (timm's patch resampling is a pseudo-inverse and gives other weights).
Relative positions have two official methods; both are linear maps, so each is one cached matrix.

Letters: C channels, D channels of a head, h heads, p patch size, L table length, T frames.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, Literal, ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor

from eva_backbone.recording import is_traced, unrecorded

P = ParamSpec("P")
RelPosInterpolation = Literal["vitdet", "beit"]
PosResampling = Literal[
    "bicubic",
    "bicubic_offset",
    "bicubic_antialias",
    "bilinear",
    "bilinear_square",
    "bilinear_square_corners",
    "tile",
]

# BEiT's ratio for stretching a 14x14 table to 24x24, which the official detection code applies
# to every pair of sizes; the published results at 1536 px depend on it.
BEIT_RATIO = 1.0903078


CACHES: list[dict[Any, Tensor]] = []  # results of all functions that `cached_tensor` decorates


def cached_tensor(*, maxsize: int) -> Callable[[Callable[P, Tensor]], Callable[P, Tensor]]:
    """Keep the `maxsize` newest results of a function of hashable, positional arguments.

    Unlike `functools.lru_cache` it keeps plain tensors only, which outlive a tracer's fake ones,
    and it computes outside inference mode, so that training may follow.
    """

    def decorate(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
        results: dict[Any, Tensor] = {}
        CACHES.append(results)

        @wraps(function)
        def cached(*args: P.args, **kwargs: P.kwargs) -> Tensor:
            if args not in results:
                with torch.inference_mode(False):
                    value = unrecorded(function, *args, **kwargs)
                if type(value) is not Tensor:
                    return value
                if len(results) >= maxsize:
                    results.pop(next(iter(results)))
                results[args] = value
            return results[args]

        cached.cache_clear = results.clear  # type: ignore[attr-defined]  # as lru_cache has it
        return cached

    return decorate


def no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Let operations keep the types of their inputs, also on devices without autocast."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def largest(*counts: Any) -> Any:
    """Return the largest number of patches; in a trace, whose numbers are tensors, a tensor."""
    return torch.stack([*map(torch.as_tensor, counts)]).amax() if is_traced() else max(counts)


def resample_pos_embed(
    pos_embed: Tensor,
    grid: tuple[int, ...],
    method: PosResampling = "bicubic",
    *,
    square: int = 0,
) -> Tensor:
    """Resample absolute position embeddings to another patch grid.

    Args:
        pos_embed: (1, 1 + G * G, C), the class token's row first, then a square grid.
        grid: Wanted (rows, columns) of patches.
        method: As the weights were made for: "bicubic" (EVA), "bicubic_offset" (DINOv2),
            "bicubic_antialias" (DINOv2 with registers), "bilinear" (Perception Encoder),
            "bilinear_square" and "bilinear_square_corners" (RADIO: to the longer side, then cut) or
            "tile" (the detectors of Perception Encoder and SAM 3: repeated, then cut).
        square: Side in patches of a square that positions are resampled to and that the grid is cut
            from; 0 resamples to the grid itself.

    Returns:
        (1, 1 + rows * columns, C) in the input's dtype; the first row is unchanged.
    """
    side = math.isqrt(int(pos_embed.shape[1]) - 1)
    # a trace that left this out would hold for one size alone; it gives the same bits back
    if not is_traced() and grid == (side, side) and square <= side:
        return pos_embed
    first, patches = pos_embed[:, :1], pos_embed[:, 1:]
    patches = patches.unflatten(1, (side, side)).permute(0, 3, 1, 2)  # (1, C, G, G)
    if square:
        side = largest(square, *grid)
        resized = _resize_map(patches.float(), (side, side), method)[..., : grid[0], : grid[1]]
    else:
        resized = _resize_map(patches.float(), grid, method)
    resized = resized.flatten(2).transpose(1, 2).to(pos_embed.dtype)  # (1, rows * columns, C)
    return torch.cat([first, resized], dim=1)


def _resize_map(patches: Tensor, grid: tuple[int, ...], method: PosResampling) -> Tensor:
    rows, columns = grid
    side = patches.shape[-1]
    if method == "tile":
        return patches.tile(-(-rows // side), -(-columns // side))[..., :rows, :columns]
    if method in ("bilinear_square", "bilinear_square_corners"):
        longer = largest(*grid)
        size, corners = (longer, longer), method == "bilinear_square_corners"
        resized = F.interpolate(patches, size=size, mode="bilinear", align_corners=corners)
        return resized[..., :rows, :columns]
    offset, antialias = (method == f"bicubic_{part}" for part in ("offset", "antialias"))
    if is_traced() and (offset or antialias):
        return _resample_bicubic(patches, grid, offset=0.1 * offset, antialias=antialias)
    if offset:  # the ratio of the official code, which rounds down to `grid`
        scale = [(count + 0.1) / side for count in grid]
        return F.interpolate(patches, scale_factor=scale, mode="bicubic", align_corners=False)
    mode = method.partition("_")[0]
    return F.interpolate(patches, size=grid, mode=mode, align_corners=False, antialias=antialias)


def _resample_bicubic(
    patches: Tensor, grid: tuple[int, ...], *, offset: float, antialias: bool
) -> Tensor:
    """Resample by operations that hold for other grids in a trace, and in ONNX."""
    sizes, side = torch.stack([torch.as_tensor(count) for count in grid]), patches.shape[-1]
    is_same = (sizes == side).all()  # whose positions stay as they are
    scales = side / (sizes + torch.where(is_same, 0.0, offset))  # (2,)
    rows, columns = (
        _cubic_matrix(side, count, scale, antialias=antialias).to(patches)
        for count, scale in zip(grid, scales, strict=True)
    )
    return rows @ patches @ columns.t()


def _cubic_matrix(side: int, count: int, scale: Tensor, *, antialias: bool) -> Tensor:
    """Build the matrix (count, side) of bicubic resampling along an axis, as `F.interpolate`'s."""
    margin, a = (0, -0.5) if antialias else (2, -0.75)
    centres = (torch.arange(count) + 0.5) * scale - 0.5
    index = torch.arange(-margin, side + margin)
    x = (index - centres[:, None]).abs() / (scale.clamp(min=1) if antialias else 1)
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, a * (((x - 5) * x + 8) * x - 4)
    weights = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))  # (count, side + 2 margin)
    if antialias:
        return weights / weights.sum(dim=1, keepdim=True)
    first, last = (part.sum(dim=1, keepdim=True) for part in (weights[:, :3], weights[:, -3:]))
    return torch.cat([first, weights[:, 3:-3], last], dim=1)  # outside is the nearest border


def resample_clip_pos_embed(
    pos_embed: Tensor, frames: int, grid: tuple[int, ...], method: PosResampling = "bicubic"
) -> Tensor:
    """Resample the joint space-time position embeddings of clips, trilinearly as officially.

    Positions of a image (one frame) are resampled as those of images are, and repeated for each
    frame: a clip begins without a sense of time (official image-to-video initialisation).

    Args:
        pos_embed: (1, 1 + frames * G * G, C), the class token's row first, then frame by frame a
            square grid.
        frames: Frames that it is made for.
        grid: Wanted (frames, rows, columns).
        method: Of the positions of images, see `resample_pos_embed`.

    Returns:
        (1, 1 + T * rows * columns, C) in the input's dtype; the first row is unchanged.
    """
    side = math.isqrt((pos_embed.shape[1] - 1) // frames)
    if grid == (frames, side, side):
        return pos_embed
    if frames == 1:
        image = resample_pos_embed(pos_embed, grid[1:], method)
        return torch.cat([image[:, :1], image[:, 1:].repeat(1, grid[0], 1)], dim=1)
    first, patches = pos_embed[:, :1], pos_embed[:, 1:]
    patches = patches.unflatten(1, (frames, side, side)).permute(0, 4, 1, 2, 3)  # (1, C, T, G, G)
    resized = F.interpolate(patches.float(), size=grid, mode="trilinear", align_corners=False)
    resized = resized.flatten(2).transpose(1, 2).to(pos_embed.dtype)  # (1, T * rows * columns, C)
    return torch.cat([first, resized], dim=1)


def resample_patch_embed(weight: Tensor, patch_size: int) -> Tensor:
    """Resample patch-embedding kernels (C, 3, p, p), plain bicubic, no energy rescaling."""
    if weight.shape[-2:] == (patch_size, patch_size):
        return weight
    size = (patch_size, patch_size)
    resized = F.interpolate(weight.float(), size=size, mode="bicubic", align_corners=False)
    return resized.to(weight.dtype)


def inflate_patch_embed(weight: Tensor, channels: int) -> Tensor:
    """Make patch-embedding kernels of so many channels, (C, N, p, p), of those of RGB (C, 3, p, p).

    As timm's `adapt_input_conv`: of one channel their sum; of others they are repeated in turn, and
    scaled so that the sum of all channels stays.
    """
    if weight.shape[1] == channels:
        return weight
    if channels == 1:
        return weight.float().sum(dim=1, keepdim=True).to(weight.dtype)
    repeated = weight.float().repeat(1, -(-channels // 3), 1, 1)[:, :channels]
    return (repeated * (3 / channels)).to(weight.dtype)


def resample_rel_pos(table: Tensor, length: int, method: RelPosInterpolation) -> Tensor:
    """Resample a decomposed relative-position table of one axis. Differentiable.

    Args:
        table: (L, D), offsets -(L-1)/2 ... (L-1)/2.
        length: Wanted L (odd).
        method: "vitdet" for linear interpolation (detectron2), "beit" for the log-compressed
            cubic spline of the official evaluation configs.

    Returns:
        (length, D) in the input's dtype.
    """
    if table.shape[0] == length and not (is_traced() and method == "vitdet"):
        return table
    if method == "vitdet":
        columns = table.float().t()[None]  # (1, D, L)
        resized = F.interpolate(columns, size=length, mode="linear", align_corners=False)
        return resized[0].t().to(table.dtype)
    matrix = _beit_matrix(int(table.shape[0]), int(length), table.device)
    with no_autocast(table.device):
        return (matrix @ table.float()).to(table.dtype)


def resample_bias_table(table: Tensor, source: int, target: tuple[int, int]) -> Tensor:
    """Resample BEiT's two-dimensional relative-position bias table. Differentiable.

    Along each axis the source offsets form a geometric progression whose ratio is solved for the
    two sizes, and the values in between follow a cubic spline.

    Args:
        table: ((2 * source - 1) ** 2 + 3, h); the last three rows concern the class token.
        source: Side of the stored, square window in patches.
        target: Wanted (rows, columns) of patches.

    Returns:
        ((2 * rows - 1) * (2 * columns - 1) + 3, h) in the input's dtype; the last three rows are
        unchanged.
    """
    length = 2 * source - 1
    if target == (source, source):
        return table
    rows, columns = (_bias_matrix(length, 2 * side - 1, table.device) for side in target)
    grid = table[:-3].float().unflatten(0, (length, length))  # (L, L, h)
    with no_autocast(table.device):
        grid = torch.einsum("yi,xj,ijh->yxh", rows, columns, grid)
    return torch.cat([grid.flatten(0, 1).to(table.dtype), table[-3:]])


@cached_tensor(maxsize=32)
def _beit_matrix(source: int, target: int, device: torch.device) -> Tensor:
    """Matrix (target, source) that applies the official "beit" interpolation."""
    matrix = _spline_matrix(_progression(BEIT_RATIO, source // 2), _offsets(target), clamp=False)
    return matrix.to(device=device, dtype=torch.float32)


@cached_tensor(maxsize=32)
def _bias_matrix(source: int, target: int, device: torch.device) -> Tensor:
    """Matrix (target, source) that resamples one axis of BEiT's bias table."""
    if source == target:
        return torch.eye(source, device=device)
    ratio = _solve_ratio(source // 2, target // 2)
    matrix = _spline_matrix(_progression(ratio, source // 2), _offsets(target), clamp=True)
    return matrix.to(device=device, dtype=torch.float32)


def _offsets(length: int) -> Tensor:
    half = length // 2
    return torch.arange(-half, half + 1, dtype=torch.float64, device="cpu")


def _progression(ratio: float, count: int) -> Tensor:
    """Positions -s_n ... -s_1, 0, s_1 ... s_n with s_1 = 1 and s_(i+1) = s_i + ratio ** i."""
    steps = ratio ** torch.arange(count, dtype=torch.float64, device="cpu")
    positive = steps.cumsum(0)
    return torch.cat([-positive.flip(0), positive.new_zeros(1), positive])


def _solve_ratio(count: int, reach: int) -> float:
    """Ratio in [1.01, 1.5] for which `count` geometric steps reach `reach` (bisection)."""
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        middle = (low + high) / 2
        if (1 - middle**count) / (1 - middle) > reach:
            high = middle
        else:
            low = middle
    return middle


def _spline_matrix(knots: Tensor, points: Tensor, *, clamp: bool) -> Tensor:
    """Matrix (m, n) that evaluates the not-a-knot cubic spline through knots (n,) at points (m,).

    Outside the knots it extrapolates the polynomial, or with `clamp` takes the nearest end.
    """
    n = len(knots)
    if clamp:
        points = points.clamp(knots[0], knots[-1])
    gap = knots.diff()  # (n - 1,)
    identity = torch.eye(n, dtype=torch.float64, device="cpu")
    slope = identity.diff(dim=0) / gap[:, None]  # (n - 1, n), secant slopes
    # second derivatives M solve: continuity of the first derivative at inner knots ...
    system = torch.zeros(n, n, dtype=torch.float64, device="cpu")
    right = torch.zeros(n, n, dtype=torch.float64, device="cpu")
    inner = torch.arange(1, n - 1, device="cpu")
    system[inner, inner - 1] = gap[:-1]
    system[inner, inner] = 2 * (gap[:-1] + gap[1:])
    system[inner, inner + 1] = gap[1:]
    right[1:-1] = 6 * slope.diff(dim=0)
    # ... and of the third derivative at the second and the last but one knot (not-a-knot)
    system[0, :3] = torch.stack([gap[1], -(gap[0] + gap[1]), gap[0]])
    system[-1, -3:] = torch.stack([gap[-1], -(gap[-1] + gap[-2]), gap[-2]])
    moment = torch.linalg.solve(system, right)  # (n, n)
    k = (torch.searchsorted(knots, points, right=True) - 1).clamp(0, n - 2)  # interval of a point
    t = (points - knots[k])[:, None]
    width = gap[k][:, None]
    first = slope[k] - width * (2 * moment[k] + moment[k + 1]) / 6
    third = (moment[k + 1] - moment[k]) / (6 * width)
    return identity[k] + t * (first + t * (moment[k] / 2 + t * third))
