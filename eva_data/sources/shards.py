"""Random access into tar shards, as webdataset and img2dataset write them.

Reading shards as a stream cannot be resumed at an exact place and shuffles only within a buffer.
An index of where every image lies makes a shard a data set like any other: any image can be read
at any time, by one `open`, `seek` and `read`.
"""

import itertools
import logging
import math
import re
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eva_data.files import require_regular_file
from eva_data.names import Names
from eva_data.pictures import UnreadableImageError, check_encoded_size
from eva_data.sources.image_source import ImageSource
from eva_data.sources.index_file import Table
from eva_data.suffixes import PICTURES
from eva_data.transforms import TensorTransform

logger = logging.getLogger(__name__)


MOST_SHARDS = 1_000_000
_DIGITS = 18
_PLACES = ("shard", "offset", "size")  # arrays of an index


class Member(NamedTuple):
    """An image in a shard.

    Attributes:
        name: The member's name.
        offset: Place of its content in the tar file, in bytes.
        size: Bytes of its content.
    """

    name: str
    offset: int
    size: int


class TarShards(ImageSource):
    """The images in tar shards, in the order of the shards and of their members.

    All members that are pictures count, whatever else (captions, labels) shares their key.

    Args:
        pattern: Pattern of the shards' paths, or several; see `expand`.
        transform: See `ImageSource`.
        table: The index; None looks through the shards.

    Raises:
        ValueError: If a shard is not there, damaged, compressed or without images, or if the index
            is of other shards.
    """

    def __init__(
        self,
        pattern: str | Sequence[str],
        transform: TensorTransform | None = None,
        *,
        table: Table | None = None,
    ) -> None:
        super().__init__(transform)
        self.shards = expand(pattern)
        self._table = index_shards(self.shards) if table is None else table
        _check_fits(self._table, self.shards)
        self._names = Names(self._table)

    def __len__(self) -> int:
        return len(self._names)

    def sample_id(self, index: int) -> str:
        """Name shard and member, `folder/shard-0000.tar:key.jpg`."""
        name = self._names[index]
        return f"{self._shard(index)}:{name}"

    def _shard(self, index: int) -> Path:
        number = int(self._table["shard"][index])
        if not 0 <= number < len(self.shards):
            raise ValueError(
                f"the index is damaged, it has image {index} in shard {number} of "
                f"{len(self.shards)}: write it again"
            )
        return self.shards[number]

    def read(self, index: int) -> bytes:
        """Read a member."""
        shard = self._shard(index)
        size, offset = (int(self._table[key][index]) for key in ("size", "offset"))
        if size < 0 or offset < 0:
            raise UnreadableImageError(f"{self.sample_id(index)}: the index is damaged")
        check_encoded_size(size, self.sample_id(index))
        try:
            require_regular_file(shard)
            with shard.open("rb") as stream:
                stream.seek(offset)
                content = stream.read(size)
        except OSError as error:
            reason = error.strerror or str(error)
            raise UnreadableImageError(f"{self.sample_id(index)}: {reason}") from error
        if len(content) < size:
            raise UnreadableImageError(f"{self.sample_id(index)}: the shard ends before")
        return content

    def checksum(self) -> int:
        """See `ImageSource`; the shards' own paths do not matter."""
        return self._names.checksum()

    def index(self) -> Table:
        """Give the members' places, to be saved."""
        return self._table


def index_shards(shards: Sequence[Path]) -> Table:
    """Look through tar files for pictures.

    Args:
        shards: The files.

    Returns:
        Arrays `shard`, `offset` and `size`, and the names of the members; the description holds
        name and size of every shard.

    Raises:
        ValueError: If a shard is damaged or compressed, or if there is no image in any.
    """
    numbers, offsets, sizes = array("i"), array("q"), array("q")

    def names() -> Iterator[str]:
        for number, shard in enumerate(shards):
            for member in find_members(shard):
                numbers.append(number)
                offsets.append(member.offset)
                sizes.append(member.size)
                yield member.name

    collected = Names.collect(names())
    if not len(collected):
        raise ValueError(f"no image in {shards[0]} (and {len(shards) - 1} more shards)")
    arrays: dict[str, NDArray[Any]] = {
        "shard": np.frombuffer(numbers, np.int32),
        "offset": np.frombuffer(offsets, np.int64),
        "size": np.frombuffer(sizes, np.int64),
        **collected.arrays(),
    }
    return Table(arrays, [[shard.name, shard.stat().st_size] for shard in shards])


