"""The folder of a training run: one run at a time, and no run overwritten by accident."""

import contextlib
import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
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
        yield
    finally:
        os.close(descriptor)
