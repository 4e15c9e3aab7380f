"""What a file is, without reading weights: a regular one, and the official one of its name.

The SHA-256 of an official file is computed once. What was verified is remembered for one user, in
`~/.cache/eva/verified`, and not beside the file: a record that comes with a folder of weights would
vouch for itself. It holds while path, size, time of change, inode and its change (which no program
can set) stay.
"""

import contextlib
import hashlib
import json
import logging
import os
import stat
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
    resolved, status = path.resolve(), path.stat()
    times = (status.st_mtime_ns, status.st_ctime_ns)
    state = [str(resolved), expected, status.st_size, *times, status.st_ino]
    name = hashlib.sha256(os.fsencode(resolved)).hexdigest()
    record = Path(RECORDS).expanduser() / f"{name[:32]}.json"
    with contextlib.suppress(OSError, ValueError):
        if json.loads(record.read_text(encoding="utf-8")) == state:
            return
    if status.st_size >= LARGE:
        logger.info("verifying the SHA-256 of %s (%.2f GB), once", path, status.st_size / 1e9)
    verify_sha256(path, expected, advice=advice, of=of)
    with contextlib.suppress(OSError):  # without a record, the file is verified every time
        record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        record.write_text(json.dumps(state), encoding="utf-8")
