"""How a run ends: exit codes (docs/command.md), one line for the user, the traceback in a file."""

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from eva_data.files import printable
from eva_runs import processes
from eva_runs.extras import describe_missing_package
from eva_runs.interruption import EXIT_KEYBOARD
from eva_runs.processes import OtherProcessError, claim_message

_LONGEST = 1000  # characters of a message of a library


class NonFiniteError(FloatingPointError):
    """A loss, gradient or weight that is infinite or NaN; all processes raise it together."""


class TooManyUnreadableError(RuntimeError):
    """More samples than a run allows cannot be read."""


_EXPECTED = (ValueError, OSError, FloatingPointError, TooManyUnreadableError)
_SHARED = "shared memory may be full (df -h /dev/shm); fewer workers take less"
_CPU_MEMORY = "DefaultCPUAllocator: "  # in the message of PyTorch's RuntimeError
_WORKERS = {  # part of PyTorch's message -> likely cause
    "Bus error": f": {_SHARED}",
    "shared memory": f": {_SHARED}",
    "signal: Killed": ": the main memory may be full; fewer workers or smaller batches take less",
    "timed out": ": the storage may be stuck; docs/reliability.md names the setting",
    "exited unexpectedly": ": it may say why above",
}


def print_error(message: str) -> None:
    """Write a line to the standard error output, if there is one."""
    if sys.stderr is not None:
        sys.stderr.write(f"{message}\n")


@contextlib.contextmanager
def exit_on_error(
    program: str,
    *,
    code: int = 1,
    log: Callable[[], Path | None] = lambda: None,
    begun: Callable[[], bool] = lambda: True,
    saved: Callable[[], str] | None = None,
) -> Iterator[None]:
    """End the program with one line and exit code `code`, whatever is raised in the block.

    Where several processes meet the same error, one says so. Messages begin with `program` and end
    with what of a training is `saved`; `log` gives the file of this process that receives
    tracebacks, if there is one yet. Of a run that has not `begun`, it has unexpected errors alone.

    Raises:
        SystemExit: `code` after an error, 130 after Ctrl-C, and what the block raises.
        Exception: An unexpected error of a program without a log.
    """
    try:
        yield
    except KeyboardInterrupt:
        if processes.is_reporting_rank():
            print_error(f"{program}: stopped by Ctrl-C{_describe_saved(saved)}")
        sys.exit(EXIT_KEYBOARD)
    except OtherProcessError:
        _append_traceback(log() if begun() else None)
        sys.exit(code)
    except Exception as error:
        line = _explain(error)
        file = log() if line is None or begun() else None
        _append_traceback(file)
        if line is None:
            if file is None:
                raise
            line = f"unexpected {type(error).__name__}: {single_line_message(error)}"
        is_expected = isinstance(error, (*_EXPECTED, ImportError))
        agreed = isinstance(error, NonFiniteError)
        says = processes.is_main() if agreed else not is_expected or claim_message(line)
        if isinstance(error, FloatingPointError):
            line += _describe_saved(saved)
        if file is not None and file.exists():
            line += f" (traceback: {file})"
        if says:
            print_error(printable(f"{program}: {line}"))
        sys.exit(code)


@contextlib.contextmanager
def stderr_from_main_process() -> Iterator[None]:
    """Let the process of `is_reporting_rank` alone say what is wrong, where all end alike."""
    with contextlib.ExitStack() as stack:
        if not processes.is_reporting_rank():
            nothing = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stderr(nothing))
        yield


def single_line_message(error: BaseException) -> str:
    """Format the message of an error in one line, without the traceback of a worker."""
    message = str(error).strip()
    if "Original Traceback" in message:
        message = message.splitlines()[-1].partition(": ")[2]
    return " ".join(message.split())[:_LONGEST] or type(error).__name__


def _explain(error: Exception) -> str | None:
    """Return the line for an error whose message is enough; None for any other."""
    if isinstance(error, ImportError):  # without a name it is a library's sentence
        return describe_missing_package(error) or (
            None if error.name else single_line_message(error)
        )
    if isinstance(error, OSError) and _is_of_semaphores(error):
        return f"{single_line_message(error)}: {_SHARED}"
    if isinstance(error, _EXPECTED):
        return single_line_message(error)
    is_of_main_memory = isinstance(error, MemoryError) or _CPU_MEMORY in str(error)
    if is_of_main_memory or type(error).__name__ == "OutOfMemoryError":  # torch's, not imported
        reason = single_line_message(error).rpartition(_CPU_MEMORY)[2]
        reason = ". ".join(reason.split(". ")[:2]).rstrip(".")
        less = "a smaller --batch or --image-size, activation checkpointing or --lora takes less"
        return f"{reason}. In a training {less}; `eva plan RECIPE` says how much"
    if isinstance(error, RuntimeError) and "DataLoader" in str(error):
        message = single_line_message(
            error.__cause__ or error
        )  # PyTorch gives the signal of a worker as cause
        causes = (cause for sign, cause in _WORKERS.items() if sign in message)
        return message.partition(". ")[0] + next(causes, "")
    if processes.world_size() > 1 and _is_lost_connection(error):
        lost = f"process {processes.rank()} lost the connection to another one"
        return f"{lost}, which was killed or says why itself"
    return None


def _is_of_semaphores(error: OSError) -> bool:
    """Return whether semaphores of data workers have no room; their loader is then left alone."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    module = frames[-1].f_globals["__name__"]
    if error.errno != errno.ENOSPC or module != "multiprocessing.synchronize":
        return False
    for frame in frames:
        iterator: Any = frame.f_locals.get("self")
        if hasattr(iterator, "_shutdown_workers"):  # half built: its `__del__` would fail, too
            iterator._shutdown = True
    return True


def _is_lost_connection(error: Exception) -> bool:
    message, kinds = str(error), [kind.__name__ for kind in type(error).__mro__]
    return "DistError" in kinds or (
        isinstance(error, RuntimeError) and ("gloo" in message or "Connection" in message)
    )


def _describe_saved(saved: Callable[[], str] | None) -> str:
    return f"; {saved()}" if saved is not None and processes.is_main() else ""


def _append_traceback(file: Path | None) -> None:
    """Append the traceback of the error in progress to a file."""
    if file is not None:
        with contextlib.suppress(OSError), file.open("a", encoding="utf-8") as stream:
            stream.write(f"{traceback.format_exc()}\n")
