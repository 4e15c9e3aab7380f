"""Command line of `segmentation/train.py`: mmengine's runner, with checks before it starts."""

from collections.abc import Sequence

from eva_openmmlab.command_line import training_parser
from eva_segmentation.data import custom_data

TASK = "segmentation"
_EXAMPLES = """
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as a config describes.

    Args:
        arguments: Command line; None for the one of the process.
    """
    parser = training_parser(TASK, custom_data, what="a segmentor", examples=_EXAMPLES)
    args = parser.read(arguments, check=custom_data.check)
    from eva_openmmlab.programs import run_training

    run_training(
        args, custom_data.apply, task=TASK, sections="eva_segmentation.evaluation.sections"
    )
