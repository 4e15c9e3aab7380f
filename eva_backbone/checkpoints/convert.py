"""Other projects' forms of the weights: the fused qkv bias, and what a stock ViTDet can hold.

EVA-g stores `attn.q_bias` and `attn.v_bias`; detectron2's ViT (and EVA-L) has one `attn.qkv.bias`
with a third for the keys. A bias of the keys adds the same number to all scores of a query, which
the softmax takes away again: none, a zero one and any other give the same output.
"""

import math
import re
from collections.abc import Callable, Container, Mapping

import torch
from torch import Tensor

from eva_backbone.attention import split_joint_bias
from eva_backbone.checkpoints._key_maps import (
    DIMENSIONS,
    SKIPPABLE,
    STOCK_VITDET,
    TRUNK_KEY,
    TRUNK_MORE,
)
from eva_backbone.checkpoints.reading import list_names
from eva_backbone.resample import resample_patch_embed, resample_pos_embed

DETECTRON2_PREFIX = "backbone.net."
_REL_POS = re.compile(r"(^|\.)rel_pos_[hw]$")
_HEAD = re.compile(r"(lm_head|head|fc_norm)\.")  # of pre-training or classification
Converted = tuple[dict[str, Tensor], list[str]]


def find_trunk(weights: Mapping[str, Tensor], *, name: str) -> str:
    """Find what stands in front of the ViT's names, and refuse shapes that no ViT can have.

    Args:
        weights: Name -> tensor, of a file or a model.
        name: What they are, for messages.

    Raises:
        ValueError: If there is not exactly one ViT; for the first tensor with another number of
            dimensions than it has in every ViT, an empty one, patches that are not square, or a
            joint bias without three equal parts.
    """
    keys = [key for key in weights if key == TRUNK_KEY or key.endswith("." + TRUNK_KEY)]
    if len(keys) != 1:
        raise ValueError(
            f"{name} holds no EVA weights: expected one name ending in {TRUNK_KEY}, found "
            f"{len(keys)} among {list_names(list(weights))}"
        )
    prefix = keys[0].removesuffix(TRUNK_KEY)
    for key, value in weights.items():
        local = key.removeprefix(prefix)
        if not key.startswith(prefix) or not re.fullmatch(f"{STOCK_VITDET}|{TRUNK_MORE}", local):
            continue
        dimensions = next((n for part, n in DIMENSIONS.items() if re.fullmatch(part, local)), (1,))
        shape = tuple(value.shape)
        fits = value.ndim in dimensions and 0 not in shape and (dimensions != (3,) or shape[0] == 1)
        if local == TRUNK_KEY:
            fits, rule = fits and shape[-2] == shape[-1], ", square"
        elif local.endswith("qkv.bias"):
            fits, rule = fits and shape[0] % 3 == 0, ", three equal parts"
        else:
            rule = ", the first of size 1" if dimensions == (3,) else ""
        if not fits:
            raise ValueError(
                f"{name} is not an EVA ViT: {key} has shape {shape}, and a ViT's has "
                f"{' or '.join(map(str, dimensions))} dimension(s){rule}, none empty"
            )
    return prefix


def fuse_qkv_bias(
    weights: Mapping[str, Tensor], names: Container[str] | None = None
) -> dict[str, Tensor]:
    """Turn q_bias and v_bias into qkv.bias, with zeros for the keys.

    Args:
        weights: Name -> tensor.
        names: Names of a model; only what it has is made. None makes everything.
    """
    fused = dict(weights)
    for name in weights:
        stem = name.removesuffix("q_bias")
        joint, v_name = f"{stem}qkv.bias", f"{stem}v_bias"
        if name.endswith(".q_bias") and v_name in weights and (names is None or joint in names):
            q_bias, v_bias = fused.pop(name), fused.pop(v_name)
            fused[joint] = torch.cat([q_bias, torch.zeros_like(q_bias), v_bias])
    return fused


def split_qkv_bias(
    weights: Mapping[str, Tensor], names: Container[str] | None = None
) -> dict[str, Tensor]:
    """Undo `fuse_qkv_bias`; the part of the keys is left out, which is exact."""
    split = dict(weights)
    for name in weights:
        stem = name.removesuffix("qkv.bias")
        if name.endswith(".qkv.bias") and (names is None or f"{stem}q_bias" in names):
            split[f"{stem}q_bias"], split[f"{stem}v_bias"] = split_joint_bias(split.pop(name))
    return split


