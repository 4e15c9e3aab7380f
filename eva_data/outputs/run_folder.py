"""The folder of a training run: one run at a time, and no run overwritten by accident."""

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import socket
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from eva_data.files import explained, make_folder, remove_unfinished

logger = logging.getLogger(__name__)

LOCK = ".lock"
_HELD = (errno.EACCES, errno.EAGAIN)


class FolderInUseError(ValueError):
    """Another process trains in the folder; the message says which."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder, on every machine that sees it.

    The lock belongs to this process: its end releases it, however it ends, and processes that it
    started do not hold it. Unfinished files of a process that was killed are removed.

    Args:
        folder: The output folder of a run; it is made if it is not there.

    Raises:
        FolderInUseError: A ValueError, if another process holds the lock.
        UnwritableError: If the folder is a file, or nothing can be written in it.
    """
    descriptor = _lock(folder)
    if not (folder / LOCK).exists():  # a run that was refused has just removed it
        os.close(descriptor)
        descriptor = _lock(folder)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(folder: Path) -> int:
    """Open the lock and take it; say so where no lock can be had."""
    make_folder(folder)
    file = folder / LOCK
    # POSIX record locks: locks of flock would live on in forked data workers
    with explained(file):
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                holder = os.read(descriptor, 1000).decode(errors="replace").strip()
                raise FolderInUseError(
                    f"{folder} is in use by another run ({holder or 'it does not say which'}): "
                    "wait for its end, stop it, or choose another output"
                ) from error
            logger.warning(
                "%s cannot be locked (%s): make sure that only one run uses it", folder, error
            )
        else:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            remove_unfinished(folder)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


_REFUSALS = (ValueError, OSError, ImportError)


def is_refusal(error: BaseException) -> bool:
    """Return whether an error refuses a run that has not begun, and is not one of the code.

    It is a ValueError, an OSError or an ImportError that no error of another kind caused.

    Args:
        error: The error.
    """
    return isinstance(error, _REFUSALS) and isinstance(error.__cause__, (*_REFUSALS, type(None)))


@contextlib.contextmanager
def clean_if_refused(
    folder: Path, traces: Collection[str], *, begun: Callable[[], bool]
) -> Iterator[None]:
    """Remove what a run that is refused has made in its folder; what was there before stays.

    Of an error that is not a refusal, see `is_refusal`, the log with its traceback stays: it is of
    the code, the user's too.

    Args:
        folder: The output folder of a run, which need not be there.
        traces: Patterns of what a run makes in it before it begins.
        begun: Whether the run has begun; nothing is removed then.

    Yields:
        Nothing.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    before = _matching(folder, traces)
    try:
        yield
    except FolderInUseError:  # what is there is another run's
        raise
    except _REFUSALS as error:
        if is_refusal(error) and folder.is_dir() and not begun():
            with contextlib.suppress(ValueError, OSError), locked(folder):
                for path in _matching(folder, [LOCK, *traces]) - before:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            with contextlib.suppress(OSError):  # something else is there
                for path in made:
                    path.rmdir()
        raise


def _matching(folder: Path, patterns: Collection[str]) -> set[Path]:
    return {path for pattern in patterns for path in folder.glob(pattern)}
