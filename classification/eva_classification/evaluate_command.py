"""Command line of `classification/evaluate.py`; what evaluates is imported when it is needed."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eva_backbone.checkpoints.registry import resolve_source
from eva_classification.model_options import add_classifier, require_images
from eva_engine.commands.options import (
    MAX_BAD_SAMPLES,
    add_arguments,
    add_max_bad_samples,
    command,
    new_parser,
    parse_with_weights,
)
from eva_runs.required_data import require_data

if TYPE_CHECKING:
    import torch

PROGRAM = "classification/evaluate.py"
SETS = {
    "imagenet": "ImageNet-1K val, a folder for each WordNet id",
    "real": "real.json of ImageNet-ReaL; labels --imagenet",
    "v2": "ImageNet-V2 matched frequency, folders 0 to 999",
    "a": "ImageNet-A",
    "r": "ImageNet-R",
    "sketch": "ImageNet-Sketch",
    "objectnet": "ObjectNet, with images and mappings",
}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = new_parser(
        PROGRAM,
        "Evaluate a classifier on ImageNet-1K and its variants, or on your own data. "
        "With several GPUs: torchrun --nproc-per-node N classification/evaluate.py ...",
    )
    add_classifier(parser, alone=True)
    parser.add_argument(
        "--data",
        help="your own: a folder of class folders, torchvision:NAME:ROOT:SPLIT or hf:NAME:SPLIT",
    )
    parser.add_argument("--classes", help="text file with the classes of --data in label order")
    for name, text in SETS.items():
        parser.add_argument(f"--{name}", type=Path, help=text)
    add_max_bad_samples(parser, unit="images of --data")
    add_arguments(parser)
    parser.add_argument("--output", type=Path, help="folder of results.json and pictures")
    options = parse_with_weights(parser, arguments)
    if options.data and any(getattr(options, name) for name in SETS):
        parser.error("--data is your own; evaluate ImageNet's sets in another run")
    if options.classes and not options.data:
        parser.error("--classes belongs to --data")
    if options.max_bad_samples != MAX_BAD_SAMPLES and not options.data:
        parser.error("--max-bad-samples belongs to --data: ImageNet's sets have to be complete")
    if not options.data and not any(getattr(options, name) for name in SETS):
        parser.error(f"nothing to evaluate: give --data or any of --{', --'.join(SETS)}")
    return options


def _evaluate(options: argparse.Namespace, device: "torch.device") -> None:
    from eva_classification.evaluating import evaluate

    evaluate(options, device)


def _check(options: argparse.Namespace) -> None:
    """Answer mistyped paths before torch is imported."""
    if options.data:
        require_images(options.data, name="--data")
    for name, forms in {"classes": "a text file of classes", **SETS}.items():
        if location := getattr(options, name):
            require_data(str(location), name=f"--{name}", forms=forms)
    resolve_source(options.weights)


main = command(PROGRAM, _parse, _evaluate, check=_check)


if __name__ == "__main__":
    main()
