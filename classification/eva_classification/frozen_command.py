"""Command line of `classification/evaluate_frozen.py`; what evaluates is imported when needed."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from eva_backbone.checkpoints.registry import resolve_source
from eva_classification.model_options import add_extractor, require_images
from eva_engine.commands.options import (
    add_arguments,
    add_frozen,
    add_weights,
    command,
    new_parser,
    parse_with_weights,
)

if TYPE_CHECKING:
    import torch

PROGRAM = "classification/evaluate_frozen.py"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = new_parser(
        PROGRAM,
        "A quick check of pre-trained weights: the backbone is frozen, its features of "
        "labelled images are computed once, and nearest neighbours and a linear classifier are "
        "scored. The penalty of the linear classifier is chosen on a fifth of --train.",
    )
    add_weights(parser, kinds="of any task", alone=True)
    add_extractor(parser)
    add_frozen(parser, data="folder of class folders, torchvision:... or hf:...")
    add_arguments(parser)
    options = parse_with_weights(parser, arguments)
    if not options.neighbours and not options.l2:
        parser.error("nothing to score: both --neighbours and --l2 are empty")
    return options


def _evaluate(options: argparse.Namespace, device: "torch.device") -> None:
    from eva_classification.frozen_scoring import evaluate

    evaluate(options, device)


def _check(options: argparse.Namespace) -> None:
    """Answer mistyped paths before torch is imported."""
    for name in ("train", "val"):
        require_images(getattr(options, name), name=f"--{name}")
    resolve_source(options.weights)


main = command(PROGRAM, _parse, _evaluate, check=_check)


if __name__ == "__main__":
    main()
