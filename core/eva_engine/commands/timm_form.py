"""An EVA ViT under timm's names, both ways; names and tensors alone, no model is built.

timm has two classes that compute what EVA computes: `Eva` (`eva_giant_*`), whose names are the
official ones, and `VisionTransformer` (`eva_large_*`) for one bias of queries, keys and values.
Both take another size, pooling and place of the last norm as arguments, which a folder's
`config.json` holds.

Shapes: C channels, K classes or values of a feature.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from eva_backbone.checkpoints._key_maps import TRUNK_KEY
from eva_backbone.checkpoints.convert import trunk_prefix
from eva_backbone.checkpoints.from_weights import Trunk, describe
from eva_backbone.checkpoints.reading import listed
from eva_backbone.variants import Pooling

PROBE_EPS = 1e-6  # of a linear probe's batch norm
# timm's names: side of the pictures -> name, the last for all other sides.
_GIANT = {336: "eva_giant_patch14_336", 560: "eva_giant_patch14_560", 0: "eva_giant_patch14_224"}
_GIANT_CLIP = "eva_giant_patch14_clip_224"  # pools by its class token
_LARGE = {336: "eva_large_patch14_336", 0: "eva_large_patch14_196"}
_SIZES = {  # patch size, width, depth, heads, width of the MLP
    "giant": (14, 1408, 40, 16, 6144),
    "large": (14, 1024, 24, 16, 4096),
}
_NOT_TAKEN = (
    (r"lm_head\.", "head of the pre-training"),
    (r"mask_token$", "pre-training only"),
    (r"decoder", "decoder of the pre-training"),
    (r"norm\.", "final norm, which a classifier of the mean does not use"),
    (r"(spm|interactions|up|norm[1-4])\.|level_embed$", "adapter of a segmentor"),
    (r".*relative_position(_\w+)?_index$", "recomputed"),
)


@dataclass(frozen=True, kw_only=True)
class TimmModel:
    """What timm builds and loads.

    Attributes:
        architecture: Name in timm.
        arguments: Its arguments that differ from what that name stands for.
        image_size: Side of the pictures in pixels.
        pooling: "mean" of the patches, or the class token ("cls").
        classes: K, 0 without a head.
        weights: timm's name -> tensor.
        changes: What was left out or changed, in lines.
    """

    architecture: str
    arguments: dict[str, Any]
    image_size: int
    pooling: Pooling
    classes: int
    weights: dict[str, Tensor]
    changes: list[str] = field(default_factory=list)


def to_timm(weights: Mapping[str, Tensor], *, name: str) -> TimmModel:
    """Turn the ViT of a file, with its head, into a model of timm.

    Args:
        weights: Name -> tensor, in the official form.
        name: Name of the file, for messages.

    Returns:
        The model: masked-image models and segmentors give the mean of the patches, classifiers
        their logits, towers of CLIP the projected class token.

    Raises:
        ValueError: If there is no ViT, or timm has none like it.
    """
    prefix = trunk_prefix(weights, f"{name} holds no EVA weights")
    if weights[prefix + TRUNK_KEY].ndim == 5:
        raise ValueError(_refusal(name, "a model of clips, whose patches have a length in time"))
    trunk = describe(weights, name=name)
    _require_plain(trunk, name)
    own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    outside = [key for key in weights if not key.startswith(prefix)]
    lines = [f"left out (outside the ViT): {listed(outside, 3)}"] if outside else []
    fused = trunk.arguments["qkv_bias"] == "qkv"
    pooling: Pooling = "mean" if trunk.pools_patches else "cls"
    head = _head(own, lines)
    kept: dict[str, Tensor] = {}
    left_out: dict[str, list[str]] = {}
    for key, value in own.items():
        reason = next((why for pattern, why in _NOT_TAKEN if re.match(pattern, key)), None)
        if key.startswith("norm.") and "fc_norm.weight" not in own:
            reason = None
        if key.startswith("head."):
            continue
        if reason is None:
            kept[_in_block(key) if fused else key] = value
        else:
            left_out.setdefault(reason, []).append(key)
    if "level_embed" in own:  # as in its training, see `load_vit`
        positions = kept["pos_embed"]
        kept["pos_embed"] = torch.cat([0 * positions[:, :1], positions[:, 1:]], dim=1)
    lines += [f"left out ({reason}): {listed(names, 3)}" for reason, names in left_out.items()]
    return TimmModel(
        architecture=_architecture(trunk, pooling),
        arguments=_arguments(trunk, pooling),
        image_size=trunk.arguments["img_size"],
        pooling=pooling,
        classes=len(head["head.weight"]) if head else 0,
        weights=kept | head,
        changes=lines,
    )


def official_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the official names to a model of timm, `eva_giant_*` or `eva_large_*`.

    Args:
        weights: Name -> tensor, of any program.

    Returns:
        A new dict; what has other names stays as it is.
    """
    return {
        re.sub(r"^(blocks\.\d+)\.ls([12])\.gamma$", r"\1.gamma_\2", k): v
        for k, v in weights.items()
    }


