"""Index files: large tables of names and numbers, memory-mapped.

Starting takes no time, and all workers of a machine, forked or spawned, share one copy. An index
file is a safetensors file; its metadata name the kind of index.
"""

import hashlib
import json
import os
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from eva_data.files import write_tensors

IMAGE_KIND = "eva_pretrain image index 1"
VIDEO_KIND = "eva_data video index 1"
CAPTION_KIND = "eva_data caption index 1"
INDEX_SUFFIX = ".safetensors"
_DTYPES = {"U8": np.uint8, "I32": np.int32, "I64": np.int64}


class Table(Mapping[str, NDArray[Any]]):
    """Named arrays with a description, in memory or mapped from an index file.

    Args:
        arrays: Name -> array of uint8, int32 or int64.
        about: Description, any value that JSON can hold.
        kind: What the table lists.
    """

    def __init__(
        self, arrays: Mapping[str, NDArray[Any]], about: Any = None, *, kind: str = IMAGE_KIND
    ) -> None:
        self._arrays = dict(arrays)
        self.about, self.kind = about, kind
        self._origin: tuple[Path, str] | None = None  # index file, and which part of it

    @classmethod
    def open(cls, file: Path, *, kind: str = IMAGE_KIND) -> "Table":
        """Map an index file.

        Args:
            file: The index file.
            kind: What it must list.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is not such an index file, or is damaged.
        """
        if not file.is_file():
            raise FileNotFoundError(f"there is no index file {file}")
        try:
            with safe_open(file, "np") as opened:  # checks that sizes and offsets fit the file
                metadata = opened.metadata() or {}
        except SafetensorError as error:
            raise ValueError(f"{file} is not an index file, or is damaged ({error})") from error
        if metadata.get("kind") != kind:
            raise ValueError(f"{file} is not an {kind!r}: its kind is {metadata.get('kind')!r}")
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size))
        content = np.memmap(file, np.uint8, mode="r")[8 + size :]
        arrays = {}
        try:
            for name, entry in header.items():
                if name != "__metadata__":
                    begin, end = entry["data_offsets"]
                    arrays[name] = content[begin:end].view(_DTYPES[entry["dtype"]])
            table = cls(arrays, json.loads(metadata["about"]), kind=kind)
        except (KeyError, ValueError, RecursionError) as error:
            raise damaged(file, repr(error)) from error
        table._origin = (file, "")
        return table

    def save(self, file: Path) -> None:
        """Write an index file, which appears when it is complete."""
        metadata = {"kind": self.kind, "about": json.dumps(self.about)}
        write_tensors(self._arrays, file, metadata)

    def part(self, prefix: str, about: Any = None) -> "Table":
        """Return the arrays of `{prefix}/...`, under the rest of their names.

        Args:
            prefix: Name of the part.
            about: Its description.
        """
        start = f"{prefix}/"
        arrays = {k.removeprefix(start): v for k, v in self.items() if k.startswith(start)}
        table = Table(arrays, about, kind=self.kind)
        table._origin = None if self._origin is None else (self._origin[0], prefix)
        return table

    def require_equal_lengths(self, *names: str, length: int) -> None:
        """Refuse a damaged index, whose arrays do not belong together.

        Raises:
            ValueError: If one of the arrays is not there or has another length.
        """
        lengths = {name: len(self[name]) if name in self else 0 for name in names}
        if any(found != length for found in lengths.values()):
            raise damaged("the index", f"{lengths} of {length} entries")

    def __reduce__(self) -> tuple[Any, ...]:
        if self._origin is not None:  # a spawned worker maps the file itself
            return _reopen, (*self._origin, self.about, self.kind)
        return _rebuilt, (self._arrays, self.about, self.kind)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def _reopen(file: Path, prefix: str, about: Any, kind: str) -> Table:
    table = Table.open(file, kind=kind)
    return table.part(prefix, about) if prefix else table


def _rebuilt(arrays: Mapping[str, NDArray[Any]], about: Any, kind: str) -> Table:
    return Table(arrays, about, kind=kind)


