"""What a file is, without reading weights: a regular one, and the official one of its name.

The SHA-256 of an official file is computed once. What was verified is remembered for one user, in
`~/.cache/eva/verified`, and not beside the file: a record that comes with a folder of weights, or
that somebody else can write, would vouch for itself. It holds while path, size, time of change,
inode and its change (which no program can set) stay.
"""

import contextlib
import hashlib
import json
import logging
import os
import stat
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

RECORDS = "~/.cache/eva/verified"
LARGE = 2**28  # bytes from which the log says what takes the time


def require_regular_file(path: str | os.PathLike[str]) -> Path:
    """Refuse what is not a regular file: a folder, or a pipe or device, which may never end.

    Args:
        path: Path of the file; links are followed.

    Raises:
        FileNotFoundError: If nothing is there.
        ValueError: If something else is there.
    """
    path = Path(path)
    if not stat.S_ISREG(path.stat().st_mode):
        kind = "a folder" if path.is_dir() else "a pipe, socket or device"
        raise ValueError(f"{path} is {kind}; name a regular file")
    return path


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_sha256(
    path: str | os.PathLike[str],
    expected: str,
    *,
    advice: str = "download it again",
    of: str = "the official file",
) -> None:
    """Check a file against its recorded SHA-256; a ValueError names both, and the advice."""
    actual = sha256_of(path)
    if actual != expected.lower():
        raise ValueError(
            f"{os.fspath(path)} has SHA-256 {actual}, but {of} has {expected}: it is "
            f"incomplete, damaged or another file; {advice}"
        )


def verify_once(path: Path, expected: str, *, advice: str, of: str = "the official file") -> None:
    """Check a file that must be a known one, unless that was done and it has not changed since.

    Args:
        path: Path of the file.
        expected: The SHA-256 that it must have.
        advice: What to do, for the message.
        of: What has this SHA-256, for the message.

    Raises:
        ValueError: If the content differs; the message has both hashes and what to do.
        OSError: If the file cannot be read.
    """
    state = _state_of(path, expected)
    record = _record_of(path)
    if record is not None and _recall(record) == state:
        return
    if path.stat().st_size >= LARGE:
        size = path.stat().st_size / 1e9
        logger.info("verifying the SHA-256 of %s (%.2f GB), once", path, size)
    verify_sha256(path, expected, advice=advice, of=of)
    if record is not None and _state_of(path, expected) == state:  # unchanged meanwhile
        _remember(record, state)


def _state_of(path: Path, expected: str) -> dict[str, str | int]:
    status = path.stat()
    return {
        "path": str(path.resolve()),
        "sha256": expected,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
        "inode": status.st_ino,
    }


def _record_of(path: Path) -> Path | None:
    """Path of the record of a file; None for a user without a home."""
    try:
        folder = Path(RECORDS).expanduser()
    except RuntimeError:
        return None
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
    return folder / f"{name[:32]}.json"


def _recall(record: Path) -> object:
    """Content of a record that nobody but this user can have written, else None."""
    try:
        with record.open("rb") as file:
            status = os.fstat(file.fileno())
            others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or others_write:
                return None
            return json.loads(file.read(10_000))
    except (OSError, ValueError):
        return None


def _remember(record: Path, state: dict[str, str | int]) -> None:
    """Write a record completely or not at all; without one, the file is verified every time."""
    with contextlib.suppress(OSError):
        record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=record.parent, suffix=".part")  # for this user alone
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(state, file)
            os.replace(part, record)
        except OSError:
            Path(part).unlink()
