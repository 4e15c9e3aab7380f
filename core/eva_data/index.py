"""Indexed files: tables of names and numbers, memory-mapped safetensors that all workers share."""

import hashlib
import json
import os
import zlib
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from eva_data.files import open_regular, read_regular
from eva_data.saving import write_tensors

IMAGE_KIND = "eva_data image index 2"
VIDEO_KIND = "eva_data video index 2"
CAPTION_KIND = "eva_data caption index 2"
INDEX_SUFFIX = ".safetensors"
_DTYPES = {"U8": np.uint8, "I32": np.int32, "I64": np.int64}


class Table(Mapping[str, NDArray[Any]]):
    """Named arrays (uint8, int32, int64) with a description, in memory or mapped from a file."""

    def __init__(
        self, arrays: Mapping[str, NDArray[Any]], about: Any = None, *, kind: str = IMAGE_KIND
    ) -> None:
        self._arrays = dict(arrays)
        self.about, self.kind = about, kind
        self._origin: tuple[Path, str] | None = None  # index file, and which part of it

    @classmethod
    def open(cls, file: Path, *, kind: str = IMAGE_KIND) -> "Table":
        """Map an index file of a kind; a ValueError if it is damaged, or of another kind."""
        try:
            with safe_open(file, "np") as opened:  # checks that sizes and offsets fit the file
                metadata = opened.metadata() or {}
            if metadata.get("kind") != kind:
                raise ValueError(f"its kind is {metadata.get('kind')!r} and not {kind!r}")
            with file.open("rb") as stream:
                size = int.from_bytes(stream.read(8), "little")
                header = json.loads(stream.read(size))
            content = np.memmap(file, np.uint8, mode="r")[8 + size :]
            arrays = {}
            for name, entry in header.items():
                if name != "__metadata__":
                    begin, end = entry["data_offsets"]
                    arrays[name] = content[begin:end].view(_DTYPES[entry["dtype"]])
            table = cls(arrays, json.loads(metadata["about"]), kind=kind)
        except (SafetensorError, KeyError, ValueError, RecursionError) as error:
            raise damaged(file, str(error)) from error
        table._origin = (file, "")
        return table

    def save(self, file: Path) -> None:
        """Write an index file, which appears when it is complete."""
        metadata = {"kind": self.kind, "about": json.dumps(self.about)}
        write_tensors(self._arrays, file, metadata)

    def part(self, prefix: str, about: Any = None) -> "Table":
        """Return the arrays of `{prefix}/...` under the rest of their names."""
        start = f"{prefix}/"
        arrays = {k.removeprefix(start): v for k, v in self.items() if k.startswith(start)}
        table = Table(arrays, about, kind=self.kind)
        table._origin = None if self._origin is None else (self._origin[0], prefix)
        return table

    def select(self, which: NDArray[Any]) -> "Table":
        """Take the files of some indexes, or those that a mask keeps."""
        names = Names(self)
        places = np.arange(len(names))[which].tolist()
        arrays = Names.collect(names[index] for index in places).arrays()
        for name in self.keys() - arrays.keys():
            arrays[name] = np.ascontiguousarray(self[name][which])
        return Table(arrays, self.about, kind=self.kind)

    def require_equal_lengths(self, *names: str, length: int) -> None:
        """Refuse a damaged index, whose arrays do not belong together."""
        lengths = {name: len(self[name]) if name in self else 0 for name in names}
        if any(length_of_array != length for length_of_array in lengths.values()):
            raise damaged("the index", f"{lengths} of {length} entries")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self._origin or self._arrays, self.about, self.kind)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def _rebuilt(source: Any, about: Any, kind: str) -> Table:
    """Unpickle a table: a spawned worker maps the file itself."""
    if isinstance(source, dict):
        return Table(source, about, kind=kind)
    file, prefix = source
    table = Table.open(file, kind=kind)
    return table.part(prefix, about) if prefix else table


def damaged(index: Path | str, reason: str) -> ValueError:
    """Make the error about an index that does not hold what it should."""
    return ValueError(f"{index} is not an index, or is damaged ({reason}): write it again")


class Names:
    """A sequence of file names, or of other short texts, kept as two arrays of a table.

    Thirty million Python strings take 3 GB in every process; the processes of a loader share these.
    """

    def __init__(self, table: Mapping[str, NDArray[Any]], prefix: str = "names") -> None:
        self._bytes, self._ends = f"{prefix}.bytes", f"{prefix}.ends"
        if not {self._bytes, self._ends} <= {*table}:
            raise damaged("the index", f"it lacks {self._bytes} or {self._ends}")
        self._table = table  # sent to a worker, it maps its file again

    @classmethod
    def collect(cls, names: Iterable[str], prefix: str = "names") -> "Names":
        """Put names into memory."""
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
        begin = ends[index - 1] if index else 0
        return os.fsdecode(self._table[self._bytes][begin : ends[index]].tobytes())

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))


class StoredFiles(ABC):
    """Files of a dataset by their index: below a folder, or in shards (`TarIndex`)."""

    def __init__(self, table: Table) -> None:
        self.table, self.names = table, Names(table)

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def sample_id(self, index: int) -> str:
        """Name the place of a file, for messages."""

    def name(self, index: int) -> str:
        """Name a file without the place of its dataset."""
        return self.names[index]

    @abstractmethod
    def read(self, index: int) -> bytes:
        """Read a file; an OSError that names it if it cannot be read."""

    def checksum(self) -> int:
        """Compute a number that changes with the names or their order, not with their place."""
        return self.names.checksum()

    def select(self, which: NDArray[np.bool_]) -> Table:
        """Make the table of those files that a mask, (number of files,), keeps."""
        return self.table.select(which)


class FolderFiles(StoredFiles):
    """Files below a folder."""

    def __init__(self, folder: Path, table: Table) -> None:
        super().__init__(table)
        self.folder = folder

    def path(self, index: int) -> Path:
        """Return the path of a file."""
        return self.folder / self.names[index]

    def sample_id(self, index: int) -> str:
        """Name a file by its path."""
        return str(self.path(index))

    def read(self, index: int) -> bytes:
        """See `StoredFiles`."""
        return read_regular(self.path(index))


def state_of(file: Path, part: str | None = None) -> list[Any]:
    """Describe a list before it is read, so that an index of it notices when it was edited."""
    with open_regular(file) as stream:
        return [part, hashlib.file_digest(stream, "sha256").hexdigest()]


def require_unchanged(file: Path, noted: Any, *, part: str | None = None, index: Path) -> None:
    """Refuse an index of a list that was edited since `state_of` noted it, or of another part.

    The list need not be there, and may have been copied: its content counts.
    """
    if noted and noted != (state_of(file, part) if file.is_file() else [part, noted[1]]):
        raise ValueError(
            f"{file} has changed since its index {index} was written, or another part of it is "
            f"asked for ({part}): write it again with `eva data verify` and --overwrite"
        )
