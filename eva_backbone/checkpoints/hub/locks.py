"""One process downloads, the others of its run wait."""

import contextlib
import errno
import json
import logging
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from eva_backbone.checkpoints.hub.client import HubError

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_TRIES = 0.2
_HELD = (errno.EACCES, errno.EAGAIN)
_THREADS = threading.Lock()  # a lock of a file is a process's, for all of its threads


@contextlib.contextmanager
def one_at_a_time(file: Path, *, what: str) -> Iterator[None]:
    """Hold a lock that all processes of all machines respect; wait for it as long as it takes.

    The end of a process releases its lock, however it ends. If the process that was waited for
    failed, this one fails alike instead of trying again: eight processes would take eight times as
    long to say that there is no network.

    Args:
        file: File of the lock, in a folder that exists.
        what: What the holder downloads, for the log.

    Yields:
        Nothing.

    Raises:
        HubError: The error of the process that was waited for.
        OSError: If the file cannot be made.
    """
    began = time.time()
    with _THREADS:
        descriptor = _open_shared(file)
        try:
            if _wait(descriptor, file, what):
                failure = _failure_since(descriptor, began)
                if failure:
                    raise HubError(failure)
            try:
                yield
            except HubError as error:
                _note(descriptor, {"failure": str(error), "time": time.time()})
                raise
        finally:
            os.close(descriptor)


def make_shared(folder: Path) -> None:
    """Make a folder that those may write in who may write in the one above it.

    Args:
        folder: The folder; those above it are made as the umask says.

    Raises:
        OSError: If it cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.is_dir():
        return
    folder.mkdir(exist_ok=True)
    with contextlib.suppress(OSError):
        folder.chmod(stat.S_IMODE(folder.parent.stat().st_mode))


def _open_shared(file: Path) -> int:
    """Open a file for writing; those may who may write in its folder, whatever the umask says."""
    flags = os.O_RDWR | os.O_NOFOLLOW
    with contextlib.suppress(FileNotFoundError):
        return os.open(file, flags)
    descriptor = os.open(file, flags | os.O_CREAT, 0o666)
    with contextlib.suppress(OSError):
        writers = file.parent.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        os.fchmod(descriptor, os.fstat(descriptor).st_mode | writers | writers << 1)
    return descriptor


def _wait(descriptor: int, file: Path, what: str) -> bool:
    """Take the lock; return whether another process had it."""
    import fcntl  # not on Windows, where this package can be imported too

    waited = False
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return waited
        except OSError as error:
            if error.errno not in _HELD:
                logger.warning("%s cannot be locked (%s): start one process first", file, error)
                return waited
        if not waited:
            logger.warning("another process downloads %s: waiting for it", what)
        waited = True
        time.sleep(SECONDS_BETWEEN_TRIES)


def _note(descriptor: int, content: dict[str, str | float]) -> None:
    with contextlib.suppress(OSError):  # of a full disk: the others try for themselves
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(content).encode(), 0)


def _failure_since(descriptor: int, began: float) -> str:
    try:
        found = json.loads(os.pread(descriptor, 100_000, 0))
        return str(found["failure"]) if found["time"] >= began else ""
    except (OSError, ValueError, TypeError, KeyError):
        return ""
