"""Command line of `mmdetection/train.py`: mmengine's runner, with checks before it starts."""

import argparse
from collections.abc import Sequence
from functools import partial

from eva_mmdetection.data import own_data
from eva_openmmlab.config import command_line
from eva_openmmlab.config.words import USUAL_SETTINGS, AnyOrderParser
from eva_runs.commands import program_name

TASK = "mmdetection"
_EPILOG = """
Examples:

COCO from the official Objects365 weights, 64 GPUs:
    torchrun --nnodes 8 --nproc-per-node 8 ... mmdetection/train.py \\
        coco/cascade_mask_rcnn_eva_g_1280

Your own data set in COCO's format, on one card of 24 GB:
    python mmdetection/train.py custom/cascade_mask_rcnn_eva_g_24gb \\
        --train-annotations train.json --train-images photos/train \\
        --val-annotations val.json --val-images photos/val

Continue a run:
    the same command with --resume; SIGTERM and SIGUSR1 save a checkpoint and exit with code 75

The demo, on two CPU cores:
    python mmdetection/train.py demo/cascade_mask_rcnn_eva_debug
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as a config describes.

    Args:
        arguments: Command line; None for the one of the process.
    """
    args = command_line.parse(_parser(), arguments, task=TASK, check=own_data.check)
    from eva_openmmlab.training.programs import run_training

    configure = partial(command_line.configure_training, own_data=own_data.apply)
    run_training(
        args,
        configure,
        program=program_name("train.py"),
        task=TASK,
        sections="eva_mmdetection.evaluation.sections",
    )


def _parser() -> argparse.ArgumentParser:
    parser = AnyOrderParser(
        prog=program_name("train.py"),
        usage="%(prog)s CONFIG [flags] [KEY=VALUE ...]",
        description="Train a detector.",
        settings=USUAL_SETTINGS,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command_line.add_shared_arguments(parser, task=TASK)
    command_line.add_training_arguments(parser)
    own_data.add_arguments(parser)
    return parser


if __name__ == "__main__":
    main()
