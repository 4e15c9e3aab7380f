"""Command line of `mmdetection/test.py`: scores a detector on the config's test set."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eva_mmdetection.data import own_data
from eva_openmmlab.config import command_line
from eva_openmmlab.config.words import USUAL_SETTINGS, AnyOrderParser
from eva_runs.commands import program_name

if TYPE_CHECKING:
    from mmengine.config import Config

TASK = "mmdetection"


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate weights as a config describes.

    Args:
        arguments: Command line; None for the one of the process.
    """
    args = command_line.parse(_parser(), arguments, task=TASK, check=own_data.check)
    from eva_openmmlab.training.programs import run_test

    run_test(
        args,
        _configure,
        program=program_name("test.py"),
        task=TASK,
        sections="eva_mmdetection.evaluation.sections",
    )


def _parser() -> argparse.ArgumentParser:
    parser = AnyOrderParser(
        prog=program_name("test.py"),
        usage="%(prog)s [CONFIG] WEIGHTS [flags] [KEY=VALUE ...]",
        description="Evaluate a detector.",
        settings=USUAL_SETTINGS,
    )
    command_line.add_shared_arguments(parser, task=TASK, scored=True)
    parser.add_argument(
        "--out", metavar="DIR", help="save the predictions there, in COCO's format for results"
    )
    parser.add_argument("--show-dir", metavar="DIR", help="save pictures with predictions there")
    own_data.add_arguments(parser, training=False)
    return parser


def _configure(args: argparse.Namespace) -> "Config":
    cfg = command_line.configure_test(args, own_data.apply)
    if args.out is not None:
        _save_predictions(cfg, Path(args.out))
    if args.show_dir is not None:
        folder = str(Path(args.show_dir).absolute())  # else below the logs
        cfg.default_hooks.visualization.update(draw=True, test_out_dir=folder)
    return cfg


def _save_predictions(cfg: "Config", folder: Path) -> None:
    if isinstance(cfg.test_evaluator, list):
        raise ValueError(f"--out goes with one metric, not with {len(cfg.test_evaluator)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--out {folder} is there already and not empty; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    cfg.test_evaluator.outfile_prefix = str(folder / "predictions")


if __name__ == "__main__":
    main()
