"""Command line of `segmentation/train.py`: mmengine's runner, with checks before it starts."""

import argparse
import os
import warnings
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmseg.registry import RUNNERS

from eva_segmentation.config.options import check_files, load_config, set_data_root
from eva_segmentation.data import custom_data
from eva_segmentation.training.checkpoint_files import has_run
from eva_segmentation.training.errors import RunError, building, sentences, settings
from eva_segmentation.training.runner import leave, used

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


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what training and evaluation have in common.

    Args:
        parser: Receives the arguments.
    """
    add = parser.add_argument
    add("config", help="config file, see segmentation/configs")
    add("--work-dir", metavar="DIR", help="folder of logs and checkpoints")
    add("--data-root", metavar="DIR", help="folder of the data set, in place of the config's")
    add(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        metavar="KEY=VALUE",
        help="settings of the config to replace, such as train_cfg.max_iters=5000",
    )
    # torchrun says in the environment that it started the process
    add(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="pytorch" if "TORCHELASTIC_RUN_ID" in os.environ else "none",
        help="what started the processes (default: found out for torchrun)",
    )
    add("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)


def configure(args: argparse.Namespace) -> Config:
    """Read the config and apply the shared arguments.

    Args:
        args: Command line with the flags of `add_shared_arguments`.

    Returns:
        The config.

    Raises:
        FileNotFoundError: If the config or a file of own data does not exist.
        ValueError: If an option does not belong to the config, or own data are wrong.
    """
    for known in ("The draw is False", "torch.meshgrid"):  # a user cannot do anything about them
        warnings.filterwarnings("ignore", message=known)
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get("work_dir") is None:
        cfg.work_dir = str(Path("work_dirs") / Path(args.config).stem)
    own = custom_data.apply(cfg, args)
    if args.data_root is not None:
        if own is not cfg:
            raise ValueError(
                f"--data-root {args.data_root} has no use beside folders of your own data"
            )
        set_data_root(cfg, args.data_root)
    return own


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
