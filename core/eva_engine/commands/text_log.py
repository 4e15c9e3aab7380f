"""The text log of a command: few lines on the terminal, all of them in `log.txt`."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from eva_data.progress import ProgressBar
from eva_engine import distributed
from eva_report.terminal import FileFormatter, TerminalHandler


@contextlib.contextmanager
def logging_to(folder: Path) -> Iterator[None]:
    """Send messages to the terminal and a file of the run's folder; afterwards as before.

    The main process writes all of them to `log.txt`, and what `TerminalHandler` lets pass to the
    terminal; another one warnings to `log_rankN.txt`, of which the main one shows its own.

    Args:
        folder: Output folder of the run.

    Yields:
        Nothing.
    """
    rank = distributed.rank()
    file = folder / (f"log_rank{rank}.txt" if rank else "log.txt")
    root, terminal = logging.getLogger(), TerminalHandler()
    terminal.setLevel(logging.ERROR if rank else logging.NOTSET)  # most warn of the same
    ours = [terminal, _LogFile(file)]
    level, others = root.level, root.handlers[:]
    root.handlers[:] = ours
    root.setLevel(logging.WARNING if rank else logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = others
        root.setLevel(level)
        for handler in ours:
            handler.close()


class _LogFile(logging.FileHandler):
    """A file that appears with its first line; if it cannot be written, that is said once."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, encoding="utf-8", delay=True)
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
