"""Random access into tar shards, as webdataset, img2dataset and video2dataset write them.

Reading shards as a stream cannot be resumed at an exact place and shuffles only within a buffer.
An index of where every member lies makes a shard a dataset like any other: any of them can be read
at any time, by one `open`, `seek` and `read`. Members are never unpacked to the disk.
"""

import itertools
import math
import os
import re
import tarfile
from array import array
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eva_data.files import require_regular_file
from eva_data.index import IMAGE_KIND, Names, Table, damaged

PLACES = ("shard", "offset", "size")  # arrays of an index
MOST_SHARDS = 1_000_000
_DIGITS = 18


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


class TarIndex:
    """Files in tar shards by their places.

    Args:
        shards: The tar files.
        table: Index of the members, see `index_members`.

    Raises:
        ValueError: If the index is of other shards, or damaged.
    """

    def __init__(self, shards: Sequence[Path], table: Table) -> None:
        self.shards, self.table, self.names = shards, table, Names(table)
        actual = [[shard.name, shard.stat().st_size] for shard in shards]
        if not isinstance(table.about, list):
            raise damaged("the index", "it is not an index of shards")
        if table.about != actual:
            differ = (a or b for a, b in itertools.zip_longest(actual, table.about) if a != b)
            raise ValueError(
                f"the index is of {len(table.about)} shards, and there are {len(actual)}; "
                f"{next(differ)[0]} is the first that is new, gone or of another size: write the "
                "index again"
            )
        table.require_equal_lengths(*PLACES, length=len(self.names))

    def __len__(self) -> int:
        return len(self.names)

    def sample_id(self, index: int) -> str:
        """Name shard and member, `folder/shard-0000.tar:key.jpg`."""
        return f"{self._shard(index)}:{self.names[index]}"

    def _shard(self, index: int) -> Path:
        number = int(self.table["shard"][index])
        if not 0 <= number < len(self.shards):
            raise damaged("the index", f"{index} is in shard {number} of {len(self.shards)}")
        return self.shards[number]

    def size(self, index: int) -> int:
        """Return the bytes of a member's content.

        Raises:
            OSError: If the index is damaged.
        """
        size = int(self.table["size"][index])
        if size < 0:
            raise OSError(f"{self.sample_id(index)}: the index is damaged")
        return size

    def read(self, index: int) -> bytes:
        """Read a member.

        Raises:
            OSError: If it cannot be read; the message names it.
        """
        return self.read_beside(index, int(self.table["offset"][index]), self.size(index))

    def read_beside(self, index: int, offset: int, size: int) -> bytes:
        """Read a member, or another one of the same key.

        Its header must be right before it and have the key: a shard that was replaced by another
        of the same size would give wrong samples.

        Args:
            index: The member.
            offset: Where the content begins, in bytes.
            size: Its bytes.

        Raises:
            OSError: If it cannot be read; the message names the member.
        """
        where, shard = self.sample_id(index), self._shard(index)
        if offset < tarfile.BLOCKSIZE:
            raise OSError(f"{where}: the index is damaged")
        begin, wanted = offset - tarfile.BLOCKSIZE, size + tarfile.BLOCKSIZE
        try:
            require_regular_file(shard)
            with shard.open("rb") as stream:
                there = os.fstat(stream.fileno()).st_size - begin
                stream.seek(begin)
                content = stream.read(min(wanted, max(there, 0)))
        except (OSError, MemoryError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error) or "too large for the memory"
            raise OSError(f"{where}: {reason}") from error
        if len(content) < wanted:
            raise OSError(f"{where}: the shard ends before")
        self._check_header(index, content[: tarfile.BLOCKSIZE])
        return content[tarfile.BLOCKSIZE :]

    def _check_header(self, index: int, block: bytes) -> None:
        name, again = self.names[index], "another than that of the index: write the index again"
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.TarError as error:
            raise OSError(
                f"{self.sample_id(index)}: the shard is damaged, or {again} ({error})"
            ) from error
        # other names stand in a header of their own, and are cut or changed in this one
        is_plain = name.isascii() and len(name) <= tarfile.LENGTH_NAME
        if is_plain and key_of(header.name) != key_of(name):
            raise OSError(
                f"{self.sample_id(index)}: the shard has {header.name!r} there, and is {again}"
            )


def index_members(
    shards: Sequence[Path], suffixes: Collection[str], *, kind: str = IMAGE_KIND
) -> Table:
    """Look through tar files.

    Args:
        shards: The files.
        suffixes: See `find_members`.
        kind: Kind of the index.

    Returns:
        See `table_of_members`.

    Raises:
        ValueError: If a shard is damaged or compressed.
    """
    found = ((i, one) for i, shard in enumerate(shards) for one in find_members(shard, suffixes))
    return table_of_members(shards, found, kind=kind)


def table_of_members(
    shards: Sequence[Path], members: Iterator[tuple[int, Member]], *, kind: str = IMAGE_KIND
) -> Table:
    """Make an index.

    Args:
        shards: The tar files.
        members: Number of the shard of each member, and the member.
        kind: Kind of the index.

    Returns:
        Arrays `shard`, `offset` and `size`, and the names of the members; the description holds
        name and size of every shard.
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
    return Table(arrays, [[shard.name, shard.stat().st_size] for shard in shards], kind=kind)


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
            for entry in tar:
                member = Member(entry.name, entry.offset_data, entry.size)
                wanted = suffixes is None or member.suffix in suffixes
                if wanted and entry.isfile() and not entry.issparse():
                    if not 0 <= entry.size <= length - entry.offset_data:
                        raise tarfile.ReadError(f"a member of {entry.size} bytes")
                    yield member
        with shard.open("rb") as stream:
            stream.seek(tar.offset)
            if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile takes it for the end
                raise tarfile.ReadError(f"no header at byte {tar.offset}")
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{shard} is not a tar file, or is damaged or compressed ({error}): download it again, "
            "or uncompress it"
        ) from error


def is_shard_pattern(path: Path) -> bool:
    """Return whether a path names shards: tar files, or a pattern of them."""
    return path.suffix == ".tar" or (path.name.endswith("}") and not path.is_dir())


def expand_shards(pattern: str | Sequence[str], *, missing: list[str] | None = None) -> list[Path]:
    """Turn patterns into the paths of existing files.

    Args:
        pattern: Path with `{0000..0099}` for numbers of that many digits, `{a,b}` for
            alternatives, and the `*`, `?` and `[...]` of a shell; or several patterns.
        missing: List that takes the files that are not there; None refuses them.

    Raises:
        ValueError: If a file is not there, nothing fits a pattern, or one stands for more than
            `MOST_SHARDS` files.
    """
    paths: list[Path] = []
    for one in [pattern] if isinstance(pattern, str) else pattern:
        for path in _expand_braces(one):
            if any(character in path for character in "*?["):
                root = Path(Path(path).anchor or ".")
                matches = root.glob(str(Path(path).relative_to(root)))
                found = sorted(match for match in matches if match.is_file())
                if not found:
                    raise ValueError(f"no shard fits {path!r}")
                paths += found
            elif Path(path).is_file():
                paths.append(Path(path))
            elif missing is None:
                raise ValueError(f"there is no shard {path} (of {one!r})")
            else:
                missing.append(path)
            if len(paths) > MOST_SHARDS:
                raise ValueError(f"{one!r} stands for more than {MOST_SHARDS:,} shards")
    if not paths:
        raise ValueError(f"no shard of {pattern!r} is there" if missing else "no shard was named")
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
        raise ValueError(f"{{{text[:40]}}} has numbers of more than {_DIGITS} digits")
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
