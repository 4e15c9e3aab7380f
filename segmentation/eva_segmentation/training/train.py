"""Command line of `segmentation/train.py`: mmengine's runner, with checks before it starts."""

import argparse
from functools import partial

from eva_openmmlab.config import command_line
from eva_openmmlab.config.words import USUAL_SETTINGS, AnyOrderParser
from eva_runs.commands import program_name
from eva_segmentation.data import custom_data

TASK = "segmentation"
_EPILOG = """
Examples:

ADE20K from the official COCO-Stuff weights, 64 GPUs:
    torchrun --nnodes 8 --nproc-per-node 8 ... segmentation/train.py \\
        segmentation/configs/ade20k/mask2former_eva_g_896_20k.py

Your own images and label maps:
    python segmentation/train.py --train-images photos/train --train-maps maps/train \\
        --val-images photos/val --val-maps maps/val --classes classes.toml \\
        segmentation/configs/ade20k/mask2former_eva_g_512_24gb.py

Continue a run:
    the same command with --resume; SIGTERM and SIGUSR1 save a checkpoint and exit with code 75

The demo, on two CPU cores:
    python segmentation/train.py segmentation/configs/demo/mask2former_eva_debug.py
"""


def main(argv: list[str] | None = None) -> None:
    """Train as a config describes.

    Args:
        argv: Command line; None for the one of the process.
    """
    args = command_line.parse(_parser(), argv, task=TASK, check=custom_data.check)
    from eva_openmmlab.training.programs import run_training

    configure = partial(command_line.configure_training, own_data=custom_data.apply)
    run_training(
        args,
        configure,
        program=program_name("train.py"),
        task=TASK,
        sections="eva_segmentation.evaluation.sections",
    )


def _parser() -> argparse.ArgumentParser:
    parser = AnyOrderParser(
        prog=program_name("train.py"),
        usage="%(prog)s CONFIG [flags] [KEY=VALUE ...]",
        description="Train a segmentor.",
        settings=USUAL_SETTINGS,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command_line.add_shared_arguments(parser, task=TASK)
    command_line.add_training_arguments(parser)
    custom_data.add_arguments(parser)
    return parser


if __name__ == "__main__":
    main()
