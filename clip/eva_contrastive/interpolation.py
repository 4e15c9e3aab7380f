"""Weights between those that a training began with and those that it ended with (WiSE-FT).

Fine-tuning gains on its own kind of data and loses elsewhere; weights on the line between start and
end often keep most of both (Wortsman et al., "Robust fine-tuning of zero-shot models",
https://arxiv.org/abs/2109.01903).
"""

import argparse
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from eva_backbone.checkpoints.run_folders import complete_checkpoints, of_checkpoint
from eva_contrastive.config import ContrastiveConfig
from eva_contrastive.model.loading import read_clip_weights
from eva_engine.checkpoints.files import WEIGHTS, read_config, save_weights
from eva_report.terminal import SHOWN
from eva_runs.commands import echo

logger = logging.getLogger(__name__)

FOLDER = "interpolated"


def interpolate(
    start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float
) -> dict[str, Tensor]:
    """Compute `(1 - share) * start + share * end` of each weight, in float32.

    Raises:
        ValueError: If names or shapes differ, naming the first that does.
    """
    for name in (*start, *end):
        first, last = (
            tuple(weights[name].shape) if name in weights else None for weights in (start, end)
        )
        if first != last:
            raise ValueError(
                f"start and end are of different models: {name} has shape {first} in the start "
                f"and {last} in the end"
            )
    return {name: torch.lerp(start[name].float(), end[name].float(), share) for name in end}


def write_mixtures(options: argparse.Namespace, sources: Mapping[str, Path]) -> None:
    """Write a file for each share of `eva clip interpolate`, with the notes of the end."""
    start, end = (read_clip_weights(sources[name]).tensors for name in ("start", "end"))
    notes = read_config(sources["end"])
    for share, file in zip(options.share, options.files, strict=True):
        save_weights(interpolate(start, end, share), file, notes)
        echo(f"{file}: {share:g} of {sources['end']}, {1 - share:g} of {sources['start']}")


def write_interpolated(
    config: ContrastiveConfig, first_weights: Callable[[], Mapping[str, Tensor]]
) -> None:
    """Write `interpolated/model.safetensors` of a run that has reached its end.

    It is computed from files alone, so a run that was stopped in between writes the same one when
    it is started again. `first_weights` reads those that the run began with.
    """
    if config.interpolation == 1:
        return
    newest = complete_checkpoints(config.run.output)[-1]
    end = of_checkpoint(newest, ema=False)
    file = config.run.output / FOLDER / WEIGHTS
    weights = interpolate(first_weights(), read_clip_weights(end).tensors, config.interpolation)
    save_weights(weights, file, read_config(end))
    share = f"{config.interpolation:g} of {newest.name}, the rest of the start"
    logger.info("between  %s (%s)", file, share, extra=SHOWN)
