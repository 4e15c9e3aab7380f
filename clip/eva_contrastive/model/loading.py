"""Weights of EVA-CLIP: to use, and to begin a training with.

model = load_eva_clip("eva_clip_psz14.pt")  # 1,136,435,841 parameters

Whether a file is official, of open_clip's EVA01-g-14 or of a run of this toolkit is seen by its
names. Shapes: L tokens of a text, C channels, D values of a feature.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eva_backbone.checkpoints.convert import trunk_prefix
from eva_backbone.checkpoints.from_weights import describe
from eva_backbone.checkpoints.listing import listed
from eva_backbone.checkpoints.loading import LoadReport, load_weights, read_weights
from eva_backbone.checkpoints.registry import resolve_source
from eva_contrastive.model.eva_clip import EvaClip
from eva_contrastive.model.open_clip_form import to_official
from eva_contrastive.model.open_clip_program import weights_file
from eva_contrastive.model.text_variants import TEXT_VARIANTS
from eva_contrastive.model.text_weights import initialise_text
from eva_contrastive.model.towers import TextTower, VisionTower

_HEAD_WIDTH = 64  # of an attention head in every CLIP's text tower
_LOGITS = ("text.logit_scale", "text.logit_bias")
_BLOCK = re.compile(r"text\.transformer\.resblocks\.(\d+)\.")
_WORDS, _POSITIONS = "text.token_embedding.weight", "text.positional_embedding"
_PROJECTION = "text.text_projection"


def load_eva_clip(
    source: str | os.PathLike[str],
    *,
    image_size: int | None = None,
    text_heads: int | None = None,
    dtype: torch.dtype = torch.float32,
    **vision_overrides: Any,
) -> EvaClip:
    """Build the model that a file holds, and load all of it.

    Args:
        source: Official name or file; a file of open_clip's EVA01-g-14 or a folder that it reads;
            or a run's `model.safetensors` or `model_ema.safetensors`.
        image_size: Side of the pictures in pixels, to which the positions are resampled; by default
            that of the weights.
        text_heads: Attention heads of the text tower, which weights do not show; by default those
            of a known size, or one for each 64 channels.
        dtype: Type of the parameters.
        **vision_overrides: Arguments of `VisionTower` that the weights do not determine.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: If the file holds no complete EVA-CLIP, or does not determine its sizes.
        FileNotFoundError: If the source is neither a file nor a known name at hand.
    """
    path = weights_file(source)
    return clip_from(
        read_clip_weights(path),
        name=path.name,
        image_size=image_size,
        text_heads=text_heads,
        dtype=dtype,
        **vision_overrides,
    )


def clip_from(
    weights: Mapping[str, Tensor],
    *,
    name: str,
    image_size: int | None = None,
    text_heads: int | None = None,
    dtype: torch.dtype = torch.float32,
    **vision_overrides: Any,
) -> EvaClip:
    """Build the model of weights that `read_clip_weights` read; see `load_eva_clip`.

    Args:
        weights: Name -> tensor.
        name: Name of the file, for messages.
        image_size: See `load_eva_clip`.
        text_heads: See `load_eva_clip`.
        dtype: See `load_eva_clip`.
        **vision_overrides: See `load_eva_clip`.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: If the weights are not those of a complete EVA-CLIP, or do not determine its
            sizes.
    """
    lacking = [
        part
        for part in (_WORDS, _POSITIONS, _PROJECTION, "text.logit_scale", "visual.head.weight")
        if part not in weights
    ]
    if lacking:
        raise ValueError(
            f"{name} holds {_kind(weights)}, not a complete EVA-CLIP, as it lacks "
            f"{listed(lacking)}: train one from it with clip/train.py RECIPE "
            "--model.init-checkpoint; pictures alone are for load_vision_tower"
        )
    with torch.device("meta"):
        visual = _vision_tower(weights, name, image_size=image_size, **vision_overrides)
        text = _text_tower(weights, name, heads=text_heads)
        model = EvaClip(visual, text).to(dtype)
    load_weights(model, weights, source=name, complete=True)
    text.attn_mask = text.build_causal_mask().to(dtype)  # no file holds it
    return model.eval()


def _kind(weights: Mapping[str, Tensor]) -> str:
    if any(name.startswith("text.") for name in weights):
        return "a part of a CLIP"
    if "visual.head.weight" in weights:
        return "a vision tower"
    return "a classifier" if "head.weight" in weights else "a backbone"


def load_vision_tower(
    source: str | os.PathLike[str],
    *,
    image_size: int | None = None,
    dtype: torch.dtype = torch.float32,
    **overrides: Any,
) -> VisionTower:
    """Build the vision tower of a file, and load it; a text tower is left out.

    Args:
        source: As for `load_eva_clip`; also `eva_clip_psz14_vision_enc.pt`.
        image_size: Side of the pictures in pixels; by default that of the weights.
        dtype: Type of the parameters.
        **overrides: Arguments of `VisionTower` that the weights do not determine.

    Returns:
        The tower, in evaluation mode; without projection where the file has none.

    Raises:
        ValueError: If the file holds no such tower.
        FileNotFoundError: If the source is neither a file nor a known name at hand.
    """
    path = weights_file(source)
    weights = read_clip_weights(path)
    prefix = trunk_prefix(weights, f"{path.name} holds no EVA weights")
    with torch.device("meta"):
        tower = _vision_tower(weights, path.name, image_size=image_size, **overrides).to(dtype)
    own = {
        name.removeprefix(prefix): value
        for name, value in weights.items()
        if name.startswith(prefix)
    }
    load_weights(tower, own, source=path.name, complete=True)
    return tower.eval()


def initialise(model: EvaClip, vision: str, text: str) -> LoadReport | None:
    """Load the weights that a training begins with.

    Args:
        model: The model.
        vision: Weights of the vision tower, or of a complete CLIP; empty for none.
        text: Weights of the text tower, see `eva_contrastive.model.text_weights`; empty for none.

    Returns:
        The report of the vision tower, which is also logged.

    Raises:
        ValueError: If a file does not fit, or both have a text tower.
        FileNotFoundError: If a source is neither a file nor a known name at hand.
    """
    report = None
    if vision:
        path = resolve_source(vision)
        weights = read_clip_weights(path)
        complete = _WORDS in weights
        if complete and text:
            raise ValueError(
                f"{path.name} has a text tower, and text_checkpoint={text} another: leave one out, "
                "or give a vision tower alone"
            )
        # A head of other classes, or masked-image models' lack of one: it begins from scratch.
        report = load_weights(
            model,
            weights,
            source=path.name,
            allow_missing=("visual.head", "text.logit_bias") if complete else (),
            reinitialise=() if complete else ("visual.head",),
            allow_skipped=_LOGITS,
        )
    if text:
        initialise_text(model.text, text)
    return report


def read_clip_weights(path: Path) -> dict[str, Tensor]:
    """Read a file of CLIP or of a vision tower, see `clip_weights`.

    Args:
        path: The file.

    Returns:
        Name -> tensor.

    Raises:
        ValueError: If it cannot be read.
    """
    return clip_weights(read_weights(path), name=path.name)


def clip_weights(weights: Mapping[str, Tensor], *, name: str) -> dict[str, Tensor]:
    """Give the names and shapes of this toolkit to a CLIP or a vision tower.

    Args:
        weights: Name -> tensor, of any program.
        name: Name of the file, for messages.

    Returns:
        Name -> tensor; factor and bias of the logits of shape (1,).

    Raises:
        ValueError: If factor or bias is not one number, or the vision tower is not an EVA ViT.
    """
    named = to_official(weights)
    for part in _LOGITS:
        if part in named:
            if named[part].numel() != 1:
                raise ValueError(
                    f"{name} holds {part} of shape {tuple(named[part].shape)}: expected one number"
                )
            named[part] = named[part].reshape(1)
    return named


def _vision_tower(
    weights: Mapping[str, Tensor], source: str, *, image_size: int | None, **overrides: Any
) -> VisionTower:
    trunk = describe(weights, name=source)
    arguments = trunk.arguments | overrides
    if trunk.clips or not {"cls_token", "norm.weight"} <= trunk.names:
        raise ValueError(
            f"{source} holds no vision tower of CLIP, which takes pictures and has a class token "
            "and a final norm"
        )
    if "num_heads" not in arguments:
        raise ValueError(
            f"{source} holds a ViT of width {arguments['embed_dim']} and depth "
            f"{arguments['depth']}, which is not one of eva_backbone.VARIANTS: pass num_heads"
        )
    if image_size is not None:
        arguments["img_size"] = image_size
    prefix = trunk_prefix(weights, source)
    head = weights.get(f"{prefix}head.weight")
    if head is not None and (head.ndim != 2 or not len(head)):
        raise ValueError(f"{source} has a projection of shape {tuple(head.shape)}: expected (D, C)")
    return VisionTower(output_dim=0 if head is None else len(head), **arguments)


def _text_tower(weights: Mapping[str, Tensor], source: str, *, heads: int | None) -> TextTower:
    """Read the sizes off the weights."""
    shapes = [tuple(weights[name].shape) for name in (_WORDS, _POSITIONS, _PROJECTION)]
    if any(len(shape) != 2 or 0 in shape for shape in shapes):
        raise ValueError(f"{source} has a text tower of shapes {shapes}: expected matrices")
    (vocab, width), (length, _), (_, output_dim) = shapes
    depth = len({found[1] for name in weights if (found := _BLOCK.match(name))})
    if not depth:
        raise ValueError(f"{source} has a text tower without blocks")
    if heads is None:
        known = [v for v in TEXT_VARIANTS.values() if (v.width, v.depth) == (width, depth)]
        heads = known[0].num_heads if known else max(1, width // _HEAD_WIDTH)
    if width % heads:
        raise ValueError(
            f"{source} has a text tower of width {width}, which {heads} heads do not divide: pass "
            "text_heads"
        )
    return TextTower(
        output_dim=output_dim,
        context_length=length,
        vocab_size=vocab,
        width=width,
        depth=depth,
        num_heads=heads,
        sigmoid="text.logit_bias" in weights,
    )
