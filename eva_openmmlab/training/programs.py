"""What `train.py` and `test.py` of the projects do once their command line is read."""

import argparse
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from eva_backbone import no_init_weights
from eva_data.reports.provenance import Kind
from eva_openmmlab.config.options import check_files
from eva_openmmlab.training.checkpoint_files import has_run
from eva_openmmlab.training.errors import RunError, building, sentences, settings
from eva_openmmlab.training.runner import leave, used

Configure = Callable[[argparse.Namespace], Config]
Report = Callable[[Runner, Kind], Path | None]  # writes the page of a run that has ended
_PACKAGES = ("eva_openmmlab", "eva_mmdetection", "eva_segmentation")


@contextmanager
def notes() -> Iterator[Callable[[logging.Logger], None]]:
    """Keep what the projects note while a run is configured, before it has a log.

    Yields:
        Function that writes the notes into the log of the run.
    """
    kept = BufferingHandler(1000)
    loggers = [logging.getLogger(name) for name in _PACKAGES]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(kept)
        logger.setLevel(logging.INFO)

    def write(log: logging.Logger) -> None:
        for record in kept.buffer:
            log.handle(record)

    try:
        yield write
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(kept)
            logger.setLevel(level)


def run_training(
    args: argparse.Namespace, configure: Configure, *, program: str, report: Report | None = None
) -> None:
    """Train as a command line describes.

    Args:
        args: The command line, with the flags of `eva_openmmlab.config.command_line`.
        configure: Function that reads its config.
        program: Name that begins a refusal.
        report: Function that writes the report of the run; None for no report.

    Raises:
        SystemExit: With one sentence for what the user can fix, or after a signal.
    """
    runner: Any = None
    with (
        sentences(program, lambda: runner and Path(runner.work_dir), args.cfg_options),
        notes() as write_notes,
    ):
        cfg = settings(configure, args)
        settings(check_files, cfg, ("train_dataloader", "val_dataloader"))
        if not cfg.resume and has_run(Path(cfg.work_dir)):
            raise RunError(used(Path(cfg.work_dir)))
        with building(Path(cfg.work_dir)):
            runner = RUNNERS.build(cfg)
        write_notes(runner.logger)
        runner.train()
        _report(runner, "training", report)
        leave()


def run_test(
    args: argparse.Namespace, configure: Configure, *, program: str, report: Report | None = None
) -> None:
    """Score weights as a command line describes.

    Args:
        args: The command line, with the flags of `eva_openmmlab.config.command_line`.
        configure: Function that reads its config.
        program: Name that begins a refusal.
        report: Function that writes the report of the run; None for no report.

    Raises:
        SystemExit: With one sentence for what the user can fix.
    """
    runner: Any = None
    with (
        sentences(program, lambda: runner and Path(runner.work_dir), args.cfg_options),
        notes() as write_notes,
    ):
        cfg = settings(configure, args)
        settings(check_files, cfg, ("test_dataloader",))
        with building(Path(cfg.work_dir)), no_init_weights():
            runner = RUNNERS.build(cfg)
        write_notes(runner.logger)
        runner.test()
        _report(runner, "evaluation", report)
        leave()


def _report(runner: Runner, kind: Kind, report: Report | None) -> Path | None:
    """Write the page of a run on the main process, where there is a function for it."""
    return report(runner, kind) if report is not None and is_main_process() else None
