"""Command lines of `mmdetection/train.py` and `test.py`: mmengine's runner, checked before."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from eva_mmdetection.data import own_data
from eva_openmmlab import command_line

if TYPE_CHECKING:
    from mmengine.config import Config

_EXAMPLES = """
Examples:

COCO from the official Objects365 weights, 64 GPUs:
    torchrun --nnodes 8 --nproc-per-node 8 ... mmdetection/train.py \\
        coco/cascade_mask_rcnn_eva_g_1280

Your own dataset in COCO's format, on one card of 24 GB:
    python mmdetection/train.py custom/cascade_mask_rcnn_eva_g_24gb \\
        --train-annotations train.json --train-images photos/train \\
        --val-annotations val.json --val-images photos/val

Continue a run:
    the same command with --resume; SIGTERM, SIGUSR1 and Ctrl-C save a checkpoint, code 75

The demo, on two CPU cores:
    python mmdetection/train.py demo/cascade_mask_rcnn_eva_debug
"""


def train(arguments: Sequence[str] | None = None) -> None:
    """Run the command line of `train.py`; None for the arguments of the process."""
    parser = command_line.train_parser("mmdetection", what="a detector", examples=_EXAMPLES)
    command_line.run(parser, arguments, own_data=own_data)


def evaluate(arguments: Sequence[str] | None = None) -> None:
    """Run the command line of `test.py`; None for the arguments of the process."""
    parser = command_line.test_parser(
        "mmdetection",
        what="a detector",
        predictions="the predictions, in COCO's format for results,",
    )
    command_line.run(parser, arguments, own_data=own_data, change=_change)


def _change(cfg: "Config", args: argparse.Namespace) -> None:
    if args.out is not None:
        command_line.require_empty(args.out)
        args.out.mkdir(parents=True, exist_ok=True)
        cfg.test_evaluator.outfile_prefix = str(args.out / "predictions")
    if args.show_dir is not None and args.slice is not None:
        raise ValueError("--show-dir does not go with --slice: `eva mmdetection demo` draws")
    if args.show_dir is not None:  # absolute, else below the logs
        folder = str(args.show_dir.absolute())
        cfg.default_hooks.visualization.update(draw=True, test_out_dir=folder)
