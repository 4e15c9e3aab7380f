"""One process downloads, the others of its run wait."""

import contextlib
import errno
import json
import logging
import os
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
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
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
