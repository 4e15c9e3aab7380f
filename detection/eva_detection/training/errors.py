"""The end of a process by an error: one sentence, a traceback in the log, an exit code."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from detectron2.utils import comm

from eva_data.files import OF_WRITING
from eva_detection.building import describe
from eva_detection.data.stream import UnreadableImagesError
from eva_detection.training.agreement import OtherProcessError
from eva_detection.training.output_folder import SAYS, saved_progress
from eva_report.terminal import SHOWN
from eva_runs.commands import program_name
from eva_runs.interruption import EXIT_KEYBOARD

logger = logging.getLogger(__name__)

_PROGRAM = "train_net.py"
# Errors whose message is enough; anything else needs its traceback.
_EXPLAINED = (ValueError, OSError, FloatingPointError, UnreadableImagesError)
_AGREED = (FloatingPointError, UnreadableImagesError)  # the same on all processes


class LogPlace:
    """Place of the run's log, once there is one."""

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
def one_sentence(log: LogPlace) -> Iterator[None]:
    """End the process with a sentence and an exit code, whatever is raised in the block.

    The traceback goes to the log of this process. Where several processes have met the same, one
    prints it.

    Args:
        log: Place of the log.

    Raises:
        SystemExit: With the sentence (code 1), or 130 for Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        if comm.is_main_process():
            _say_stopped(log)
        raise SystemExit(EXIT_KEYBOARD) from None
    except Exception as error:
        if log.folder is not None:
            logger.exception("This process ends with an error:")
        elif not isinstance(error, (*_EXPLAINED, OtherProcessError)):
            raise  # our own bug, before there is a log
        said_elsewhere = isinstance(error, _AGREED) and not comm.is_main_process()
        if isinstance(error, OtherProcessError) or said_elsewhere:
            raise SystemExit(1) from None
        sentence = f"{program_name(_PROGRAM)}: {_sentence(error, log)}"
        raise SystemExit(sentence) from None  # code 1, printed


def leave_gloo() -> None:
    """Leave a process group of CPU processes: gloo may abort one that ends as its member.

    NCCL's is left to the end of the process: after an error, leaving it could wait for others.
    """
    if comm.get_world_size() > 1 and torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()


def say(sentence: str) -> None:
    """Print what ends the program.

    Args:
        sentence: Text without the program's name.
    """
    sys.stderr.write(f"{program_name(_PROGRAM)}: {sentence}\n")
    sys.stderr.flush()


def _sentence(error: Exception, log: LogPlace) -> str:
    full = isinstance(error, OSError) and error.errno in OF_WRITING
    if isinstance(error, _AGREED) or (isinstance(error, _EXPLAINED) and not full):
        text = str(error).strip() if isinstance(error, _AGREED) else describe(error)
        if isinstance(error, FloatingPointError):
            text += _progress(log)
    elif full:
        text = describe(error)
        if log.folder is not None and str(log.folder) not in text:
            text = f"{log.folder} cannot be written: {getattr(error, 'strerror', None) or text}"
        return text + _progress(log)
    else:
        rank = f" on process {comm.get_rank()}" if comm.get_world_size() > 1 else ""
        text = f"an unexpected error{rank}: {describe(error)}"
    kept = log.file is not None and log.file.exists()  # a run that is refused leaves none
    return f"{text} (log: {log.file})" if kept else text


def _say_stopped(log: LogPlace) -> None:
    """Say that Ctrl-C has ended a run, and what is saved of a training."""
    if log.folder is None or not log.trains:
        say("stopped by Ctrl-C")
    else:
        logger.info(SAYS.stopped("Ctrl-C", saved_progress(log.folder)), extra=SHOWN)


def _progress(log: LogPlace) -> str:
    """Say what is saved of the run, and how to go on."""
    if log.folder is None or not log.trains:
        return ""
    return f"; {saved_progress(log.folder)}"
