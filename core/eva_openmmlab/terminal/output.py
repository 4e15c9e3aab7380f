"""The terminal and the log of a program on mmengine: a few lines here, everything in `log.txt`.

mmengine's logger, Python's loggers and warnings, and what the frameworks print go to the log. The
terminal shows warnings that a user can act on, and what is logged with `extra=SHOWN`.
"""

import contextlib
import logging
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

from eva_data.files import explained, make_folder
from eva_data.progress import ProgressBar
from eva_report.terminal import SHOWN, WARNINGS, FileFormatter, ForTerminal, TerminalFormatter

LOG = "log.txt"
OURS = ("eva_backbone", "eva_data", "eva_mmdetection", "eva_openmmlab", "eva_segmentation")
_FRAMEWORKS = {"faster_coco_eval", "mmcv", "mmdet", "mmengine", "mmseg", "pycocotools"}
_OFTEN = 2  # times that a warning is shown; the log has them all
_RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")  # of torchrun, Slurm, Open MPI
# frameworks about themselves: nothing that a user could change
_NOISE = re.compile(
    r"The prefix is not set in metric class|\"FileClient\"|\"HardDiskBackend\"|Could not import|"
    r"Failed to search registry|Failed to import|init_weights of|.* is deprecated|"
    r"The testing results of the .* dataset is empty|Since `metrics` is an empty dict|"
    r"Failed to add .*LocalVisBackend|The \"log_processor\"|`?\w+`? is not (found|installed)"
)
logger = logging.getLogger(__name__)
_printed = logging.getLogger(f"{__name__}.printed")
_current: "Output | None" = None


class Output:
    """Where the messages of a program go; `quiet` makes one.

    Attributes:
        bars: Open bars, which an error closes too.
    """

    def __init__(self) -> None:
        self.bars: list[ProgressBar] = []
        self._terminal = _Terminal()
        self._kept = MemoryHandler(10_000, flushLevel=logging.CRITICAL + 1)  # until there is a file
        self._kept.addFilter(_is_worth_keeping)

    @property
    def handlers(self) -> list[logging.Handler]:
        """Handlers of all loggers of the program."""
        return [self._terminal, self._kept]

    def say(self, lines: list[str]) -> None:
        """Show lines, on the main process.

        Args:
            lines: Lines for the terminal and the log.
        """
        for line in lines:
            logger.info("%s", line, extra=dict(SHOWN))

    def write_to(self, folder: Path) -> None:
        """Write what was logged so far, and what follows, to the log of a work folder.

        Args:
            folder: The work folder; only the main process writes.

        Raises:
            UnwritableError: If the disk is full or the folder read-only, for example.
        """
        target: logging.Handler = logging.NullHandler()
        if is_first_process():
            make_folder(folder)
            with explained(folder / LOG):
                target = logging.FileHandler(folder / LOG, encoding="utf-8")
            target.setFormatter(FileFormatter())
        self._kept.setTarget(target)
        self._kept.capacity = 1  # every record at once
        self._kept.flush()

    def take(self, mmlogger: logging.Logger) -> None:
        """Let a logger of mmengine, which stands outside Python's tree, write here.

        Args:
            mmlogger: The logger.
        """
        for handler in mmlogger.handlers:
            if handler not in self.handlers:
                mmlogger.setLevel(handler.level if is_first_process() else logging.ERROR)
                handler.close()
        mmlogger.handlers[:] = self.handlers

    def close(self) -> None:
        """Close bars and the file."""
        for bar in self.bars:
            bar.close()
        target = self._kept.target
        self._kept.close()
        if target is not None:
            target.close()


class _Terminal(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.NOTSET if is_first_process() else logging.ERROR)
        self.addFilter(ForTerminal())
        self.setFormatter(TerminalFormatter())
        self._seen: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record, unless it is noise or was shown before."""
        if record.levelno >= logging.WARNING and record.name != WARNINGS:
            if _NOISE.match(record.getMessage()):
                return
            text = str(record.msg)
            kind = record.getMessage() if text.replace("%s", "").strip(" :") == "" else text
            self._seen[kind] += 1
            if self._seen[kind] > _OFTEN:
                return
        with contextlib.suppress(OSError, ValueError):  # a terminal that is gone ends no run
            ProgressBar.write(self.format(record))


class _Prints:
    """Standard output, where the lines that the frameworks print go to the log.

    What a user's own modules print stays.

    Args:
        stream: The standard output.
    """

    def __init__(self, stream: Any) -> None:
        self._stream, self._begun = stream, ""

    def write(self, text: str) -> int:
        """Write, or log what comes from a framework."""
        caller = str(sys._getframe(1).f_globals.get("__name__"))
        if caller.partition(".")[0] not in _FRAMEWORKS:
            return int(self._stream.write(text)) if self._stream is not None else len(text)
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if line.strip():
                _printed.info("%s", line)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_worth_keeping(record: logging.LogRecord) -> bool:
    """Leave out how each parameter was initialised: mmengine's thousand records of four lines."""
    return record.funcName != "_dump_init_info"


@contextlib.contextmanager
def quiet() -> Iterator[Output]:
    """Keep the messages of a program from its terminal.

    Yields:
        The output, which keeps what is logged until `write_to` names a folder.
    """
    global _current
    before, stdout, output = _current, sys.stdout, Output()
    root, own = logging.getLogger(), [logging.getLogger(name) for name in OURS]
    levels = [one.level for one in own]
    for one in own:
        one.setLevel(logging.INFO)
    for handler in output.handlers:
        root.addHandler(handler)
    logging.captureWarnings(True)
    _current, sys.stdout = output, _Prints(stdout)
    try:
        yield output
    finally:
        _current, sys.stdout = before, stdout
        logging.captureWarnings(False)
        for handler in output.handlers:
            root.removeHandler(handler)
        for one, level in zip(own, levels, strict=True):
            one.setLevel(level)
        output.close()


def take(mmlogger: logging.Logger) -> None:
    """Let a logger of mmengine write where the messages of the program go, if it is one of ours.

    Args:
        mmlogger: The logger of a runner.
    """
    if _current is not None:
        _current.take(mmlogger)


def say(sentence: str, mmlogger: logging.Logger) -> None:
    """Show a sentence.

    Args:
        sentence: The sentence.
        mmlogger: The logger of a runner, which has it under programs that are not ours.
    """
    if _current is not None:
        _current.say([sentence])
    else:
        mmlogger.info("%s", sentence)


def log_file(folder: Path) -> Path | None:
    """Return the log of a work folder; None under programs that keep mmengine's own.

    Args:
        folder: The work folder.
    """
    return folder / LOG if _current is not None else None


def is_first_process() -> bool:
    """Return whether this is the main process, before mmengine knows it."""
    return _rank() == 0


def _rank() -> int:
    return next((int(os.environ[name]) for name in _RANKS if os.environ.get(name)), 0)
