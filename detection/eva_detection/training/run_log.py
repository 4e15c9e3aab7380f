"""The log of a run, one file for each process, and the config that it saves."""

import argparse
import logging
import threading
from pathlib import Path

import torch
from detectron2.config import LazyConfig
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from omegaconf import DictConfig

from eva_data.files import replacing
from eva_detection.config.files import load_config_file
from eva_detection.training.output_folder import LAST
from eva_report.terminal import WARNINGS, FileFormatter, TerminalHandler

logger = logging.getLogger(__name__)

LOGGERS = ("fvcore", "detectron2", "eva_backbone", "eva_data", "eva_detection")


def log_to(folder: Path, rank: int) -> None:
    """Let everything go to the log of a process, and what a user wants to see to the terminal.

    Warnings of libraries, which a user cannot act on, go to the log alone; the first one of a
    module of the user's own is shown, see `eva_report.terminal`.

    Args:
        folder: The run's output folder.
        rank: Number of the process; the first one alone writes to the terminal.
    """
    name = f"log.txt.rank{rank}" if rank else "log.txt"
    file = logging.FileHandler(folder / name, encoding="utf-8", errors="backslashreplace")
    file.setFormatter(FileFormatter())
    handlers: list[logging.Handler] = [file] if rank else [file, TerminalHandler()]
    for name in LOGGERS:
        target = logging.getLogger(name)
        target.setLevel(logging.DEBUG)
        target.propagate = False
        target.handlers[:] = handlers
    logging.root.addHandler(file)
    logging.getLogger("torch").handlers[:] = [file]  # it has a handler of its own
    logging.getLogger(WARNINGS).handlers[:] = handlers[1:]  # the file has them from the root
    logging.captureWarnings(True)


def start_log(cfg: DictConfig, args: argparse.Namespace) -> None:
    """Do what detectron2's `default_setup` does, and save the config completely or not at all.

    An evaluation in the folder of a run leaves the run's config as it is.

    Args:
        cfg: The config.
        args: The command line, for the log.
    """
    folder, rank = cfg.train.output_dir, comm.get_rank()
    log_to(Path(folder), rank)
    logging.raiseExceptions = False  # a full disk is said once, by what is written besides the log
    threading.excepthook = lambda hook: logger.error(
        "A thread has failed: %s",
        hook.exc_value,
        exc_info=(hook.exc_type, hook.exc_value or hook.exc_type(), hook.exc_traceback),
    )
    logger.info("Rank of current process: %d. World size: %d", rank, comm.get_world_size())
    logger.info("Environment info:\n%s", collect_env_info())
    logger.info("Command line arguments: %s", args)
    text = Path(args.config_file).read_text(encoding="utf-8", errors="replace")
    logger.info("Contents of args.config_file=%s:\n%s", args.config_file, text)
    if comm.is_main_process() and not (args.eval_only and (Path(folder) / LAST).exists()):
        _save_config(cfg, Path(folder) / "config.yaml")
    seed = cfg.train.get("seed", -1)
    seed_all_rng(None if seed is None or seed < 0 else seed + rank)
    if not args.eval_only:
        torch.backends.cudnn.benchmark = bool(cfg.train.get("cudnn_benchmark", False))


def _save_config(cfg: DictConfig, file: Path) -> None:
    with replacing(file) as part:
        LazyConfig.save(cfg, str(part))
        part.with_name(f"{part.name}.pkl").unlink(missing_ok=True)  # for what YAML cannot hold
        if not part.exists():
            part.write_text("# a value of this config cannot be written as YAML, see the log\n")
        try:
            load_config_file(part)
        except ValueError as error:
            logger.warning("%s cannot be read again: %s", file, error)
    logger.info("Full config saved to %s", file)
