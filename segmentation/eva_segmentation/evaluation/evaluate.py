"""Command line of `segmentation/test.py`: scores a segmentor on the config's test set."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eva_openmmlab.command_line import test_parser
from eva_segmentation.data import custom_data

if TYPE_CHECKING:
    from mmengine.config import Config

TASK = "segmentation"


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate weights as a config describes.

    Args:
        arguments: Command line; None for the one of the process.
    """
    parser = test_parser(TASK, custom_data, what="a segmentor")
    add = parser.add_argument
    add("--tta", action="store_true", help="several scales, by tta_pipeline")
    add("--out", metavar="DIR", help="save the predicted label maps there")
    add("--show-dir", metavar="DIR", help="save images with predictions there")
    args = parser.read(arguments, check=custom_data.check)
    from eva_openmmlab.programs import run_test

    sections = "eva_segmentation.evaluation.sections"
    run_test(args, custom_data.apply, _change, task=TASK, sections=sections)


def _change(cfg: "Config", args: argparse.Namespace) -> None:
    if args.out is not None:
        _save_maps(cfg, Path(args.out))
    if args.show_dir is not None:
        cfg.default_hooks.visualization.update(draw=True)
        cfg.visualizer.save_dir = args.show_dir
    if args.tta:
        if not cfg.get("tta_model"):
            raise ValueError(f"{args.config} has no tta_pipeline; leave --tta out")
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        cfg.model = cfg.tta_model | dict(module=cfg.model)


def _save_maps(cfg: "Config", folder: Path) -> None:
    evaluator = cfg.test_evaluator
    if evaluator.get("type") not in ("IoUMetric", "IoUAndConfusion", "IoUAndLabelMaps"):
        raise ValueError(f"--out goes with IoUMetric, not with test_evaluator {evaluator}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--out {folder} is there already and not empty; name another folder")
    dataset = cfg.test_dataloader.dataset
    images = dataset.get("images")
    if images is None:
        prefix = (dataset.get("data_prefix") or {}).get("img_path", "")
        images = str(Path(dataset.get("data_root") or "") / prefix)
    evaluator.update(type="IoUAndLabelMaps", maps=str(folder), images=images)
