"""Command line that training and evaluation share, and the config that it describes."""

import argparse
import os
import warnings
from pathlib import Path

from mmengine.config import Config, DictAction

from eva_openmmlab.config.options import load_config, set_data_root
from eva_segmentation.data import custom_data


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
