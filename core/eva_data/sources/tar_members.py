"""Random access into tar shards, as webdataset, img2dataset and video2dataset write them.

Reading shards as a stream cannot be resumed at an exact place and shuffles only within a buffer.
An index of where every member lies makes a shard a data set like any other: any of them can be
read at any time, by one `open`, `seek` and `read`.
"""

import itertools
import os
import tarfile
from array import array
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eva_data.files import require_regular_file
from eva_data.sources.index_file import Table
from eva_data.sources.names import Names

PLACES = ("shard", "offset", "size")  # arrays of an index


class Member(NamedTuple):
    """A file in a shard.

    Attributes:
        name: The member's name.
        offset: Place of its content in the tar file, in bytes.
        size: Bytes of its content.
    """

    name: str
    offset: int
    size: int

    @property
    def key(self) -> str:
        """The name up to the first dot behind its folder, which files of one sample share."""
        return key_of(self.name)

    @property
    def suffix(self) -> str:
        """What follows the key, in lower case."""
        return self.name[len(self.key) :].lower()


def key_of(name: str) -> str:
    """Take the key of a member's name: all up to the first dot behind its folder."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


class TarMembers:
    """Files in tar shards by their places.

    Args:
        shards: The tar files.
        table: Index of the members, see `index_members`.
        what: Name of a member in messages.

    Raises:
        ValueError: If the index is of other shards, or damaged.
    """

    def __init__(self, shards: Sequence[Path], table: Table, *, what: str) -> None:
        _check_fits(table, shards)
        self.shards, self.table, self.names = shards, table, Names(table)
        self._what = what

    def __len__(self) -> int:
        return len(self.names)

    def sample_id(self, index: int) -> str:
        """Name shard and member, `folder/shard-0000.tar:key.jpg`."""
        name = self.names[index]
        return f"{self._shard(index)}:{name}"

    def _shard(self, index: int) -> Path:
        number = int(self.table["shard"][index])
        if not 0 <= number < len(self.shards):
            raise ValueError(
                f"the index is damaged, it has {self._what} {index} in shard {number} of "
                f"{len(self.shards)}: write it again"
            )
        return self.shards[number]

    def size(self, index: int) -> int:
        """Give the bytes of a member's content.

        Raises:
            OSError: If the index is damaged.
        """
        size, offset = (int(self.table[key][index]) for key in ("size", "offset"))
        if size < 0 or offset < 0:
            raise OSError(f"{self.sample_id(index)}: the index is damaged")
        return size

    def read(self, index: int) -> bytes:
        """Read a member.

        Raises:
            OSError: If it cannot be read; the message names it.
        """
        return self.read_beside(index, int(self.table["offset"][index]), self.size(index))

    def read_beside(self, index: int, offset: int, size: int) -> bytes:
        """Read another part of the shard of a member.

        Args:
            index: The member.
            offset: Where it begins, in bytes.
            size: Its bytes.

        Raises:
            OSError: If it cannot be read; the message names the member.
        """
        shard = self._shard(index)
        try:
            require_regular_file(shard)
            with shard.open("rb") as stream:
                there = os.fstat(stream.fileno()).st_size - offset
                stream.seek(offset)
                content = stream.read(min(size, max(there, 0)))
        except (OSError, MemoryError) as error:
            reason = getattr(error, "strerror", None) or str(error) or "too large for the memory"
            raise OSError(f"{self.sample_id(index)}: {reason}") from error
        if len(content) < size:
            raise OSError(f"{self.sample_id(index)}: the shard ends before")
        return content


def index_members(shards: Sequence[Path], suffixes: Collection[str]) -> Table:
    """Look through tar files.

    Args:
        shards: The files.
        suffixes: See `find_members`.

    Returns:
        Arrays `shard`, `offset` and `size`, and the names of the members; the description holds
        name and size of every shard.

    Raises:
        ValueError: If a shard is damaged or compressed.
    """
    return table_of_members(
        shards,
        (
            (number, member)
            for number, shard in enumerate(shards)
            for member in find_members(shard, suffixes)
        ),
    )


def table_of_members(shards: Sequence[Path], members: Iterator[tuple[int, Member]]) -> Table:
    """Make an index.

    Args:
        shards: The tar files.
        members: Number of the shard of each member, and the member.

    Returns:
        See `index_members`.
    """
    numbers, offsets, sizes = array("i"), array("q"), array("q")

    def names() -> Iterator[str]:
        for number, member in members:
            numbers.append(number)
            offsets.append(member.offset)
            sizes.append(member.size)
            yield member.name

    collected = Names.collect(names())
    arrays: dict[str, NDArray[Any]] = {
        "shard": np.frombuffer(numbers, np.int32),
        "offset": np.frombuffer(offsets, np.int64),
        "size": np.frombuffer(sizes, np.int64),
        **collected.arrays(),
    }
    return Table(arrays, [[shard.name, shard.stat().st_size] for shard in shards])


def find_members(shard: Path, suffixes: Collection[str] | None) -> Iterator[Member]:
    """Yield the files of some kinds in a tar file, in its order.

    Args:
        shard: The tar file.
        suffixes: What follows the key in their names, in lower case, such as `.jpg`. As webdataset
            has it, the key ends at the first dot of a name. None takes all files.

    Raises:
        ValueError: If the file is damaged or compressed.
    """
    try:
        require_regular_file(shard)
        length = shard.stat().st_size
        # "r:" refuses compressed files, in which no place can be read directly
        with tarfile.open(shard, "r:", errors="surrogateescape") as tar:
            for member in tar:
                base = member.name.rpartition("/")[2]
                suffix = base[len(base.partition(".")[0]) :].lower()
                wanted = suffixes is None or suffix in suffixes
                if wanted and member.isfile() and not member.issparse():
                    if not 0 <= member.size <= length - member.offset_data:
                        raise tarfile.ReadError(f"a member of {member.size} bytes")
                    yield Member(member.name, member.offset_data, member.size)
        with shard.open("rb") as stream:
            stream.seek(tar.offset)
            if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile takes it for the end
                raise tarfile.ReadError(f"no header at byte {tar.offset}")
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{shard} is not a tar file, or is damaged or compressed ({error}): download it again, "
            "or uncompress it"
        ) from error


def _check_fits(table: Table, shards: Sequence[Path]) -> None:
    known = table.about
    actual = [[shard.name, shard.stat().st_size] for shard in shards]
    if known == actual:
        lengths = {name: len(table[name]) if name in table else 0 for name in PLACES}
        if len({*lengths.values(), len(Names(table))}) > 1:
            raise ValueError(f"the index is damaged, it has places of {lengths}: write it again")
        return
    if not isinstance(known, list):
        raise ValueError("the index is not an index of shards; remove it, and it is written again")
    first = next(a or b for a, b in itertools.zip_longest(actual, known) if a != b)
    raise ValueError(
        f"the index is of {len(known)} shards, and there are {len(actual)}; {first[0]} is the "
        "first that is new, gone or of another size: remove the index, and it is written again"
    )
