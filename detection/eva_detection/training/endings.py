"""How a process of a run begins and ends: its log, its folder, and one sentence for what failed."""

import argparse
import contextlib
import errno
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import torch
from detectron2.config import LazyConfig
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig

from eva_data.files import make_folder, replacing
from eva_data.interruption import EXIT_KEYBOARD
from eva_data.run_folder import locked
from eva_detection.config.files import load_config_file
from eva_detection.config.settings import describe
from eva_detection.data.stream import UnreadableImagesError
from eva_detection.training.agreement import OtherProcessError, together
from eva_detection.training.run_files import LAST, check_unused, repair_metrics, saved_progress

logger = logging.getLogger(__name__)

PROGRAM = "train_net.py"
LOGGERS = ("fvcore", "detectron2", "eva_backbone", "eva_data", "eva_detection")
# What says itself what is wrong; the traceback of anything else is for whoever mends it.
_EXPLAINED = (ValueError, OSError, FloatingPointError, UnreadableImagesError)
_AGREED = (FloatingPointError, UnreadableImagesError)  # the same on all processes
_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


class RunLog:
    """Where the run's log is, once it is there."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.trains = False

    @property
    def file(self) -> Path | None:
        """The log of this process."""
        if self.folder is None:
            return None
        rank = comm.get_rank()
        return self.folder / (f"log.txt.rank{rank}" if rank else "log.txt")


@contextlib.contextmanager
def one_sentence(log: RunLog) -> Iterator[None]:
    """Context that ends the process with a sentence and an exit code, whatever is raised in it.

    The traceback goes to the log of this process. Where several processes have met the same, one
    says it.

    Args:
        log: Where the log is.

    Raises:
        SystemExit: With the sentence (code 1), or 130 for Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        if comm.is_main_process():
            say(f"stopped by Ctrl-C{_progress(log)}")
        raise SystemExit(EXIT_KEYBOARD) from None
    except Exception as error:
        if log.folder is not None:
            logger.exception("This process ends with an error:")
        elif not isinstance(error, (*_EXPLAINED, OtherProcessError)):
            raise  # of our own, and there is no log yet
        said_elsewhere = isinstance(error, _AGREED) and not comm.is_main_process()
        if isinstance(error, OtherProcessError) or said_elsewhere:
            raise SystemExit(1) from None
        raise SystemExit(f"{PROGRAM}: {_sentence(error, log)}") from None  # code 1, printed


def leave_gloo() -> None:
    """Leave a process group of CPU processes: gloo may abort one that ends as its member.

    NCCL's is left to the end of the process: after an error, leaving it could wait for others.
    """
    if comm.get_world_size() > 1 and torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()


def say(sentence: str) -> None:
    """Print what ends the program.

    Args:
        sentence: Without the program's name.
    """
    sys.stderr.write(f"{PROGRAM}: {sentence}\n")
    sys.stderr.flush()


def _sentence(error: Exception, log: RunLog) -> str:
    full = isinstance(error, OSError) and error.errno in _OF_WRITING
    if isinstance(error, _AGREED) or (isinstance(error, _EXPLAINED) and not full):
        text = str(error).strip() if isinstance(error, _AGREED) else describe(error)
    elif full:
        text = describe(error)
        if log.folder is not None and str(log.folder) not in text:
            text = f"{log.folder} cannot be written: {getattr(error, 'strerror', None) or text}"
        return text + _progress(log)
    else:
        rank = f" on process {comm.get_rank()}" if comm.get_world_size() > 1 else ""
        text = f"an unexpected error{rank}: {describe(error)}"
    return f"{text} (log: {log.file})" if log.folder is not None else text


def _progress(log: RunLog) -> str:
    """What is saved of the run, and how to go on."""
    if log.folder is None or not log.trains:
        return ""
    return f"; {saved_progress(log.folder)}; the same command with --resume goes on from there"


class _WithoutTracebacks(logging.Filter):
    """Keeps tracebacks off a terminal; the file has them."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.exc_info


def start_log(cfg: DictConfig, args: argparse.Namespace) -> None:
    """What detectron2's `default_setup` does; the config is saved completely or not at all.

    An evaluation in the folder of a run leaves the run's config as it is.

    Args:
        cfg: The config.
        args: The command line, for the log.
    """
    folder, rank = cfg.train.output_dir, comm.get_rank()
    for name in LOGGERS:
        target = setup_logger(folder, distributed_rank=rank, name=name)
        for handler in target.handlers:
            if getattr(handler, "stream", None) in (sys.stdout, sys.stderr):
                handler.addFilter(_WithoutTracebacks())
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


@contextlib.contextmanager
def claimed(folder: Path, *, trains: bool, resume: bool) -> Iterator[None]:
    """Context in which the output folder belongs to this run.

    Args:
        folder: The folder.
        trains: False for an evaluation, which may write into any run's folder.
        resume: Continue a run in it.

    Raises:
        ValueError: If another run uses it, or has used it and this is not its continuation.
        UnwritableError: If it is a file, or nothing can be written in it.
        OtherProcessError: On the other processes.
    """
    with contextlib.ExitStack() as stack:

        def claim() -> None:
            if not comm.is_main_process():
                return
            if not trains:
                make_folder(folder)
                return
            stack.enter_context(locked(folder))
            if not resume:
                check_unused(folder)
            repair_metrics(folder)

        together(claim)
        yield
