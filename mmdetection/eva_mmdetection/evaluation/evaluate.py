"""Command line of `mmdetection/test.py`: scores a detector on the config's test set."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eva_mmdetection.data import own_data
from eva_openmmlab.command_line import test_parser

if TYPE_CHECKING:
    from mmengine.config import Config

TASK = "mmdetection"


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate weights as a config describes.

    Args:
        arguments: Command line; None for the one of the process.
    """
    parser = test_parser(TASK, own_data, what="a detector")
    add = parser.add_argument
    add("--out", metavar="DIR", help="save the predictions there, in COCO's format for results")
    add("--show-dir", metavar="DIR", help="save images with predictions there")
    args = parser.read(arguments, check=own_data.check)
    from eva_openmmlab.programs import run_test

    sections = "eva_mmdetection.evaluation.sections"
    run_test(args, own_data.apply, _change, task=TASK, sections=sections)


def _change(cfg: "Config", args: argparse.Namespace) -> None:
    if args.out is not None:
        _save_predictions(cfg, Path(args.out))
    if args.show_dir is not None:
        folder = str(Path(args.show_dir).absolute())  # else below the logs
        cfg.default_hooks.visualization.update(draw=True, test_out_dir=folder)


def _save_predictions(cfg: "Config", folder: Path) -> None:
    if isinstance(cfg.test_evaluator, list):
        raise ValueError(f"--out goes with one metric, not with {len(cfg.test_evaluator)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--out {folder} is there already and not empty; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    cfg.test_evaluator.outfile_prefix = str(folder / "predictions")
