"""Weights that a text tower begins with, in the forms in which others keep them.

OpenAI's TorchScript archives, files of open_clip (with towers of their own or in one model), of
transformers, and those of EVA-CLIP. Shapes: L tokens of a text, C channels, D values of a feature.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from eva_backbone.checkpoints.fitting import cast
from eva_backbone.checkpoints.listing import listed
from eva_backbone.checkpoints.reading import read_weights
from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.checkpoints.torchscript import is_torchscript, read_torchscript
from eva_contrastive.model.towers import TextTower

logger = logging.getLogger(__name__)

_TEXT = re.compile(
    r"(token_embedding\.weight|positional_embedding|text_projection|ln_final\.(weight|bias)"
    r"|transformer\.resblocks\.\d+\..+)"
)
_NEW = ("text_projection", "logit_scale", "logit_bias")  # another space of features, another start
_TRANSFORMERS = {  # below text_model.encoder.layers.N.
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_LAYER = re.compile(r"text_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_PARTS = ("q_proj", "k_proj", "v_proj")


def initialise_text(tower: TextTower, source: str) -> None:
    """Load the weights that a text tower begins with.

    A projection of another size, and the factor of the logits, begin as they are built: the
    features of the other tower are new (official). A file for longer texts gives its first
    positions.

    Args:
        tower: The tower.
        source: Name of an official file, or a path.

    Raises:
        ValueError: If the file has no text tower, or one of another size; the tower is unchanged.
        FileNotFoundError: If the source is neither a file nor a known name at hand.
    """
    path = resolve_source(source)
    weights = read_text_weights(path)
    wanted = {
        name: value for name, value in tower.state_dict().items() if not name.startswith("logit_")
    }
    taken, positions = {}, "positional_embedding"
    longer = len(weights[positions]) - len(wanted[positions])
    if longer > 0:
        weights[positions] = weights[positions][:-longer]
    if weights["text_projection"].shape != wanted["text_projection"].shape:
        logger.info("%s: the projection of the texts begins from scratch", path.name)
        del weights["text_projection"]
    for name in wanted:
        if name in weights and weights[name].shape == wanted[name].shape:
            taken[name] = cast(weights[name], wanted[name].dtype, f"{path.name} holds {name}")
    unfit = [
        f"{name} {tuple(value.shape) if (value := weights.get(name)) is not None else 'missing'}"
        f" -> {tuple(wanted[name].shape)}"
        for name in wanted
        if name not in taken and not (name in _NEW and name not in weights)
    ]
    unfit += [f"{name} -> nothing" for name in weights if name not in wanted]
    if unfit:
        raise ValueError(
            f"the text tower of {path.name} does not fit (in the file -> in the model): "
            f"{listed(unfit)}; choose the size that it has as model.text"
        )
    tower.load_state_dict(taken, strict=False)
    cut = f", the first {len(wanted[positions])} positions" if longer > 0 else ""
    logger.info("%s: loaded %d tensors into the text tower%s", path.name, len(taken), cut)


def read_text_weights(file: Path) -> dict[str, Tensor]:
    """Read the text tower of a file, under open_clip's names.

    Args:
        file: A file of CLIP.

    Returns:
        Name -> tensor, `text_projection` (C, D) among them.

    Raises:
        ValueError: If the file has no text tower, or cannot be read.
    """
    read = read_torchscript if is_torchscript(file) else read_weights
    weights = read(file)
    if "text_model.final_layer_norm.weight" in weights:
        weights = _from_transformers(weights, file.name)
    for prefix in ("text.", ""):
        if f"{prefix}token_embedding.weight" in weights:
            named = {
                name.removeprefix(prefix): value
                for name, value in weights.items()
                if name.startswith(prefix)
            }
            found = {name: value for name, value in named.items() if _TEXT.fullmatch(name)}
            lacking = {"positional_embedding", "text_projection"} - found.keys()
            if lacking or any(value.ndim == 0 for value in found.values()):
                break
            return found
    raise ValueError(
        f"{file.name} holds no text tower of CLIP: expected token_embedding.weight, "
        "positional_embedding, transformer.resblocks.* and text_projection, or transformers' "
        f"text_model.*; it has {listed(list(weights), 3)}"
    )


def _from_transformers(weights: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Rename the text tower of a `CLIPModel`; queries, keys and values become one matrix."""
    renamed: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    plain = {
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.final_layer_norm.weight": "ln_final.weight",
        "text_model.final_layer_norm.bias": "ln_final.bias",
    }
    for name, value in weights.items():
        layer = _LAYER.fullmatch(name)
        if name in plain:
            renamed[plain[name]] = value
        elif name == "text_projection.weight" and value.ndim == 2:
            renamed["text_projection"] = value.T
        elif layer is not None:
            block, module, kind = layer.groups()
            stem = f"transformer.resblocks.{block}."
            part = module.rpartition(".")[2]
            if part in _PARTS:
                parts.setdefault(f"{stem}attn.in_proj_{kind}", {})[part] = value
            else:
                renamed[f"{stem}{_TRANSFORMERS.get(module, module)}.{kind}"] = value
    for name, three in parts.items():
        if len(three) < len(_PARTS) or len({value.shape for value in three.values()}) > 1:
            raise ValueError(f"{source} lacks a part of {name}, or its parts differ in shape")
        renamed[name] = torch.cat([three[part] for part in _PARTS])
    return renamed
