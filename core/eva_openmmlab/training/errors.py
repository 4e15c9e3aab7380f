"""How a program ends: one sentence for what the user can fix, a file for the rest, an exit code.

A sentence about the command line does not wait for PyTorch, which `mmengine.dist` imports.
"""

import contextlib
import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from eva_data.files import OF_WRITING, UnwritableError, explained
from eva_data.images import UnreadableImageError
from eva_runs.command_line.slips import SlipError, end_program
from eva_runs.interruption import EXIT_KEYBOARD

T = TypeVar("T")
_LONGEST = 600  # characters of a sentence that quotes an error


class RunError(ValueError):
    """A run that cannot begin or go on; the message says why.

    Attributes:
        agreed: Whether all processes have the same error, so that one of them reports it.
    """

    agreed = False


class SettingError(RunError):
    """A config from which a run cannot be built; the message quotes what failed."""


class UnfitWeightsError(RunError):
    """Weights that are missing or do not fit; the message says which and why."""


class NonFiniteError(FloatingPointError):
    """A loss or gradient that is infinite or NaN; the message names the images."""

    agreed = True


SENTENCES = (RunError, NonFiniteError, UnwritableError, UnreadableImageError)


def one_line(error: BaseException) -> str:
    """Format the message of an error, also of one in a process that loads data.

    Args:
        error: Error whose text may hold the traceback of that process.

    Returns:
        The sentence for the user.
    """
    text = str(error).strip()
    if "Original Traceback" in text:
        text = text.splitlines()[-1].partition(": ")[2]
    text = text.partition(" More details can be found at")[0]  # mmengine's
    return " ".join(text.split()) or type(error).__name__


def settings(check: Callable[..., T], *arguments: Any) -> T:
    """Read or check settings.

    Args:
        check: Function that raises an error if they are wrong.
        *arguments: Arguments of `check`.

    Returns:
        What it returns.

    Raises:
        SlipError: For a name that does not exist.
        RunError: In place of any other error: a config is not made by this program.
    """
    try:
        return check(*arguments)
    except SlipError:
        raise
    except (ValueError, OSError) as error:
        raise RunError(str(error)) from error
    except Exception as error:
        raise SettingError(
            f"the settings cannot be read ({type(error).__name__}: {one_line(error)[:_LONGEST]})"
        ) from error


def log_file(folder: Path) -> Path:
    """Name the file in a work folder that receives this process's tracebacks."""
    from mmengine.dist import get_rank

    return folder / f"log_rank{get_rank()}.txt"


def log_failure(folder: Path) -> None:
    """Append the traceback of the error in progress to this process's own file.

    Args:
        folder: The work folder.
    """
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with log_file(folder).open("a", encoding="utf-8") as file:
            file.write(f"{traceback.format_exc()}\n")


@contextlib.contextmanager
def building(folder: Path, begun: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Build a run; report a failure as a wrong setting.

    The traceback goes to a file, except for an error that explains itself.

    Args:
        folder: The work folder.
        begun: Whether everything has been built; what fails then stays as it is.

    Raises:
        SettingError: In place of an error.
    """
    try:
        yield
    except SENTENCES:
        raise
    except Exception as error:
        if isinstance(error, OSError) and _is_of_writing(error, folder):
            with explained(Path(error.filename or folder)):
                raise
        log_failure(folder)
        if begun():
            raise
        reason = one_line(error)[:_LONGEST]
        if not isinstance(error, ValueError | FileNotFoundError):
            reason = (
                f"the config cannot be built ({type(error).__name__}: {reason}); the traceback is "
                f"in {log_file(folder)}"
            )
        raise SettingError(reason) from error


def _is_of_writing(error: OSError, folder: Path) -> bool:
    """Return whether a log or result could not be written, as on a full disk."""
    if error.errno in OF_WRITING:
        return True
    name = error.filename
    return isinstance(name, str) and Path(name).absolute().is_relative_to(folder.absolute())


@contextlib.contextmanager
def sentences(
    program: str, folder: Callable[[], Path | None], given: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """Run a program; its errors become sentences and exit codes.

    Args:
        program: Name of the program.
        folder: Function for its work folder, None before it is known.
        given: Options of the command line, one of which must be the wrong one.

    Raises:
        SystemExit: With one sentence for what the user can fix (code 2 for a name that does not
            exist); 130 after Ctrl-C.
    """
    complaints, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield
    except SlipError as error:
        raise end_program(program, error) from None
    except (*SENTENCES, FileNotFoundError) as error:
        if getattr(error, "agreed", False) and not _is_main_process():
            sys.exit(1)
        hint = ""
        if isinstance(error, SettingError) and given:
            hint = f" [{', '.join(f'{name}={value}' for name, value in given.items())}]"
        sys.exit(f"{program}: {one_line(error)}{hint}")
    except KeyboardInterrupt:
        sys.stderr.write(f"{program}: stopped by Ctrl-C before there was anything to save\n")
        sys.exit(EXIT_KEYBOARD)
    except Exception:
        place = folder()
        if place is not None and log_file(place).exists():
            sys.excepthook = partial(_brief, program, log_file(place))
        raise
    finally:
        logging.raiseExceptions = complaints  # about a log that cannot be written


def on_main_process(action: Callable[[], T], error: type[RunError] = RunError) -> T:
    """Do something on the main process; all processes return its result, or fail with it.

    Args:
        action: Function that only the main process calls.
        error: Class of the error in place of its ValueError or OSError.

    Returns:
        What it returns.

    Raises:
        RunError: On all processes, if it fails.
    """
    from mmengine.dist import broadcast_object_list

    outcome: list[Any] = [None, None]
    if _is_main_process():
        try:
            outcome[0] = action()
        except (ValueError, OSError) as failure:
            outcome[1] = str(failure)
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        agreed = error(outcome[1])
        agreed.agreed = True
        raise agreed
    return outcome[0]


def _is_main_process() -> bool:
    from mmengine.dist import is_main_process

    return bool(is_main_process())


def _brief(
    program: str,
    log: Path,
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
) -> None:
    del trace
    sys.stderr.write(
        f"{program}: ended by an error ({kind.__name__}: {one_line(error)[:_LONGEST]}); its "
        f"traceback is in {log}\n"
    )
