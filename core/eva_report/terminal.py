"""What a run says on the terminal: a few lines and a bar. Everything else is in its log.

A record of a log reaches the terminal if it is a warning, or was logged with `extra=SHOWN`. Of what
Python's `warnings` say, those are few: what libraries warn of, a user cannot act on.
"""

import contextlib
import logging
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from eva_data.files import display_path
from eva_data.progress import ProgressBar
from eva_runs.processes import is_main
from eva_runs.record import duration_text

logger = logging.getLogger(__name__)

SHOWN: Mapping[str, object] = MappingProxyType({"shown": True})
WARNINGS = "py.warnings"  # name of the logger of `logging.captureWarnings`
_HELPFUL = re.compile(r"Warning: (CUDA .*|This DataLoader .*)")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


def is_shown(number: int, total: int, *, most: int = 12) -> bool:
    """Return whether an evaluation of so many has a line, of which there are at most so many."""
    return number % math.ceil(total / most) == 0


def show(*lines: str) -> None:
    """Log lines that reach the terminal."""
    for line in lines:
        logger.info("%s", line, extra=SHOWN)


def counted(count: int, noun: str) -> str:
    """Write a number of things: `1 image`, `1,200 frames`, `2 classes`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun}{'es' if noun.endswith('s') else 's'}"


def align_columns(rows: Sequence[Sequence[str]]) -> str:
    """Write a table, its names on the left and its numbers on the right."""
    first, *widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([name.ljust(first), *map(str.rjust, cells, widths)]) for name, *cells in rows
    )


class TerminalHandler(logging.Handler):
    """Writes what a user wants to see to standard error, above a progress bar.

    These are the messages alone, without tracebacks, warnings behind "warning:". A terminal that
    was closed, or takes no more, does not end a run.
    """

    def __init__(self) -> None:
        super().__init__()
        self._warned = set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, if it is for the terminal."""
        warning = record.levelno >= logging.WARNING
        if record.exc_info or not (warning or getattr(record, "shown", False)):
            return
        try:
            message = record.getMessage()
            if record.name == WARNINGS:
                helpful = _HELPFUL.search(message)
                if helpful is None or helpful[1] in self._warned:
                    return
                message = helpful[1]
                self._warned.add(message)
            level = f"{record.levelname.lower()}: " if warning else ""
            ProgressBar.write(level + without_colors(message))
        except Exception:
            self.handleError(record)


class FileFormatter(logging.Formatter):
    """Formats a record for a file: time, level, name; no colors, which are noise in a file."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname).1s %(name)s: %(message)s", "%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        return without_colors(super().format(record))


def without_colors(line: str) -> str:
    """Remove the control sequences by which terminals change colors and styles."""
    return _ANSI.sub("", line)


@contextlib.contextmanager
def root_logs_to(*handlers: logging.Handler, level: int = logging.INFO) -> Iterator[None]:
    """Give the root logger these handlers alone in a block, Python's warnings too; close them."""
    root = logging.getLogger()
    before, others = root.level, root.handlers[:]
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = others
        root.setLevel(before)
        for handler in handlers:
            handler.close()


class LogFile(logging.FileHandler):
    """A file that appears with its first line; if it cannot be written, that is said once."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, encoding="utf-8", errors="backslashreplace", delay=True)
        self.setFormatter(FileFormatter())
        self._failed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; the first one opens the file, which may fail too."""
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Write the error that is being handled."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._failed:
            self._failed = True
            ProgressBar.write(f"{self.baseFilename} cannot be written: {error.strerror}")

    def close(self) -> None:
        """Close the file, also if its last lines find no space."""
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def logging_to(file: Path, *, level: int = logging.INFO) -> Iterator[Path]:
    """Send messages to the terminal, and to a file of this process, while the block runs.

    Of processes but the main one, only errors reach the terminal: most warn of the same.

    Yields:
        The file, which appears with its first line.
    """
    terminal = TerminalHandler()
    terminal.setLevel(logging.NOTSET if is_main() else logging.ERROR)
    with root_logs_to(terminal, LogFile(file), level=level):
        yield file


def opening_lines(
    *, task: str, weights: str, data: Sequence[str], output: Path, more: Sequence[str] = ()
) -> list[str]:
    """Say what a run does before it does it, in lines for the terminal.

    Args:
        task: What it does: "train demo/mask2former_eva_debug: 250 iterations of 6 images on cpu".
        weights: Weights that it begins from or scores; "random" for none.
        data: A line for each dataset, such as "train: 2,000 images, 10 classes (output/...)".
        output: Folder of the run.
        more: Further lines, such as that it continues after a step.
    """
    described = [f"data     {line}" for line in data]
    output_line = (
        f"output   {display_path(output)} (log.txt has the recipe, the model and every step)"
    )
    return [task, f"weights  {weights}", *described, output_line, *more]


def closing_lines(
    *,
    scores: str,
    duration: float | None = None,
    weights: Path | None = None,
    report: Path | None = None,
    next_command: str | None = None,
) -> list[str]:
    """Say what came out of a run, in lines for the terminal.

    `scores` are a few lines, or empty; the `duration` is in seconds, `report` the page.
    """
    took = None if duration is None else duration_text(duration)
    paths = {"weights": weights, "report": report}
    files = {name: path and display_path(path) for name, path in paths.items()}
    lines = {"took": took, **files, "next": next_command}
    return scores.splitlines() + [f"{name:<8} {value}" for name, value in lines.items() if value]
