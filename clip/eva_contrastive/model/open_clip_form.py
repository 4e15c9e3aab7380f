"""Names of an EVA-CLIP in open_clip, both ways; names and tensors alone, no model is built.

open_clip has two places for an EVA ViT. `EVA01-g-14` holds timm's under `visual.trunk.`, with EVA's
own names. Sizes that timm has no name for fit open_clip's own ViT (OpenAI's names), which computes
the same but has no bias after the patches and after the projection: the first is added to the
positions, the second to the bias of the norm before the projection. Features stay.

Shapes: C channels, D values of a feature, N patches.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from eva_backbone.checkpoints.convert import fuse_qkv_bias
from eva_backbone.checkpoints.listing import listed

_TRUNK = "visual.trunk."
_LOGITS = ("logit_scale", "logit_bias")
# What open_clip's older class keeps beside the vision tower.
_TEXT = re.compile(
    r"(positional_embedding|text_projection|token_embedding\.|ln_final\.|transformer\.)"
)
_PIXELS = "visual.conv1.weight"  # marks open_clip's own ViT
_IN_BLOCK = {  # ours -> open_clip's ViT
    "norm1.": "ln_1.",
    "norm2.": "ln_2.",
    "attn.qkv.weight": "attn.in_proj_weight",
    "attn.qkv.bias": "attn.in_proj_bias",
    "attn.proj.": "attn.out_proj.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
    "gamma_1": "ls_1.gamma",
    "gamma_2": "ls_2.gamma",
}
_LEAST = 1e-5  # largest relative error of a projection whose bias is moved into the norm


def to_official(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the official names to a CLIP of any program.

    Args:
        weights: Name -> tensor: of `EVA01-g-14` or another open_clip model with an EVA ViT, of this
            toolkit, official, or a vision tower alone.

    Returns:
        A new dict: `visual.*` and `text.*`; factor and bias of the logits, which are `text.*` too,
        without dimensions. What is in the official form stays as it is.

    Raises:
        ValueError: If open_clip's own ViT has a part that EVA's has not.
    """
    named = {name.removeprefix("module."): value for name, value in weights.items()}
    if _PIXELS in named:
        named = _from_vit(named)
    official = {}
    for name, value in named.items():
        key = f"text.{name}" if name in _LOGITS else name
        if key.startswith(_TRUNK):
            key = f"visual.{key.removeprefix(_TRUNK)}"
        if key.removeprefix("text.") in _LOGITS and value.numel() == 1:
            value = value.reshape(())
        official[key] = value
    return official


def to_trunk(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the names of open_clip's `EVA01-g-14` to a CLIP.

    Args:
        weights: Name -> tensor, in the official form.

    Returns:
        A new dict, which that model loads strictly.
    """
    named = {}
    for name, value in _logits_outside(weights).items():
        in_trunk = name.startswith("visual.")
        named[_TRUNK + name.removeprefix("visual.") if in_trunk else name] = value
    return named


def to_vit(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn a CLIP into one with open_clip's own ViT.

    Args:
        weights: Name -> tensor, in the official form.

    Returns:
        A new dict; what is not the same tensor under another name is float32.

    Raises:
        ValueError: If the bias of the projection cannot be moved: there are more values of a
            feature than channels, or the projection has not its full rank.
    """
    named = fuse_qkv_bias(_logits_outside(weights))
    positions = named.pop("visual.pos_embed")[0].float()  # (1 + N, C)
    bias = named.pop("visual.patch_embed.proj.bias").float()
    projection = named.pop("visual.head.weight").T  # (C, D)
    norm_bias = _absorb(
        projection, named.pop("visual.head.bias"), into=named.pop("visual.norm.bias")
    )
    converted = {
        _PIXELS: named.pop("visual.patch_embed.proj.weight"),
        "visual.class_embedding": named.pop("visual.cls_token").flatten(),
        "visual.positional_embedding": torch.cat([positions[:1], positions[1:] + bias]),
        "visual.ln_post.weight": named.pop("visual.norm.weight"),
        "visual.ln_post.bias": norm_bias,
        "visual.proj": projection,
    }
    for name, value in named.items():
        converted[_in_block(name, _IN_BLOCK, "transformer.resblocks")] = value
    return converted


def _from_vit(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `to_vit`, but for the biases that were moved, which become zero."""
    named = {f"text.{name}" if _TEXT.match(name) else name: v for name, v in weights.items()}
    pixels = named.pop(_PIXELS)
    known = ("class_embedding", "positional_embedding", "ln_post.weight", "ln_post.bias", "proj")
    lacking = [f"visual.{name}" for name in known if f"visual.{name}" not in named]
    back = {theirs: ours for ours, theirs in _IN_BLOCK.items()}
    parts = {name: named.pop(f"visual.{name}") for name in known if f"visual.{name}" in named}
    official = {_in_block(name, back, "blocks"): value for name, value in named.items()}
    unknown = [name for name in official if re.match(r"visual\.(?!blocks\.)", name)]
    if lacking or unknown or pixels.ndim != 4:
        raise ValueError(
            "the vision tower is open_clip's own and not an EVA ViT: "
            + (f"it has {listed(unknown)}" if unknown else f"it lacks {listed(lacking)}")
            + "; load a CLIP without norm before the blocks (no_ln_pre)"
        )
    projection = parts["proj"]  # (C, D)
    return official | {
        "visual.cls_token": parts["class_embedding"].reshape(1, 1, -1),
        "visual.pos_embed": parts["positional_embedding"][None],
        "visual.patch_embed.proj.weight": pixels,
        "visual.patch_embed.proj.bias": pixels.new_zeros(len(pixels)),
        "visual.norm.weight": parts["ln_post.weight"],
        "visual.norm.bias": parts["ln_post.bias"],
        "visual.head.weight": projection.T,
        "visual.head.bias": projection.new_zeros(projection.shape[-1]),
    }


def _logits_outside(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Move factor and bias of the logits out of the text tower, without dimensions."""
    named = {}
    for name, value in weights.items():
        local = name.removeprefix("text.")
        named[local if local in _LOGITS else name] = (
            value.reshape(()) if local in _LOGITS else value
        )
    return named


def _in_block(name: str, names: Mapping[str, str], blocks: str) -> str:
    """Rename a tensor of a block of the vision tower; others keep their names."""
    if not (found := re.match(r"visual\.(?:blocks|transformer\.resblocks)\.(\d+)\.(.+)", name)):
        return name
    local = found[2]
    for ours, theirs in names.items():
        if local.startswith(ours):
            return f"visual.{blocks}.{found[1]}.{theirs}{local.removeprefix(ours)}"
    return name


def _absorb(projection: Tensor, bias: Tensor, *, into: Tensor) -> Tensor:
    """Find the norm's bias that has the effect of its own and of the projection's bias."""
    matrix, wanted = projection.double(), bias.double()  # (C, D), (D,)
    moved = torch.linalg.lstsq(matrix.T, wanted[:, None], driver="gelsd").solution[:, 0]
    result = (into.double() + moved).float()
    missed = (result.double() - into.double()) @ matrix - wanted
    scale = wanted.abs().max() + (into.double() @ matrix).abs().max()
    if missed.abs().max() > _LEAST * scale:
        channels, values = projection.shape
        raise ValueError(
            f"open_clip's own ViT has no bias after the projection, and one of {values} values of "
            f"{channels} channels cannot be moved into the norm before it: build the model with "
            f"embed_dim of at most {channels}"
        )
    return result
