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
    """A sequence of file names, or of other short texts, kept as two arrays of a table.

    Args:
        table: Arrays by name: `names.bytes`, all names one after another, and `names.ends`.
        prefix: First part of the arrays' names.

    Raises:
        ValueError: If the table lacks one of them.
    """

    def __init__(self, table: Mapping[str, NDArray[Any]], prefix: str = "names") -> None:
        self._bytes, self._ends = f"{prefix}.bytes", f"{prefix}.ends"
        if lacking := [name for name in (self._bytes, self._ends) if name not in table]:
            raise ValueError(f"the index lacks {' and '.join(lacking)}: write it again")
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
