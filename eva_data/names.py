"""Names of millions of files that cost little memory.

Thirty million file names as Python strings take 3 GB in every process. Here they are one array of
bytes and one of ends, which the processes of a loader share.
"""

import os
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Names:
    """A sequence of file names, kept as two arrays of a table.

    Args:
        table: Arrays by name: `{key}.bytes`, all names one after another, and `{key}.ends`.
        key: Name of the sequence in the table.

    Raises:
        ValueError: If the table lacks one of them.
    """

    def __init__(self, table: Mapping[str, NDArray[Any]], key: str = "names") -> None:
        lacking = [name for name in (f"{key}.bytes", f"{key}.ends") if name not in table]
        if lacking:
            raise ValueError(f"the index lacks {' and '.join(lacking)}: write it again")
        self._table, self._key = table, key

    @classmethod
    def collect(cls, names: Iterable[str]) -> "Names":
        """Put names into memory."""
        content, ends = bytearray(), array("q")
        for name in names:
            content += os.fsencode(name)
            ends.append(len(content))
        parts = {"names.bytes": memoryview(content), "names.ends": memoryview(ends)}
        return cls({key: np.asarray(part) for key, part in parts.items()})  # without a copy

    def arrays(self, key: str) -> dict[str, NDArray[Any]]:
        """Give the two arrays under another key, for a table of several sequences."""
        return {f"{key}.{part}": self._table[f"{self._key}.{part}"] for part in ("bytes", "ends")}

    def checksum(self) -> int:
        """Compute a number that changes with any name or their order."""
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
