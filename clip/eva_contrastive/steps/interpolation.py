"""Weights between those that a training began with and those that it ended with (WiSE-FT).

Wortsman et al., "Robust fine-tuning of zero-shot models", https://arxiv.org/abs/2109.01903.
`interpolate_command` is the command line.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from eva_backbone.checkpoints.registry import resolve_source
from eva_contrastive.config import ContrastiveConfig
from eva_contrastive.model.loading import read_clip_weights
from eva_data.files import make_folder
from eva_engine.checkpoints.files import WEIGHTS, read_config, save_weights
from eva_engine.checkpoints.run_checkpoint import RunCheckpoints
from eva_report.terminal import SHOWN

logger = logging.getLogger(__name__)

FOLDER = "interpolated"
_NEEDED = ("text.token_embedding.weight", "visual.head.weight")  # else they begin at random


def interpolate(
    start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float
) -> dict[str, Tensor]:
    """Compute `(1 - share) * start + share * end` of each weight, in float32.

    Args:
        start: Name -> weights that a training began with.
        end: Name -> weights of the same model that it ended with.
        share: Share of the end, in [0, 1].

    Returns:
        Name -> weights, in the order of `end`.

    Raises:
        ValueError: If names or shapes differ, naming the first that does; or for another share.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}")
    for name in (*start, *end):
        if name not in end or name not in start:
            which = "end" if name in start else "start"
            raise ValueError(f"start and end are of different models: the {which} has no {name}")
        if start[name].shape != end[name].shape:
            raise ValueError(
                f"start and end are of different models: {name} has shape "
                f"{tuple(start[name].shape)} in the start and {tuple(end[name].shape)} in the end"
            )
    return {name: torch.lerp(start[name].float(), end[name].float(), share) for name in end}


def check_start(config: ContrastiveConfig) -> None:
    """Refuse an interpolation of a recipe that begins with anything but a complete CLIP.

    Args:
        config: The recipe.

    Raises:
        ValueError: If `interpolation` is below 1, and `init_checkpoint` not such a model.
        FileNotFoundError: If `init_checkpoint` is neither a file nor a known name at hand.
    """
    if config.interpolation == 1:
        return
    start = config.model.init_checkpoint
    names = read_clip_weights(resolve_source(start)).keys()
    if not all(name in names for name in _NEEDED):
        raise ValueError(
            f"interpolation={config.interpolation} needs a start that is a complete CLIP, and "
            f"model.init_checkpoint={start!r} is not one: leave interpolation out, or begin with "
            "one, such as eva_clip_psz14.pt"
        )


def write_interpolated(
    config: ContrastiveConfig, first_weights: Callable[[], Mapping[str, Tensor]]
) -> Path | None:
    """Write `interpolated/model.safetensors` of a run that has reached its end.

    It is computed from files alone, so a run that was stopped in between writes the same one when
    it is started again. Call it on the main process.

    Args:
        config: The recipe.
        first_weights: Function that reads the weights that the run began with, under the names and
            in the shapes of the model.

    Returns:
        The file; None if the recipe asks for none.

    Raises:
        ValueError: If the run has no complete checkpoint.
        UnwritableError: If the disk is full, for example.
    """
    if config.interpolation == 1:
        return None
    output = config.run.output
    complete = RunCheckpoints(output, keep=1).complete()
    if not complete:
        raise ValueError(f"{output} holds no complete checkpoint to interpolate with")
    end = complete[-1] / WEIGHTS
    file = output / FOLDER / WEIGHTS
    make_folder(file.parent)
    weights = interpolate(first_weights(), read_clip_weights(end), config.interpolation)
    save_weights(weights, file, read_config(end))
    share = f"{config.interpolation:g} of {complete[-1].name}, the rest of the start"
    logger.info("between  %s (%s)", file, share, extra=SHOWN)
    return file
