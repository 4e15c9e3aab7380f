"""Command line of `segmentation/test.py`: scores a segmentor on the config's test set."""

import argparse
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmseg.registry import RUNNERS

from eva_backbone import no_init_weights
from eva_openmmlab.config.options import check_files
from eva_openmmlab.training.errors import building, sentences, settings
from eva_openmmlab.training.runner import leave
from eva_segmentation.config.command_line import add_shared_arguments, configure
from eva_segmentation.data import custom_data

WORK_DIR = "test"  # below the work folder of the training


def main(argv: list[str] | None = None) -> None:
    """Evaluate weights as a config describes.

    Args:
        argv: Command line; None for the one of the process.
    """
    parser = argparse.ArgumentParser(description="Evaluate a segmentor.")
    add_shared_arguments(parser)
    parser.add_argument("weights", help="name of an official file, or a path")
    parser.add_argument("--tta", action="store_true", help="several scales, by tta_pipeline")
    parser.add_argument("--out", metavar="DIR", help="save the predicted label maps there")
    parser.add_argument("--show-dir", metavar="DIR", help="save pictures with predictions there")
    custom_data.add_arguments(parser, training=False)
    args = parser.parse_args(argv)
    runner: Any = None
    with sentences("test.py", lambda: runner and Path(runner.work_dir), args.cfg_options):
        cfg = settings(_configure, args)
        with building(Path(cfg.work_dir)), no_init_weights():
            runner = RUNNERS.build(cfg)
        runner.test()
        leave()


def _configure(args: argparse.Namespace) -> Config:
    cfg = configure(args)
    cfg.load_from, cfg.resume = args.weights, False
    _set_work_dir(cfg, args)
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
    check_files(cfg, ("test_dataloader",))
    return cfg


def _set_work_dir(cfg: Config, args: argparse.Namespace) -> None:
    """Choose the folder; the config that the runner writes there must not replace another."""
    if args.work_dir is None:
        cfg.work_dir = str(Path(cfg.work_dir) / WORK_DIR)
    copy = Path(cfg.work_dir) / Path(args.config).name
    if copy.exists() and copy.samefile(args.config):
        raise ValueError(
            f"--work-dir {cfg.work_dir} holds {args.config}, which would be overwritten; name "
            "another folder"
        )


def _save_maps(cfg: Config, folder: Path) -> None:
    evaluator = cfg.test_evaluator
    if evaluator.get("type") not in ("IoUMetric", "IoUAndLabelMaps"):
        raise ValueError(f"--out goes with IoUMetric, not with test_evaluator {evaluator}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--out {folder} is there already and not empty; name another folder")
    dataset = cfg.test_dataloader.dataset
    images = dataset.get("images")
    if images is None:
        prefix = (dataset.get("data_prefix") or {}).get("img_path", "")
        images = str(Path(dataset.get("data_root") or "") / prefix)
    evaluator.update(type="IoUAndLabelMaps", maps=str(folder), images=images)