def damaged(index: Path | str, reason: str) -> ValueError:
    """Make the error about an index that does not hold what it should."""
    return ValueError(f"{index} is damaged ({reason}): write it again")


class Names:
    """A sequence of file names, or of other short texts, kept as two arrays of a table.

    Thirty million file names as Python strings take 3 GB in every process. Here they are one array
    of bytes and one of ends, which the processes of a loader share.

    Args:
        table: Arrays by name: `names.bytes`, all names one after another, and `names.ends`.
        prefix: First part of the arrays' names.

    Raises:
        ValueError: If the table lacks one of them.
    """

    def __init__(self, table: Mapping[str, NDArray[Any]], prefix: str = "names") -> None:
        self._bytes, self._ends = f"{prefix}.bytes", f"{prefix}.ends"
        if lacking := [name for name in (self._bytes, self._ends) if name not in table]:
            raise damaged("the index", f"it lacks {' and '.join(lacking)}")
        self._table = table  # sent to a worker, it maps its file again

    @classmethod
    def collect(cls, names: Iterable[str], prefix: str = "names") -> "Names":
        """Put names into memory.

        Args:
            names: The names.
            prefix: First part of the arrays' names.
        """
        content, ends = bytearray(), array("q")
        for name in names:
            content += os.fsencode(name)
            ends.append(len(content))
        parts = (memoryview(content), memoryview(ends))  # arrays of them, without a copy
        arrays = (f"{prefix}.bytes", f"{prefix}.ends")
        return cls(dict(zip(arrays, map(np.asarray, parts), strict=True)), prefix)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the two arrays, for a table."""
        return {name: self._table[name] for name in (self._bytes, self._ends)}

    def checksum(self) -> int:
        """Compute a number that changes with any name or their order."""
        return zlib.crc32(self._table[self._ends].data, zlib.crc32(self._table[self._bytes].data))

    def __len__(self) -> int:
        return len(self._table[self._ends])

    def __getitem__(self, index: int) -> str:
        ends = self._table[self._ends]
        if not 0 <= index < len(ends):
            raise IndexError(f"no name {index} among {len(ends)}")
        begin = ends[index - 1] if index else 0
        return os.fsdecode(self._table[self._bytes][begin : ends[index]].tobytes())

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))


def state_of(file: Path, part: str | None = None) -> dict[str, Any]:
    """Describe a list before it is read, so that an index of it notices when it was edited.

    Args:
        file: The list.
        part: Part of it that is read, such as a split.

    Returns:
        `bytes`, `modified` (nanoseconds), `sha256` and `part`, for JSON.

    Raises:
        OSError: If it cannot be read.
    """
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    facts = file.stat()
    return {
        "bytes": facts.st_size, "modified": facts.st_mtime_ns, "sha256": digest, "part": part
    }  # fmt: skip


def require_unchanged(file: Path, noted: Any, *, part: str | None = None, index: Path) -> None:
    """Refuse an index of a list that was edited since.

    The list need not be there, and may have been copied: its content counts, which is read where
    its size is the same and its time is another.

    Args:
        file: The list.
        noted: What `state_of` gave when the index was written; anything else is not compared.
        part: See `state_of`.
        index: The index.

    Raises:
        ValueError: If the list has changed, or another part of it is asked for.
    """
    if not isinstance(noted, dict) or "sha256" not in noted:
        return
    if noted.get("part") != part:
        raise ValueError(
            f"{index} is the index of the part {noted.get('part')} of {file}, and {part} is asked "
            "for: write it again"
        )
    if not file.is_file():
        return
    facts = file.stat()
    if (facts.st_size, facts.st_mtime_ns) == (noted.get("bytes"), noted.get("modified")):
        return
    if facts.st_size != noted.get("bytes") or state_of(file)["sha256"] != noted["sha256"]:
        raise ValueError(
            f"{file} has changed since its index {index} was written: write it again with "
            "`eva data verify` and --overwrite"
        )
