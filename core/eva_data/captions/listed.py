"""Pairs of a list: the captions are in memory or in a mapped index, the pictures in files.

Pictures and captions are kept as bytes and ends, without an object for each: a list of 12 million
takes 1.3 GB, which forked workers share, and twice as much more while it is read. With an index
file all processes of a machine share it, and the list is not read again.
"""

import os
import zlib
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eva_data.captions.captioned_images import CaptionedImages
from eva_data.captions.left_out import LeftOut
from eva_data.captions.texts import UnreadableCaptionError, problem_of
from eva_data.index import CAPTION_KIND, Names, Table

CAPTIONS, FIRST = "captions", "captions.first"  # texts, and where those of each picture begin


class ListedCaptions(CaptionedImages):
    """Pictures in files whose captions a list has.

    Args:
        root: Folder of relative paths.
        table: See `table_of_pairs`.
        left_out: What makes no pair.

    Raises:
        ValueError: If the table is damaged.
    """

    def __init__(self, root: Path, table: Table, *, left_out: LeftOut | None = None) -> None:
        super().__init__(left_out)
        self.root, self.table = root, table
        self.names, self._texts = Names(table), Names(table, CAPTIONS)
        first = table[FIRST] if FIRST in table else np.zeros(0, np.int64)
        if len(first) != len(self.names) + 1 or int(first[-1]) != len(self._texts):
            raise ValueError(f"the index of {root} is damaged: write it again")

    def __len__(self) -> int:
        return len(self.names)

    def sample_id(self, index: int) -> str:
        """Name a picture by its path."""
        return str(self.source(index))

    def name(self, index: int) -> str:
        """Name a picture by its path below the root; one outside of it by the complete path."""
        path = os.path.normpath(self.names[self.require(index)])
        below = os.path.join(os.path.abspath(self.root), "")  # noqa: PTH100, PTH118 (of millions)
        return path.removeprefix(below)

    def source(self, index: int) -> Path:
        """Name a file."""
        return self.root / self.names[self.require(index)]

    def captions(self, index: int) -> tuple[str, ...]:
        """See `CaptionedImages`."""
        begin, end = (int(place) for place in self.table[FIRST][index : index + 2])
        texts = tuple(self._texts[place] for place in range(begin, end))
        if not texts or any(problem_of(text) for text in texts):  # of an index that was changed
            raise UnreadableCaptionError(f"{self.sample_id(index)}: the index is damaged")
        return texts

    def checksum(self) -> int:
        """See `CaptionedImages`."""
        value = self._texts.checksum() << 32 | self.names.checksum()
        return zlib.crc32(self.table[FIRST].data, zlib.crc32(value.to_bytes(8, "little")))


def table_of_pairs(pairs: Iterable[tuple[str, str]], about: Any = None) -> Table:
    """Gather the captions of each picture.

    Args:
        pairs: Path of the picture, and a caption.
        about: Description of the table, such as the state of the list.

    Returns:
        Arrays `names.*`, the pictures in the order in which they come first; `captions.*`, their
        captions in the order of the list; and `captions.first`, (number of pictures + 1,).
    """
    numbers: dict[str, int] = {}
    owners = array("q")

    def texts() -> Iterator[str]:
        for path, caption in pairs:
            owners.append(numbers.setdefault(path, len(numbers)))
            yield caption

    captions = Names.collect(texts(), CAPTIONS)
    owner = np.frombuffer(owners, np.int64) if owners else np.zeros(0, np.int64)
    if (np.diff(owner) < 0).any():  # the captions of a picture do not follow each other
        order = np.argsort(owner, kind="stable")
        captions = Names.collect((captions[int(place)] for place in order), CAPTIONS)
    counts = np.bincount(owner, minlength=len(numbers))
    arrays: dict[str, NDArray[Any]] = {FIRST: np.concatenate([[0], np.cumsum(counts)])}
    arrays |= captions.arrays() | Names.collect(numbers).arrays()
    return Table(arrays, about, kind=CAPTION_KIND)


def accepted(path: str, caption: str, where: str, left_out: LeftOut) -> Iterator[tuple[str, str]]:
    """Yield a pair of a list, if it is one.

    Args:
        path: Path of the picture.
        caption: Its caption.
        where: Its place in the list.
        left_out: Where it is counted if it is not.
    """
    caption = caption.strip()
    if not path:
        left_out.add("unpictured", where)
    elif problem := problem_of(caption):
        left_out.add(problem, f"{where}, {path}")
    else:
        yield path, caption
