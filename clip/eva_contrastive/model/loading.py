"""Weights of EVA-CLIP: to use, and to begin a training with.

model = load_eva_clip("eva_clip_psz14.pt")  # 1,136,435,841 parameters

Whether a file is official, of open_clip's EVA01-g-14 or of a run of this toolkit is seen by its
names. Shapes: L tokens of a text, C channels, D values of a feature.
"""

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from eva_backbone.checkpoints.from_weights import Trunk, describe
from eva_backbone.checkpoints.loading import LoadReport, cast, load_pretrained
from eva_backbone.checkpoints.reading import Weights, list_names, read_weights
from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.checkpoints.torchscript import is_torchscript, read_torchscript
from eva_contrastive.config import TEXT_VARIANTS
from eva_contrastive.model.eva_clip import EvaClip, TextTower, VisionTower
from eva_contrastive.model.open_clip_files import weights_file
from eva_contrastive.model.open_clip_form import to_official

logger = logging.getLogger(__name__)

_HEAD_WIDTH = 64  # of an attention head in every CLIP's text tower
_LOGITS = ("text.logit_scale", "text.logit_bias")
_BLOCK = re.compile(r"text\.transformer\.resblocks\.(\d+)\.")
_WORDS, _POSITIONS = "text.token_embedding.weight", "text.positional_embedding"
_PROJECTION = "text.text_projection"
_NEEDED = {  # of a complete CLIP, with the number of dimensions
    _WORDS: 2,
    _POSITIONS: 2,
    _PROJECTION: 2,
    "text.transformer.resblocks.0.ln_1.weight": 1,
    _LOGITS[0]: 1,
    "visual.head.weight": 2,
}
_TEXT = re.compile(
    r"(?:text\.)?(token_embedding\.weight|positional_embedding|text_projection"
    r"|ln_final\.(?:weight|bias)|transformer\.resblocks\.\d+\..+)"
)


def load_eva_clip(
    source: str | os.PathLike[str] | Weights,
    *,
    image_size: int | None = None,
    text_heads: int | None = None,
    dtype: torch.dtype = torch.float32,
    **vision_overrides: Any,
) -> EvaClip:
    """Build the model that a file holds, and load all of it.

    Args:
        source: Official name or file; a file of open_clip's EVA01-g-14 or a folder that it reads;
            a run's `model.safetensors` or `model_ema.safetensors`; or weights that
            `read_clip_weights` gave.
        image_size: Side of the images in pixels, to which the positions are resampled; by default
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
    weights = source if isinstance(source, Weights) else read_clip_weights(source)
    tensors = weights.tensors
    lacking = [
        part
        for part, dims in _NEEDED.items()
        if part not in tensors or tensors[part].ndim != dims or 0 in tensors[part].shape
    ]
    if lacking:
        raise ValueError(
            f"{weights.name} is not a complete EVA-CLIP, as it lacks {list_names(lacking)} or "
            f"has them in another shape: train one from it with clip/train.py RECIPE "
            "--model.init-checkpoint; images alone are for load_vision_tower"
        )
    with torch.device("meta"):
        visual, _ = _vision_tower(weights, image_size, **vision_overrides)
        text_tower = _text_tower(tensors, heads=text_heads)
        model = EvaClip(visual, text_tower).to(dtype)
    load_pretrained(model, weights, complete=True)
    text_tower.attn_mask = text_tower.build_causal_mask().to(dtype)  # no file holds it
    return model.eval()


def load_vision_tower(
    source: str | os.PathLike[str],
    *,
    image_size: int | None = None,
    dtype: torch.dtype = torch.float32,
    **overrides: Any,
) -> VisionTower:
    """Build the vision tower of a file, and load it; a text tower is left out.

    Arguments and errors are those of `load_eva_clip`; the source may be
    `eva_clip_psz14_vision_enc.pt`, too, which gives a tower without projection.
    """
    weights = read_clip_weights(source)
    with torch.device("meta"):
        tower, trunk = _vision_tower(weights, image_size, **overrides)
    arguments = {
        name.removeprefix(trunk.prefix): value
        for name, value in weights.tensors.items()
        if name.startswith(trunk.prefix)
    }
    load_pretrained(tower.to(dtype), Weights(weights.name, arguments), complete=True)
    return tower.eval()


def initialise(model: EvaClip, vision: str, text: str) -> LoadReport | None:
    """Load the weights that a training begins with, and log a report.

    Args:
        model: The model.
        vision: Weights of the vision tower, or of a complete CLIP; empty for none.
        text: Weights of the text tower, also in place of a CLIP's; empty for none.

    Returns:
        The report of `vision`.
    """
    report = None
    if vision:
        weights = read_clip_weights(vision)
        complete = _WORDS in weights.tensors
        # A head of other classes, or masked-image models' lack of one: it begins from scratch.
        report = load_pretrained(
            model,
            weights,
            allow_skipped=_LOGITS,
            allow_missing=("visual.head", "text.logit_bias") if complete else (),
            reinitialise=() if complete else ("visual.head",),
        )
    if text:
        initialise_text(model.text, text)
    return report


def read_clip_weights(source: str | os.PathLike[str]) -> Weights:
    """Read the file that `weights_file` finds, of any program, under this toolkit's names."""
    path = weights_file(source)
    return clip_weights(Weights.read_as_stored(path))