def find_members(shard: Path) -> Iterator[Member]:
    """Yield the pictures of a tar file, in its order.

    Raises:
        ValueError: If the file is damaged or compressed.
    """
    try:
        require_regular_file(shard)
        # "r:" refuses compressed files, in which no place can be read directly
        with tarfile.open(shard, "r:", errors="surrogateescape") as tar:
            for member in tar:
                base = member.name.rpartition("/")[2]
                suffix = base[len(base.partition(".")[0]) :].lower()
                if member.isfile() and not member.issparse() and suffix in PICTURES:
                    yield Member(member.name, member.offset_data, member.size)
        with shard.open("rb") as stream:
            stream.seek(tar.offset)
            if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile takes it for the end
                raise tarfile.ReadError(f"no header at byte {tar.offset}")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(
            f"{shard} is not a tar file, or is damaged or compressed ({error}): download it again, "
            "or uncompress it"
        ) from error


def expand(pattern: str | Sequence[str]) -> list[Path]:
    """Turn patterns into the paths of existing files.

    Args:
        pattern: Path with `{0000..0099}` for numbers of that many digits, `{a,b}` for
            alternatives, and the `*`, `?` and `[...]` of a shell; or several patterns.

    Raises:
        ValueError: If a file is not there, nothing fits a pattern, or one stands for more than
            `MOST_SHARDS` files.
    """
    patterns = [pattern] if isinstance(pattern, str) else list(pattern)
    paths: list[Path] = []
    for one in patterns:
        for path in _expand_braces(one):
            if any(character in path for character in "*?["):
                root = Path(Path(path).anchor or ".")
                matches = root.glob(str(Path(path).relative_to(root)))
                found = sorted(match for match in matches if match.is_file())
                if not found:
                    raise ValueError(f"no shard fits {path!r}")
                paths += found
            elif not Path(path).is_file():
                raise ValueError(f"there is no shard {path} (of {one!r})")
            else:
                paths.append(Path(path))
            if len(paths) > MOST_SHARDS:
                raise ValueError(f"{one!r} stands for more than {MOST_SHARDS:,} shards")
    if not paths:
        raise ValueError("no shard was named")
    return paths


def _expand_braces(pattern: str) -> Iterator[str]:
    """Yield the paths one by one: a pattern of some bytes may stand for more than the memory."""
    pieces = re.split(r"\{([^{}]*)\}", pattern)  # text, braces, text, braces, ..., text
    choices = [[text] if number % 2 == 0 else _choices(text) for number, text in enumerate(pieces)]
    count = math.prod(map(len, choices))
    if count > MOST_SHARDS:
        raise ValueError(
            f"{pattern!r} stands for {count:,} shards, more than {MOST_SHARDS:,}: name those that "
            "are there, with * or with several patterns"
        )
    for chosen in itertools.product(*choices):
        yield "".join(chosen)


def _choices(text: str) -> Sequence[str]:
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", text)
    if numbers is None:
        return text.split(",")
    first, last = numbers.groups()
    if max(len(first), len(last)) > _DIGITS:
        raise ValueError(f"{{{text}}} has numbers of more than {_DIGITS} digits")
    if int(first) > int(last):
        raise ValueError(f"{{{text}}} counts down; write {{{last}..{first}}}")
    return _Numbers(int(first), int(last), len(first))


class _Numbers(Sequence[str]):
    """Numbers with leading zeros, made when they are asked for."""

    def __init__(self, first: int, last: int, digits: int) -> None:
        self._numbers, self._digits = range(first, last + 1), digits

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        return str(self._numbers[index]).zfill(self._digits)


def _check_fits(table: Table, shards: Sequence[Path]) -> None:
    known = table.about
    actual = [[shard.name, shard.stat().st_size] for shard in shards]
    if known == actual:
        lengths = {name: len(table[name]) if name in table else 0 for name in _PLACES}
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
