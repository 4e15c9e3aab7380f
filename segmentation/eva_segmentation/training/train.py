"""Command line of `segmentation/train.py`: mmengine's runner, with checks before it starts."""

import argparse
from pathlib import Path
from typing import Any

from mmseg.registry import RUNNERS

from eva_openmmlab.config.options import check_files
from eva_openmmlab.training.checkpoint_files import has_run
from eva_openmmlab.training.errors import RunError, building, sentences, settings
from eva_openmmlab.training.runner import leave, used
from eva_segmentation.config.command_line import add_shared_arguments, configure
from eva_segmentation.data import custom_data

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
    parser = argparse.ArgumentParser(
        description="Train a segmentor.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_shared_arguments(parser)
    parser.add_argument(
        "--load-from",
        metavar="NAME_OR_FILE",
        help="weights to start from, in place of the config's",
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the run of the work folder, if there is one"
    )
    custom_data.add_arguments(parser)
    args = parser.parse_args(argv)
    runner: Any = None
    with sentences("train.py", lambda: runner and Path(runner.work_dir), args.cfg_options):
        cfg = settings(configure, args)
        if args.resume:
            cfg.resume = True
        if args.load_from is not None:
            cfg.load_from = args.load_from
        settings(check_files, cfg, ("train_dataloader", "val_dataloader"))
        if not cfg.resume and has_run(Path(cfg.work_dir)):
            raise RunError(used(Path(cfg.work_dir)))
        with building(Path(cfg.work_dir)):
            runner = RUNNERS.build(cfg)
        runner.train()
        leave()
