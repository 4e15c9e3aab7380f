"""Tensors of a file made to fit a model: other sizes, other number formats, clips of frames."""

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eva_backbone.checkpoints._key_maps import TRUNK_KEY
from eva_backbone.checkpoints.reading import Weights
from eva_backbone.resample import (
    resample_bias_table,
    resample_clip_pos_embed,
    resample_patch_embed,
    resample_pos_embed,
    resample_rel_pos,
)
from eva_backbone.vit import VideoTransformer

Shape = tuple[int, ...]
_SIDE = 224  # pixels of a frame, for which all official video models are made
_OFFICIAL_PATCHES = (14, 16)


@dataclass(frozen=True, kw_only=True)
class ClipShape:
    """Frames in the file (1 for a model of images), and the model's frames, rows and columns."""

    stored: int
    grid: tuple[int, int, int]


def clips_of(model: nn.Module, weights: Weights, prefix: str) -> ClipShape | None:
    """Describe clips of file and model; None for a model of images. See `stored_frames`."""
    vit = next((m for m in model.modules() if isinstance(m, VideoTransformer)), None)
    if vit is None:
        return None
    side = vit.img_size // vit.patch_size
    return ClipShape(stored=stored_frames(weights, prefix), grid=(vit.frames, side, side))


def stored_frames(weights: Weights, prefix: str) -> int:
    """Find the number of frames that a file's positions are made for, 1 in a model of images.

    Where the file does not note it, 224 px are assumed, as in the official files.

    Args:
        weights: The file.
        prefix: Text in front of its ViT's names.

    Raises:
        ValueError: If the number is neither known nor official, or the positions are not that many
            square frames.
    """
    kernel = tuple(weights.tensors[prefix + TRUNK_KEY].shape)  # (C, 3, p, p) or (C, 3, 1, p, p)
    positions = weights.tensors.get(f"{prefix}pos_embed", torch.empty(1, 1, 0)).shape[1] - 1
    clips, patch, frames = len(kernel) == 5, kernel[-1], weights.frames
    if clips and frames is None and patch in _OFFICIAL_PATCHES:
        per_frame = (_SIDE // patch) ** 2
        frames = positions // per_frame if positions % per_frame == 0 else None
    frames = frames if clips else 1
    side = math.isqrt(positions // frames) if frames else 0
    if not frames or not side or frames * side**2 != positions or (clips and kernel[2] != 1):
        raise ValueError(
            f"{weights.name} has {positions} positions of patches and a patch kernel {kernel}, "
            f"which are not {frames or 'some number of'} square frames of EVA (tubelet size 1); "
            'metadata of a .safetensors file may note the number, config = {"model": {"frames": T}}'
        )
    return frames


def cast(value: Tensor, dtype: torch.dtype, which: str) -> Tensor:
    """Cast numbers to the model's type, unless that changes what they are.

    Args:
        value: The file's tensor.
        dtype: Type in the model.
        which: File and name, for messages.

    Raises:
        ValueError: If they are of another kind, or too large for the type.
    """
    if value.dtype == dtype:
        return value
    names = f"{str(value.dtype).removeprefix('torch.')} -> {str(dtype).removeprefix('torch.')}"
    same_kind = value.is_floating_point() == dtype.is_floating_point and not value.is_complex()
    largest, limit = 0.0, math.inf
    floats = same_kind and dtype.is_floating_point and value.numel()
    if floats and torch.finfo(dtype).max < torch.finfo(value.dtype).max:
        largest, limit = max(abs(b.item()) for b in value.aminmax()), torch.finfo(dtype).max
    if not same_kind or not largest <= limit:  # NaN, too, which resampling makes of infinity
        raise ValueError(
            f"{which} with values up to {largest:.3g} that the model's type cannot hold ({names}); "
            "build the model in float32, or convert the file"
        )
    return value.to(dtype)


def resample(local: str, value: Tensor, shape: Shape, clips: ClipShape | None) -> Tensor | None:
    """Resample a tensor whose shape depends on the input's size.

    Args:
        local: Name below the ViT's prefix.
        value: The file's tensor.
        shape: Shape in the model.
        clips: Frames of file and model, if the model is one of clips.

    Returns:
        The tensor in another shape, itself if it fits, None for one that cannot be resampled.
    """
    if local == "pos_embed" and clips is not None and value.shape[2:] == shape[2:]:
        frames, rows, columns = clips.grid
        if clips.stored == frames and value.shape[1] == 1 + frames * rows * columns:
            return value
        return resample_clip_pos_embed(value, clips.stored, clips.grid)
    if tuple(value.shape) == shape:
        return value
    if local == TRUNK_KEY and clips is not None and value.shape[:2] == shape[:2]:
        kernel = value if value.ndim == 4 else value.squeeze(2)  # (C, 3, p, p)
        return resample_patch_embed(kernel, shape[-1]).unsqueeze(2).clone()
    if local == "pos_embed" and value.ndim == len(shape) == 3 and value.shape[2] == shape[2]:
        side = round((shape[1] - 1) ** 0.5)
        return resample_pos_embed(value, (side, side))
    if local == TRUNK_KEY and value.ndim == len(shape) == 4 and value.shape[:2] == shape[:2]:
        return resample_patch_embed(value, shape[-1])
    if value.ndim == len(shape) == 2 and value.shape[1] == shape[1]:
        if re.search(r"\.rel_pos_[hw]$", local):
            return resample_rel_pos(value, shape[0], "vitdet")
        if local.endswith(".relative_position_bias_table") and min(len(value), shape[0]) > 3:
            source, side = (round(((rows - 3) ** 0.5 + 1) / 2) for rows in (len(value), shape[0]))
            return resample_bias_table(value, source, (side, side))
    return None
