"""One partition of the layers, for learning-rate decay, weight decay and freezing.

A model of depth d has d + 2 groups: 0 the embeddings, 1..d the blocks, d + 1 everything behind
(norms, heads, pyramids, adapters, text towers). Every parameter name of every project belongs to
exactly one. A text tower by itself has the same groups, by open_clip's names of its parts.
"""

import re
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from torch import nn

_EMBEDDING = re.compile(
    r"(^|\.)(cls_token|register_tokens|mask_token|pos_embed|patch_embed\..+|norm_pre\..+"
    r"|positional_embedding|token_embedding\.weight)$"  # of a text tower
)
_BLOCK = re.compile(r"(^|\.)(?:res)?blocks\.(\d+)\.")
_OTHER_TOWER = re.compile(r"(^|\.)text\.")
# mask_token decays in the official pre-training
_NO_WEIGHT_DECAY = ("pos_embed", "cls_token", "register_tokens", "positional_embedding")


@dataclass(frozen=True)
class LayerGroup:
    """A layer group: 0 the embeddings, n + 1 block n, depth + 1 the rest; label for logs."""

    index: int
    label: str


def layer_groups(depth: int) -> tuple[LayerGroup, ...]:
    """List the depth + 2 groups of a model of that many blocks, from input to output."""
    labels = ("embeddings", *(f"blocks.{i}" for i in range(depth)), "behind the blocks")
    return tuple(LayerGroup(index, label) for index, label in enumerate(labels))


def layer_index(name: str, depth: int) -> int:
    """Find the index into `layer_groups(depth)` that a parameter belongs to.

    Args:
        name: Parameter name, with or without prefixes such as `backbone.net.` or `visual.`. Behind
            `text.` it is one of a CLIP's other tower; without it, one of a text tower by itself.
        depth: Number of transformer blocks of the ViT, or of the text tower by itself.

    Raises:
        ValueError: If the name has a block that a model of this depth cannot have.
    """
    if _OTHER_TOWER.search(name):  # CLIP's text tower has embeddings of its own
        return depth + 1
    if _EMBEDDING.search(name):
        return 0
    block = _BLOCK.search(name)
    if block is None:
        return depth + 1
    number = int(block.group(2))
    if number >= depth:
        raise ValueError(f"{name} is block {number}, but the depth given is {depth}")
    return number + 1


def get_vit_lr_decay_rate(name: str, lr_decay_rate: float = 1.0, num_layers: int = 12) -> float:
    """Return a parameter's learning-rate factor; drop-in for detectron2's function of this name.

    Args:
        name: Parameter name in the complete model.
        lr_decay_rate: Factor between neighbouring layers, 0.9 for the detectors (Table 17).
        num_layers: Depth of the ViT.
    """
    return lr_decay_rate ** (num_layers + 1 - layer_index(name, num_layers))


def param_groups_layer_decay(
    model: nn.Module,
    *,
    depth: int,
    lr: float,
    weight_decay: float,
    layer_decay: float = 1.0,
    no_weight_decay: Iterable[str] = _NO_WEIGHT_DECAY,
    decay_vectors: bool = False,
    embeddings: re.Pattern[str] | None = None,
    full_rate_blocks: int = 0,
) -> list[dict[str, Any]]:
    """Make optimizer groups by layer and by whether weight decay applies.

    Args:
        model: Any model around the ViT, or a text tower; frozen parameters are left out.
        depth: Number of transformer blocks.
        lr: Learning rate of the last group.
        weight_decay: Weight decay of matrices.
        layer_decay: Factor between neighbouring layers.
        no_weight_decay: Last parts of further parameter names that are not decayed.
        decay_vectors: Decay everything, as the official detectors do; vectors and biases are not
            decayed in the official pre-training, classification and segmentation.
        embeddings: Names of further parameters that learn at the rate of the embeddings.
        full_rate_blocks: Last blocks that learn at the rate of what is behind them (EoMT).

    Returns:
        Groups with `params`, `lr`, `lr_scale`, `weight_decay` and `name`.
    """
    exempt = set(no_weight_decay)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    labels = layer_groups(depth)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        index = 0 if embeddings and embeddings.match(name) else layer_index(name, depth)
        is_exempt = name.rpartition(".")[2] in exempt
        plain = not decay_vectors and (parameter.ndim <= 1 or is_exempt)
        distance = 0 if index > depth - full_rate_blocks else depth + 1 - index
        scale = layer_decay**distance
        group = groups.setdefault(
            (index, plain),
            {
                "params": [],
                "lr": lr * scale,
                "lr_scale": scale,
                "weight_decay": 0.0 if plain else weight_decay,
                "name": labels[index].label + (" without decay" if plain else ""),
            },
        )
        group["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def freeze_layers(model: nn.Module, *, depth: int, below: int) -> list[str]:
    """Stop the gradients of the first layer groups.

    Args:
        model: Any model around the ViT, or a text tower.
        depth: Number of transformer blocks.
        below: Groups with an index below this are frozen: 1 the embeddings, n + 1 the embeddings
            and n blocks.

    Returns:
        Names of the frozen parameters.
    """
    frozen = []
    for name, parameter in model.named_parameters():
        if layer_index(name, depth) < below:
            parameter.requires_grad_(False)
            frozen.append(name)
    return frozen


def freeze_vit(net: Any, *, patch_embed: bool, blocks: int) -> None:
    """Freeze the patch embedding of a ViT, or its first `blocks` with all embeddings.

    With all blocks the final norm is frozen too.

    Raises:
        ValueError: If the ViT has fewer blocks.
    """
    if not 0 <= blocks <= net.depth:
        raise ValueError(f"freeze_blocks must be in 0..{net.depth}, got {blocks}")
    if patch_embed:
        net.patch_embed.requires_grad_(False)
    if blocks:
        freeze_layers(net, depth=net.depth, below=blocks + 1)
    if blocks == net.depth:  # nothing of it is trained
        net.norm.requires_grad_(False)


def freeze_same_share(backbone: MutableMapping[str, Any], *, old_depth: int, depth: int) -> None:
    """Freeze the same share of another ViT's blocks in a recipe's backbone, no patch embedding."""
    backbone["freeze_patch_embed"] = False  # no detector has trained it
    if backbone.get("freeze_blocks"):
        backbone["freeze_blocks"] = round(backbone["freeze_blocks"] * depth / old_depth)
