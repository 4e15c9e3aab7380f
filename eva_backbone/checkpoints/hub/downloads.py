"""Files with a recorded SHA-256, fetched into a folder: complete and correct, or not there."""

import errno
import logging
import os
import shutil
from pathlib import Path
from typing import BinaryIO

from eva_backbone.checkpoints.hub.addresses import HubFile
from eva_backbone.checkpoints.hub.client import (
    HubError,
    RemoteFile,
    UnreachableError,
    explained,
    library,
    look_up,
)
from eva_backbone.checkpoints.hub.locks import one_at_a_time
from eva_backbone.checkpoints.verification import remember_verified, sha256_of

logger = logging.getLogger(__name__)

UNFINISHED = ".downloads"  # in the folder of the files: locks, and what has come so far
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def download(file: HubFile, *, sha256: str, folder: Path) -> Path:
    """Fetch a file, or wait for the process that does.

    An interrupted download continues where it was, also after the end of its process.

    Args:
        file: The file on the hub.
        sha256: SHA-256 of its content.
        folder: Folder that receives it, under its name; it is made if it is not there.

    Returns:
        The file.

    Raises:
        HubError: If it cannot be had, or is another one; nothing of its name is then in the folder.
    """
    library()  # first: without it no folder is made
    target, unfinished = folder / Path(file.file).name, folder / UNFINISHED
    if target.is_symlink():
        raise HubError(f"{target} is a link to {target.readlink()}, which is not there")
    if target.exists():
        raise HubError(f"{target} is in its place and not a file")
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(unfinished / f"{target.name}.lock", what=target.name):
            if not target.is_file():  # nobody has fetched it while this process waited
                _fetch(file, sha256, unfinished / f"{target.name}.part", target)
    except HubError:
        raise
    except OSError as error:
        raise HubError(
            f"{folder} cannot take it ({error.strerror or error}): let EVA_WEIGHTS name a folder "
            "that you can write in"
        ) from error
    return target


def _fetch(file: HubFile, sha256: str, part: Path, target: Path) -> None:
    remote = look_up(file)
    if remote.sha256 not in (None, sha256):
        raise HubError(
            f"{file} is another file than the one recorded here: the hub says SHA-256 "
            f"{remote.sha256}, recorded is {sha256}"
        )
    size = "" if remote.size is None else f" ({remote.size / 1e9:.2f} GB)"
    # a warning: gigabytes that nobody may have expected, where no progress bar is seen
    logger.warning("downloading %s%s, commit %s, to %s", file, size, remote.commit, target)
    while True:
        continued = _receive(file, remote, part)
        found = sha256_of(part)
        if found == sha256:
            break
        part.unlink()
        if not continued:
            raise HubError(
                f"what came for {file} has SHA-256 {found}, expected {sha256}: it was removed"
            )
        logger.warning("the unfinished download of %s was damaged: starting again", target.name)
    os.replace(part, target)
    _flush(target.parent)
    remember_verified(target, sha256)


def _receive(file: HubFile, remote: RemoteFile, part: Path) -> bool:
    """Download what is missing of a file; return whether some of it was there."""
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    with open(descriptor, "r+b") as stream:
        there = os.fstat(descriptor).st_size
        if remote.size is not None and there > remote.size:
            os.ftruncate(descriptor, there := 0)
        _require_room((remote.size or 0) - there, part.parent.parent)
        come = there
        while True:
            try:
                _continue(file, remote, stream, come)
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


def _continue(file: HubFile, remote: RemoteFile, stream: BinaryIO, there: int) -> None:
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
                "make room, or let EVA_WEIGHTS name another folder"
            ) from error
        raise


def _require_room(size: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise HubError(
            f"it needs {size / 1e9:.2f} GB more in {folder}, where {free / 1e9:.2f} GB are free: "
            "make room, or let EVA_WEIGHTS name another folder"
        )


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