def clip_weights(weights: Weights) -> Weights:
    """Give the names and shapes of this toolkit to a CLIP or a vision tower of any program."""
    official = to_official(weights.tensors)
    official |= {part: official[part].reshape(-1) for part in _LOGITS if part in official}
    return replace(weights, tensors=official).rename()


def _vision_tower(
    weights: Weights, image_size: int | None, **overrides: Any
) -> tuple[VisionTower, Trunk]:
    trunk = describe(weights)
    arguments = trunk.arguments | overrides
    of_eva = trunk.family == "eva"
    if trunk.clips or (of_eva and not {"cls_token", "norm.weight"} <= trunk.names):
        raise ValueError(
            f"{weights.name} holds no vision tower of CLIP, which takes images and has a class "
            "token and a final norm"
        )
    if trunk.names & {"attn_pool.latent", "attn_pool.probe"}:
        raise ValueError(
            f"{weights.name} pools tokens by attention (attn_pool.*), as Perception Encoder and "
            "SigLIP do, and towers here take the class token or the mean: load it with open_clip, "
            "or begin a training with it as --model.init-checkpoint"
        )
    if image_size is not None:
        arguments["img_size"] = image_size
    head = weights.tensors.get(f"{trunk.prefix}head.weight")
    return VisionTower(output_dim=0 if head is None else len(head), **arguments), trunk


def _text_tower(weights: Mapping[str, Tensor], *, heads: int | None) -> TextTower:
    """Read the sizes off the weights."""
    (vocab, width), (length, _), (_, output_dim) = (
        weights[name].shape for name in (_WORDS, _POSITIONS, _PROJECTION)
    )
    depth = len({match[1] for name in weights if (match := _BLOCK.match(name))})
    head_counts = [
        v.num_heads for v in TEXT_VARIANTS.values() if (v.width, v.depth) == (width, depth)
    ]
    return TextTower(
        output_dim=output_dim,
        context_length=length,
        vocab_size=vocab,
        width=width,
        depth=depth,
        num_heads=heads or [*head_counts, max(1, width // _HEAD_WIDTH)][0],
        sigmoid=_LOGITS[1] in weights,
    )


def initialise_text(tower: TextTower, source: str) -> None:
    """Load the weights that a text tower begins with, of OpenAI's, open_clip's or EVA's CLIP.

    A projection of another size, and the factor of the logits, begin as they are built: the
    features of the other tower are new (official). A file for longer texts gives its first
    positions.
    """
    path, target = resolve_source(source), tower.state_dict()
    stored = read_torchscript(path) if is_torchscript(path) else read_weights(path)
    tensors = {
        match[1]: cast(value, torch.float32, f"{path.name} holds {name}")
        for name, value in stored.items()
        if (match := _TEXT.fullmatch(name))
    }
    positions, projection = (name.removeprefix("text.") for name in (_POSITIONS, _PROJECTION))
    logits = {name: value for name, value in target.items() if name.startswith("logit_")}
    try:
        tensors[positions] = tensors[positions][: len(target[positions])]
        if tensors[projection].shape != target[projection].shape:
            logger.info("%s: the projection of the texts begins from scratch", path.name)
            tensors[projection] = target[projection]
        tower.load_state_dict(tensors | logits)
    except (RuntimeError, LookupError) as error:
        raise ValueError(
            f"{path.name} holds no text tower of CLIP that fits: choose the size that it has as "
            f"model.text ({error!s:.500})"
        ) from error
    logger.info("%s: loaded %d tensors into the text tower", path.name, len(tensors))
