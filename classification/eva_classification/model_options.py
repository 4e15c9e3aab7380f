"""Options of models that several commands share: a classifier, a feature extractor."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from eva_backbone.variants import POOLINGS
from eva_data.classes import find_class_folders
from eva_engine.commands.options import add_weights
from eva_runs.required_data import require_data

if TYPE_CHECKING:  # the options alone need no torch
    import torch

    from eva_classification.features import FeatureExtractor

FORMS = "a folder of class folders, torchvision:NAME:ROOT:SPLIT or hf:NAME:SPLIT"


def require_images(location: str, *, name: str) -> None:
    """Refuse a place where no labelled images can be, before anything heavy is imported.

    Args:
        location: One of `FORMS`.
        name: Option or setting that names it.

    Raises:
        ValueError: If nothing is there, or a folder without class folders.
    """
    require_data(location, name=name, forms=FORMS)
    if not location.startswith(("torchvision:", "hf:")):
        find_class_folders(Path(location), warn=False)


def add_classifier(
    parser: argparse.ArgumentParser, *, alone: bool = False, first: bool = False
) -> None:
    """Add the options of a classifier, and of how it sees pictures.

    Args:
        parser: Parser that receives them.
        alone: As for `eva_engine.commands.options.add_weights`.
        first: As there.
    """
    add_weights(parser, alone=alone, first=first)
    add = parser.add_argument
    add("--variant", help="size of the ViT, if the weights do not say")
    add("--crop-pct", type=float, help="default: the run's, else 1 as published")


def add_extractor(parser: argparse.ArgumentParser) -> None:
    """Add the options from which `build_extractor` builds an extractor, besides those of weights.

    Args:
        parser: Parser that receives them.
    """
    add = parser.add_argument
    add("--pooling", choices=POOLINGS, help="default: what the weights were trained for")
    add("--num-heads", type=int, help="attention heads, if the size of the weights is unusual")
    add("--window-size", type=int, help="in patches, of detectors that do not note it; 0: none")
    add("--global-blocks", type=int, nargs="*", help="blocks without windows, with --window-size")


def build_extractor(options: argparse.Namespace, device: "torch.device") -> "FeatureExtractor":
    """Build the extractor of a command line.

    Args:
        options: Options of `add_extractor`, and `add_weights` and `add_arguments` of
            `eva_engine.commands.options`.
        device: Device of the extractor.

    Returns:
        The extractor.

    Raises:
        ValueError: As `FeatureExtractor.from_weights`.
        FileNotFoundError: As there.
    """
    from eva_classification.features import FeatureExtractor

    vit = {
        "num_heads": options.num_heads,
        "window_size": options.window_size,
        "global_attn_indexes": options.global_blocks,
    }
    return FeatureExtractor.from_weights(
        options.weights,
        image_size=options.image_size,
        pooling=options.pooling,
        mean=options.mean,
        std=options.std,
        device=str(device),
        precision=options.precision,
        **{name: value for name, value in vit.items() if value is not None},
    )
