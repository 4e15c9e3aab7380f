"""What a list was when an index of it was written, so that a list that was edited is noticed."""

import hashlib
from pathlib import Path
from typing import Any

State = dict[str, Any]  # of JSON: bytes, modified (nanoseconds), sha256, and part


def state_of(file: Path, part: str | None = None) -> State:
    """Describe a list as it is now; take it before the list is read.

    Args:
        file: The list.
        part: Part of it that is read, such as a split.

    Raises:
        OSError: If it cannot be read.
    """
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    facts = file.stat()
    return {
        "bytes": facts.st_size, "modified": facts.st_mtime_ns, "sha256": digest, "part": part
    }  # fmt: skip


def require_unchanged(
    file: Path, noted: Any, *, part: str | None = None, index: str, command: str
) -> None:
    """Refuse an index of a list that has other content by now.

    The list need not be there, and may have been copied: its content counts, which is read where
    its size is the same and its time is another.

    Args:
        file: The list.
        noted: What `state_of` gave when the index was written; anything else is not compared.
        part: See `state_of`.
        index: Name of the index.
        command: Command that writes it.

    Raises:
        ValueError: If the list has changed, or another part of it is asked for.
    """
    if not isinstance(noted, dict) or "sha256" not in noted:
        return
    again = f"write it again with: {command}"
    if noted.get("part") != part:
        parts = [f"#{one}" if one else "all of it" for one in (noted.get("part"), part)]
        raise ValueError(
            f"{index} is the index of {parts[0]} of {file}, and {parts[1]} is asked for; {again}"
        )
    if not file.is_file():
        return
    facts = file.stat()
    if (facts.st_size, facts.st_mtime_ns) == (noted.get("bytes"), noted.get("modified")):
        return
    if facts.st_size != noted.get("bytes") or state_of(file)["sha256"] != noted["sha256"]:
        raise ValueError(f"{file} has changed since its index {index} was written; {again}")
