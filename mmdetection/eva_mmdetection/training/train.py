"""Command line of `mmdetection/train.py`: mmengine's runner, with checks before it starts."""

from collections.abc import Sequence

from eva_mmdetection.data import own_data
from eva_openmmlab.command_line import training_parser

TASK = "mmdetection"
_EXAMPLES = """
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
    parser = training_parser(TASK, own_data, what="a detector", examples=_EXAMPLES)
    args = parser.read(arguments, check=own_data.check)
    from eva_openmmlab.programs import run_training

    run_training(args, own_data.apply, task=TASK, sections="eva_mmdetection.evaluation.sections")