def to_detectron2_vitdet(
    weights: Mapping[str, Tensor], *, patch_size: int | None = None
) -> Converted:
    """Convert a detector or a backbone to what an unmodified detectron2 ViTDet loads.

    Args:
        weights: Weights of this toolkit or official ones; what stands outside the ViT stays, if it
            is a detector of this kind, and is left out otherwise.
        patch_size: Resample patch kernels and positions to it, as the official
            `interpolate_patch_14to16.py`; by default they stay.

    Returns:
        The weights, and a line for each kind of change.

    Raises:
        ValueError: If there is no ViT, detectron2's has no place for a part of it, or its patches
            cannot have that size.
    """
    prefix = find_trunk(weights, name="the file")
    converted: dict[str, Tensor] = {}
    left_out: dict[str, list[str]] = {}
    unknown = []
    for name, value in weights.items():
        local = name.removeprefix(prefix)
        if not name.startswith(prefix):
            if prefix == DETECTRON2_PREFIX:
                converted[name] = value
            else:
                left_out.setdefault("outside the ViT", []).append(name)
        elif re.fullmatch(STOCK_VITDET, local):
            converted[DETECTRON2_PREFIX + local] = value
        elif reason := next((why for key, why in SKIPPABLE.items() if re.match(key, local)), None):
            left_out.setdefault(reason, []).append(name)
        else:
            unknown.append(name)
    if unknown or weights[prefix + TRUNK_KEY].ndim == 5:
        raise ValueError(
            f"detectron2's ViT has no place for {list_names(unknown) or 'clips'}; convert a file "
            "without layer scale, bias tables and frames, such as those for detection"
        )
    lines = [f"left out ({reason}): {list_names(names, 3)}" for reason, names in left_out.items()]
    if prefix != DETECTRON2_PREFIX:
        lines.append(f"renamed {prefix}* -> {DETECTRON2_PREFIX}*")
    if patch_size is not None:
        lines += _resample_patches(converted, DETECTRON2_PREFIX, patch_size)
    fused = fuse_qkv_bias(converted)
    count = len(converted) - len(fused)
    if count:
        lines.append(f"fused q_bias and v_bias of {count} blocks, with zeros for the keys")
    return fused, lines


def _resample_patches(weights: dict[str, Tensor], prefix: str, patch_size: int) -> list[str]:
    """Resample in place; returns a line where anything changes."""
    others = (name for name in weights if not _HEAD.match(name))
    fixed = [name for name in others if _REL_POS.search(name) or not name.startswith(prefix)]
    kernel, position = weights[prefix + TRUNK_KEY], prefix + "pos_embed"
    count = weights[position].shape[1] if position in weights else 0
    old, side = kernel.shape[-1], math.isqrt(max(0, count - 1))
    pixels = side * old
    divides = patch_size > 0 and pixels % patch_size == 0
    if fixed or kernel.ndim != 4 or side < 1 or side**2 + 1 != count or not divides:
        raise ValueError(
            "--patch-size is for pre-trained backbones of images with square positions, without "
            "tables of relative positions and without a detector, and a divisor of their side "
            f"({pixels} px), got {patch_size}; the file has {count} positions, "
            f"patches of shape {tuple(kernel.shape)} and {list_names(fixed, 3) or 'no such tables'}"
        )
    if old == patch_size:
        return []
    new = pixels // patch_size
    weights[prefix + TRUNK_KEY] = resample_patch_embed(kernel, patch_size)
    weights[position] = resample_pos_embed(weights[position], (new, new))
    return [f"resampled patches {old} -> {patch_size}, positions {side}x{side} -> {new}x{new}"]


def resampled(weights: Mapping[str, Tensor], *, patch_size: int | None = None) -> Converted:
    """Check weights, and resample their patches; names and biases stay. See `to_official`."""
    prefix = find_trunk(weights, name="the file")
    weights = dict(weights)
    return weights, [] if patch_size is None else _resample_patches(weights, prefix, patch_size)


def to_official(weights: Mapping[str, Tensor], *, patch_size: int | None = None) -> Converted:
    """Convert to the official form of EVA-g: q_bias and v_bias.

    Args:
        weights: Weights of a detectron2 ViTDet or of a run, or in the official form already.
        patch_size: Resample patch kernels and positions to it, as the official
            `interpolate_patch_14to16.py`; by default they stay.

    Returns:
        The weights, and a line for each kind of change.

    Raises:
        ValueError: If there is no ViT, or one whose patches cannot have that size.
    """
    weights, lines = resampled(weights, patch_size=patch_size)
    biases = {name: value for name, value in weights.items() if name.endswith(".qkv.bias")}
    if biases:
        lines.append(f"split the qkv.bias of {len(biases)} blocks")
    dropped = {name: value.chunk(3)[1].abs().max().item() for name, value in biases.items()}
    nonzero = [name for name, largest in dropped.items() if largest]
    if nonzero:
        lines.append(
            f"dropped the keys' bias of {len(nonzero)} blocks (up to {max(dropped.values()):.3g}), "
            "which the softmax takes away: outputs stay"
        )
    return split_qkv_bias(weights), lines


FORMATS: Mapping[str, Callable[..., Converted]] = {
    "detectron2-vitdet": to_detectron2_vitdet,
    "official": to_official,
}
