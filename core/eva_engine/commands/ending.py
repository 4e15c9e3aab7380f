"""End of a command: one sentence and an exit code, or a traceback; and its text log."""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from eva_data.progress import ProgressBar
from eva_engine import distributed
from eva_engine.config import SAYS
from eva_report.terminal import FileFormatter, TerminalHandler
from eva_runs.extras import sentence_of
from eva_runs.interruption import EXIT_KEYBOARD


@contextlib.contextmanager
def ending(
    program: str, *, saved: Callable[[], str] | None = None, log: str = ""
) -> Iterator[None]:
    """Leave the process group at the end, if the command joined it.

    After an error the process group stays as it is: taking it down needs all processes, and the
    others notice the end of this one.

    Args:
        program: Name in the messages.
        saved: Function that says what of a run is saved, for the main process after Ctrl-C and
            after a number that is not finite; None for a command that trains nothing.
        log: Files with the messages of other processes.

    Yields:
        Nothing.

    Raises:
        SystemExit: 1 with one sentence for what the user can fix, and for the loss of another
            process, and for a package that is not installed; 130 after Ctrl-C; the command's own.
    """
    # here, so that a command that only helps needs no torch
    import torch

    from eva_engine import distributed
    from eva_engine.data.order import SampleError, TooManyBadSamplesError

    joined_before = torch.distributed.is_initialized()
    try:
        yield
        if not joined_before:
            distributed.stop()
    except SystemExit:  # on all processes alike
        if not joined_before:
            distributed.stop()
        raise
    except KeyboardInterrupt:
        if saved is not None and distributed.rank() == 0:
            ProgressBar.write(SAYS.stopped("Ctrl-C", saved()))
        sys.exit(EXIT_KEYBOARD)
    except FloatingPointError as error:
        more = f"; {saved()}" if saved is not None and distributed.rank() == 0 else ""
        sys.exit(f"{program}: {sentence(error)}{more}")
    except (ValueError, OSError, TooManyBadSamplesError) as error:
        sys.exit(f"{program}: {sentence(error)}")
    except ImportError as error:
        missing = sentence_of(error)
        if missing is None:
            raise
        sys.exit(f"{program}: {missing}")
    except RuntimeError as error:
        if isinstance(error, SampleError) or not _is_end_of_another(error):
            raise
        sys.exit(
            f"{program}: process {distributed.rank()} lost another one, or the connection to it "
            f"({sentence(error)[:200]}); if that one has ended, its own message"
            + (f", {log}" if log else "")
            + " says why"
        )


def sentence(error: BaseException) -> str:
    """Format an error in one line, without a worker's traceback."""
    text = str(error).strip()
    if not text:
        return repr(error)
    if "Original Traceback" not in text:
        return " ".join(text.split())
    return text.splitlines()[-1].partition(": ")[2]


def _is_end_of_another(error: RuntimeError) -> bool:
    """Return whether an exchange failed because its other side has ended."""
    import torch

    from eva_engine import distributed

    text = str(error)
    return distributed.world_size() > 1 and (
        isinstance(error, torch.distributed.DistError) or "gloo" in text or "Connection" in text
    )


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
