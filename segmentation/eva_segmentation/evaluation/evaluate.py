"""Command line of `segmentation/test.py`: scores a segmentor on the config's test set."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from eva_openmmlab.config import command_line
from eva_openmmlab.config.words import USUAL_SETTINGS, AnyOrderParser
from eva_runs.commands import program_name
from eva_segmentation.data import custom_data

if TYPE_CHECKING:
    from mmengine.config import Config

TASK = "segmentation"


def main(argv: list[str] | None = None) -> None:
    """Evaluate weights as a config describes.

    Args:
        argv: Command line; None for the one of the process.
    """
    args = command_line.parse(_parser(), argv, task=TASK, check=custom_data.check)
    from eva_openmmlab.training.programs import run_test

    run_test(
        args,
        _configure,
        program=program_name("test.py"),
        task=TASK,
        sections="eva_segmentation.evaluation.sections",
    )


def _parser() -> argparse.ArgumentParser:
    parser = AnyOrderParser(
        prog=program_name("test.py"),
        usage="%(prog)s [CONFIG] WEIGHTS [flags] [KEY=VALUE ...]",
        description="Evaluate a segmentor.",
        settings=USUAL_SETTINGS,
    )
    command_line.add_shared_arguments(parser, task=TASK, scored=True)
    parser.add_argument("--tta", action="store_true", help="several scales, by tta_pipeline")
    parser.add_argument("--out", metavar="DIR", help="save the predicted label maps there")
    parser.add_argument("--show-dir", metavar="DIR", help="save pictures with predictions there")
    custom_data.add_arguments(parser, training=False)
    return parser


def _configure(args: argparse.Namespace) -> "Config":
    cfg = command_line.configure_test(args, custom_data.apply)
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
    return cfg


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


if __name__ == "__main__":
    main()
