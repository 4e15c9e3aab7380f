"""Large tables of names and numbers that cost little memory, in a file and out of it.

Thirty million file names as Python strings take 3 GB in every process. Here they are one array of
bytes and one of ends. Read from an index file, both are memory-mapped: starting takes no time, and
all workers of a machine, forked or spawned, share one copy.

An index file is a safetensors file; its metadata says which kind of index it is.
"""

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
from safetensors.numpy import save_file

from eva_data.files import replacing

KIND = "eva_pretrain image index 1"
_DTYPES = {"U8": np.uint8, "I32": np.int32, "I64": np.int64}


class Table(Mapping[str, NDArray[Any]]):
    """Named arrays with a description, in memory or mapped from an index file.

    Args:
        arrays: Name -> array of uint8, int32 or int64.
        about: Description, anything that JSON holds.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], about: Any = None) -> None:
        self._arrays = dict(arrays)
        self.about = about
        self._origin: tuple[Path, str] | None = None  # index file, and which part of it

    @classmethod
    def open(cls, file: Path) -> "Table":
        """Map an index file.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is no index file, or a damaged one.
        """
        if not file.is_file():
            raise FileNotFoundError(f"there is no index file {file}")
        try:
            with safe_open(file, "np") as opened:  # checks that sizes and offsets fit the file
                metadata = opened.metadata() or {}
        except SafetensorError as error:
            raise ValueError(f"{file} is no index file, or a damaged one ({error})") from error
        if metadata.get("kind") != KIND:
            raise ValueError(f"{file} is no index of images: its kind is {metadata.get('kind')!r}")
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
            table = cls(arrays, json.loads(metadata["about"]))
        except (KeyError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{file} is a damaged index file ({error!r}): write it again"
            ) from error
        table._origin = (file, "")
        return table

    def save(self, file: Path) -> None:
        """Write an index file, which appears when it is complete."""
        metadata = {"kind": KIND, "about": json.dumps(self.about)}
        with replacing(file) as part:
            save_file(dict(self._arrays), part, metadata=metadata)

    def part(self, prefix: str, about: Any = None) -> "Table":
        """The arrays of `{prefix}/...`, under the rest of their names."""
        start = f"{prefix}/"
        arrays = {k.removeprefix(start): v for k, v in self.items() if k.startswith(start)}
        table = Table(arrays, about)
        table._origin = None if self._origin is None else (self._origin[0], prefix)
        return table

    def __reduce__(self) -> tuple[Any, ...]:
        if self._origin is not None:  # a spawned worker maps the file itself
            return _reopen, (*self._origin, self.about)
        return Table, (self._arrays, self.about)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def _reopen(file: Path, prefix: str, about: Any) -> Table:
    return Table.open(file).part(prefix, about) if prefix else Table.open(file)


class Names:
    """A sequence of file names, kept as two arrays of a table.

    Args:
        table: Has the arrays `{key}.bytes`, all names one after another, and `{key}.ends`.
        key: Of the two arrays.

    Raises:
        ValueError: If the table lacks one of them.
    """

    def __init__(self, table: Table, key: str = "names") -> None:
        lacking = [name for name in (f"{key}.bytes", f"{key}.ends") if name not in table]
        if lacking:
            raise ValueError(f"the index lacks {' and '.join(lacking)}: write it again")
        self._table, self._key = table, key

    @classmethod
    def collect(cls, names: Iterable[str]) -> "Names":
        """Names in memory."""
        content, ends = bytearray(), array("q")
        for name in names:
            content += os.fsencode(name)
            ends.append(len(content))
        if not ends:
            return cls(Table({"names.bytes": np.zeros(0, "u1"), "names.ends": np.zeros(0, "i8")}))
        arrays: dict[str, NDArray[Any]] = {
            "names.bytes": np.frombuffer(content, np.uint8),
            "names.ends": np.frombuffer(ends, np.int64),
        }
        return cls(Table(arrays))

    def arrays(self, key: str) -> dict[str, NDArray[Any]]:
        """The two arrays under another key, for a table of several sequences."""
        return {f"{key}.{part}": self._table[f"{self._key}.{part}"] for part in ("bytes", "ends")}

    def checksum(self) -> int:
        """A number that changes with any name or their order."""
        value = 0
        for part in ("bytes", "ends"):
            value = zlib.crc32(self._table[f"{self._key}.{part}"].data, value)
        return value

    def __len__(self) -> int:
        return len(self._table[f"{self._key}.ends"])

    def __getitem__(self, index: int) -> str:
        ends = self._table[f"{self._key}.ends"]
        if not 0 <= index < len(ends):
            raise IndexError(f"no name {index} among {len(ends)}")
        begin = ends[index - 1] if index else 0
        return os.fsdecode(self._table[f"{self._key}.bytes"][begin : ends[index]].tobytes())

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))
