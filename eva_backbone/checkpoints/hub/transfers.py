"""Content of a file of the hub, received into a file beside its place and verified there."""

import errno
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from eva_backbone.checkpoints.hub.addresses import HubFile
from eva_backbone.checkpoints.hub.client import (
    HubError,
    RemoteFile,
    UnreachableError,
    explained,
    library,
)
from eva_backbone.checkpoints.verification import sha256_of

logger = logging.getLogger(__name__)

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the content of a file comes to.

    Attributes:
        part: What has come so far; it stays if the connection breaks off, for the next start.
        folder: The folder that is named in messages.
        variable: Variable of the environment that names another folder.
    """

    part: Path
    folder: Path
    variable: str


def place_of_own(part: Path) -> Path:
    """Return the name of an unfinished file, or another one if it is there and somebody else's."""
    if part.exists() and not os.access(part, os.W_OK):
        return part.with_name(f"{part.stem}.{os.getuid()}{part.suffix}")
    return part


def receive(file: HubFile, remote: RemoteFile, place: Place, *, sha256: str) -> None:
    """Download what is missing of a file, and the entire file if what was there is damaged.

    Args:
        file: The file on the hub.
        remote: What the hub says about it.
        place: Where it comes to.
        sha256: SHA-256 of the content.

    Raises:
        HubError: If it does not come, or is another one, which is then removed.
    """
    while True:
        continued = _append(file, remote, place)
        found = sha256_of(place.part)
        if found == sha256:
            return
        place.part.unlink()
        if not continued:
            raise HubError(
                f"what came for {file} has SHA-256 {found}, expected {sha256}: it was removed"
            )
        logger.warning("the unfinished download of %s was damaged: starting again", file.file)


def flush(folder: Path) -> None:
    """Write the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _append(file: HubFile, remote: RemoteFile, place: Place) -> bool:
    """Download what is missing of a file; return whether some of it was there."""
    descriptor = os.open(place.part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    with open(descriptor, "r+b") as stream:
        there = os.fstat(descriptor).st_size
        if remote.size is not None and there > remote.size:
            os.ftruncate(descriptor, there := 0)
        _require_room((remote.size or 0) - there, place)
        come = there
        while True:
            try:
                _continue(file, remote, stream, come, place)
                break
            except UnreachableError:
                stream.flush()
                before, come = come, os.fstat(descriptor).st_size
                too_long = remote.size is not None and come > remote.size
                if come <= before or too_long:  # after the library's own tries
                    raise
                logger.warning("the connection broke off: continuing after %d bytes", come)
        os.fsync(descriptor)
    return there > 0


def _continue(
    file: HubFile, remote: RemoteFile, stream: BinaryIO, there: int, place: Place
) -> None:
    """Append what the connection brings, after the bytes that are there."""
    stream.seek(there)
    try:
        with explained(file):
            library().file_download.http_get(
                remote.url,
                stream,
                resume_size=there,
                headers=remote.headers,
                expected_size=remote.size,
                displayed_filename=file.file,
            )
            stream.flush()
    except OSError as error:
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and cause.errno in _FULL:
            os.ftruncate(stream.fileno(), 0)
            raise HubError(
                f"the disk is full ({cause.strerror}), it needs {(remote.size or 0) / 1e9:.2f} GB: "
                f"make room, or let {place.variable} name another folder"
            ) from error
        raise


def _require_room(size: int, place: Place) -> None:
    free = shutil.disk_usage(place.part.parent).free
    if size > free:
        raise HubError(
            f"it needs {size / 1e9:.2f} GB more in {place.folder}, where {free / 1e9:.2f} GB are "
            f"free: make room, or let {place.variable} name another folder"
        )