def _require_plain(trunk: Trunk, name: str) -> None:
    """Refuse a ViT that timm's EVA models cannot compute."""
    if "rel_pos" in trunk.arguments:
        raise ValueError(_refusal(name, "a ViT with relative positions"))
    if "cls_token" not in trunk.names:
        raise ValueError(_refusal(name, "a detector's ViT, which attends in windows"))
    if "num_heads" not in trunk.arguments:
        raise ValueError(
            f"{name} holds a ViT of width {trunk.arguments['embed_dim']} and depth "
            f"{trunk.arguments['depth']}, which is not one of eva_backbone.VARIANTS, and weights "
            "do not show the number of heads that timm must be given"
        )


def _refusal(name: str, what: str) -> str:
    return (
        f"{name} holds {what}, and timm's EVA models are without: convert a pre-trained file, a "
        "classifier of pictures, a CLIP, or a segmentor without relative positions"
    )


def _architecture(trunk: Trunk, pooling: Pooling) -> str:
    side = trunk.arguments["img_size"]
    if trunk.arguments["qkv_bias"] == "qkv":
        return _LARGE.get(side, _LARGE[0])
    return _GIANT_CLIP if pooling == "cls" else _GIANT.get(side, _GIANT[0])


def _arguments(trunk: Trunk, pooling: Pooling) -> dict[str, Any]:
    """Name what differs from the architecture: sizes, pooling and the place of the last norm."""
    vit = trunk.arguments
    large = vit["qkv_bias"] == "qkv"
    patch, width, depth, heads, mlp = _SIZES["large" if large else "giant"]
    found: dict[str, Any] = {}
    for argument, ours, theirs in (
        ("patch_size", vit["patch_size"], patch),
        ("embed_dim", vit["embed_dim"], width),
        ("depth", vit["depth"], depth),
        ("num_heads", vit["num_heads"], heads),
    ):
        if ours != theirs:
            found[argument] = ours
    if (vit["mlp_dim"], vit["embed_dim"]) != (mlp, width):
        found["mlp_ratio"] = _ratio(vit["mlp_dim"], vit["embed_dim"])
    if vit["layer_scale"] is not None:
        found["init_values"] = 1.0
    if pooling == "cls":
        return found | ({"global_pool": "token"} if large else {})
    if "fc_norm.weight" in trunk.names:
        return found  # as timm has it for the mean
    norm = "norm.weight" in trunk.names
    if large:
        return found | {"fc_norm": False} | ({} if norm else {"final_norm": False})
    return found | {"use_fc_norm": False, "use_post_transformer_norm": norm}


def _ratio(mlp_dim: int, width: int) -> float:
    """Find a factor that gives the width of the MLP although timm rounds down."""
    ratio = mlp_dim / width
    return ratio if int(width * ratio) == mlp_dim else (mlp_dim + 0.5) / width


def _head(own: Mapping[str, Tensor], lines: list[str]) -> dict[str, Tensor]:
    """Find the head, one linear layer in timm; says in `lines` what was made of it."""
    if "head.1.weight" in own:  # of a linear probe: a batch norm without parameters before it
        matrix, bias = own["head.1.weight"], own["head.1.bias"]  # (K, C), (K,)
        mean, variance = own["head.0.running_mean"].double(), own["head.0.running_var"].double()
        scaled = matrix.double() / (variance + PROBE_EPS).sqrt()
        lines.append("put the batch norm of the linear probe into its linear layer")
        moved = bias.double() - scaled @ mean
        return {"head.weight": scaled.to(matrix.dtype), "head.bias": moved.to(bias.dtype)}
    if "head.weight" not in own:
        return {}
    matrix = own["head.weight"]
    return {"head.weight": matrix, "head.bias": own.get("head.bias", matrix.new_zeros(len(matrix)))}


def _in_block(name: str) -> str:
    """Give the names of timm's `VisionTransformer` to residual scales; others stay."""
    return re.sub(r"\.gamma_([12])$", r".ls\1.gamma", name)
