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

_BYTES, _ENDS = _ARRAYS = ("names.bytes", "names.ends")


class Names:
    """A sequence of file names, kept as two arrays of a table.

    Args:
        table: Arrays by name: `names.bytes`, all names one after another, and `names.ends`.

    Raises:
        ValueError: If the table lacks one of them.
    """

    def __init__(self, table: Mapping[str, NDArray[Any]]) -> None:
        if lacking := [name for name in _ARRAYS if name not in table]:
            raise ValueError(f"the index lacks {' and '.join(lacking)}: write it again")
        self._table = table  # sent to a worker, it maps its file again

    @classmethod
    def collect(cls, names: Iterable[str]) -> "Names":
        """Put names into memory."""
        content, ends = bytearray(), array("q")
        for name in names:
            content += os.fsencode(name)
            ends.append(len(content))
        parts = (memoryview(content), memoryview(ends))  # arrays of them, without a copy
        return cls(dict(zip(_ARRAYS, map(np.asarray, parts), strict=True)))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the two arrays, for a table."""
        return {name: self._table[name] for name in _ARRAYS}

    def checksum(self) -> int:
        """Compute a number that changes with any name or their order."""
        return zlib.crc32(self._table[_ENDS].data, zlib.crc32(self._table[_BYTES].data))

    def __len__(self) -> int:
        return len(self._table[_ENDS])

    def __getitem__(self, index: int) -> str:
        ends = self._table[_ENDS]
        if not 0 <= index < len(ends):
            raise IndexError(f"no name {index} among {len(ends)}")
        begin = ends[index - 1] if index else 0
        return os.fsdecode(self._table[_BYTES][begin : ends[index]].tobytes())

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))
