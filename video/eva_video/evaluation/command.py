"""Command line of `video/evaluate.py`; what evaluates is imported when it is needed."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from eva_backbone.checkpoints.registry import resolve_source
from eva_data.classes import read_class_list
from eva_data.kinetics import SOURCES
from eva_data.video.source import BACKENDS
from eva_engine.commands.options import (
    add_arguments,
    add_weights,
    command,
    new_parser,
    parse_with_weights,
)
from eva_engine.config import LARGEST_SEED
from eva_runs.options import integer
from eva_runs.required_data import require_data
from eva_video.config import MOST_FRAMES, Kind

if TYPE_CHECKING:
    import torch

PROGRAM = "video/evaluate.py"
KINDS = get_args(Kind)
_EXAMPLES = """
4 clips x 3 crops as in the paper, whose clips were drawn at random (--draws random):
    python video/evaluate.py --weights eva_video_k400.pth --data lists/k400_val.csv \\
        --root kinetics400/val --output output/k400

Kinetics-600 from the model of all three, on 8 GPUs:
    torchrun --nproc-per-node 8 video/evaluate.py --weights eva_video_k722.pth --subset k600 \\
        --data lists/k600_val.csv --root kinetics600/val

OUTPUT receives results.json, per_class.csv, confusion.png, and videos.jsonl: a line for each video
with its label, its first five classes and what each view gave.
"""


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = new_parser(
        PROGRAM,
        "Evaluate a classifier of videos. Each video is decoded once, its views go through the "
        "model as one batch, and their probabilities are added up.",
        epilog=_EXAMPLES,
    )
    add_weights(parser, alone=True)
    add = parser.add_argument
    add("--variant", help="size of the ViT, if the weights do not say")
    add("--frames", type=integer(1, MOST_FRAMES), help="of a clip (default: the weights')")
    add("--data", required=True, help="list of videos, folder of class folders or shards")
    add("--root", help="folder that the paths of a list begin in (default: the list's)")
    add("--classes", help="text file with the classes in label order (default: the weights')")
    add("--subset", choices=SOURCES, help="data set whose classes compete, of merged weights")
    add("--backend", choices=BACKENDS, default=BACKENDS[0], help="decoder (default: %(default)s)")
    one = integer(1)
    add("--clips", type=one, default=4, help="views in time (default: %(default)s)")
    add("--crops", type=int, choices=(1, 3), default=3, help="views in space (default: 3)")
    add(
        "--draws",
        choices=("fixed", "random"),
        default="fixed",
        help="fixed: clips spread evenly; random: as officially, drawn by --seed and video",
    )
    add("--seed", type=integer(0, LARGEST_SEED), help="of --draws random (default: 0)")
    add("--sampling", choices=KINDS, help="of frames (default: that of the weights' training)")
    add("--frame-interval", type=one, help="of --sampling dense (default: as in the training)")
    add("--views-per-forward", type=one, help="for less memory (default: those of a batch)")
    add("--skip-unreadable", action="store_true", help="leave out and name what cannot be read")
    add_arguments(parser, batch_size=1)
    add("--output", type=Path, help="folder of the results")
    options = parse_with_weights(parser, arguments)
    if options.sampling == "tsn" and options.frame_interval is None:
        options.frame_interval = 1  # and not what weights of a dense training note
    if options.seed is not None and options.draws == "fixed":
        parser.error("--seed has no effect without --draws random")
    if options.subset and options.classes:
        parser.error("--subset names its classes: leave --classes out")
    return options


def _evaluate(options: argparse.Namespace, device: "torch.device") -> None:
    from eva_video.evaluation.evaluating import evaluate

    evaluate(options, device)


def _check(options: argparse.Namespace) -> None:
    """Answer mistyped paths before torch is imported."""
    resolve_source(options.weights)
    require_data(options.data, name="--data", forms="class folders, lists or shards")
    if options.classes is not None:
        read_class_list(options.classes)


main = command(PROGRAM, _parse, _evaluate, check=_check)


if __name__ == "__main__":
    main()
