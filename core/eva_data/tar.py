"""Random access into tar shards by an index of where every member lies."""

import glob
import itertools
import logging
import os
import re
import tarfile
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eva_data.files import require_regular_file
from eva_data.index import IMAGE_KIND, Names, StoredFiles, Table, damaged

logger = logging.getLogger(__name__)

_AT_ONCE = 2**20  # bytes behind the last member
PLACES = ("shard", "offset", "size")  # arrays of an index


class Member(NamedTuple):
    """A file in a shard: its name, the place of its content in the tar file, and bytes of it."""

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


class TarIndex(StoredFiles):
    """Files in tar shards by their places; see `table_of_members`."""

    def __init__(self, shards: Sequence[Path], table: Table) -> None:
        super().__init__(table)
        self.shards = shards
        actual = [[shard.name, shard.stat().st_size] for shard in shards]
        shard_facts = table.about if isinstance(table.about, list) else []
        if shard_facts != actual:
            differ = (a or b for a, b in itertools.zip_longest(actual, shard_facts) if a != b)
            raise damaged("the index", f"{next(differ)} is new, gone or of another size")
        table.require_equal_lengths(*PLACES, length=len(self.names))

    def sample_id(self, index: int) -> str:
        """Name shard and member, `folder/shard-0000.tar:key.jpg`."""
        return f"{self._shard(index)}:{self.names[index]}"

    def _shard(self, index: int) -> Path:
        number = int(self.table["shard"][index])
        if not 0 <= number < len(self.shards):
            raise damaged("the index", f"{index} is in shard {number} of {len(self.shards)}")
        return self.shards[number]

    def read(self, index: int) -> bytes:
        """See `StoredFiles`."""
        offset, size = (int(self.table[name][index]) for name in PLACES[1:])
        return self.read_beside(index, offset, size)

    def read_beside(self, index: int, offset: int, size: int) -> bytes:
        """Read a member by the place of its content and its size, or another one of the same key.

        Its header must be right before it and have the key: a shard that was replaced by another
        of the same size would give wrong samples.
        """
        shard, begin = self._shard(index), offset - tarfile.BLOCKSIZE
        try:
            require_regular_file(shard)
            with shard.open("rb") as stream:
                available = os.fstat(stream.fileno()).st_size - offset
                if begin < 0 or not 0 <= size <= available:
                    raise OSError("the shard ends before, or the index is damaged")
                stream.seek(begin)
                self._check_header(index, stream.read(tarfile.BLOCKSIZE))
                return stream.read(size)
        except (OSError, MemoryError, OverflowError, tarfile.TarError) as error:
            reason = str(error) or "too large for the memory"
            raise OSError(f"{self.sample_id(index)}: {reason}; write the index again?") from error

    def _check_header(self, index: int, block: bytes) -> None:
        name = self.names[index]
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        # other names stand in a header of their own, and are cut or changed in this one
        is_plain = name.isascii() and len(name) <= tarfile.LENGTH_NAME
        if is_plain and key_of(header.name) != key_of(name):
            raise OSError(f"the shard has {header.name!r} there, not what the index says")


def index_members(shards: Sequence[Path], suffixes: Collection[str]) -> Table:
    """Look through tar files for members of some suffixes; see `find_members`."""
    members = (
        (i, member) for i, shard in enumerate(shards) for member in find_members(shard, suffixes)
    )
    return table_of_members(shards, members)


def table_of_members(
    shards: Sequence[Path], members: Iterator[tuple[int, Member]], *, kind: str = IMAGE_KIND
) -> Table:
    """Make an index of members, each with the number of its shard: `PLACES`, and names.

    The description holds name and size of every shard.
    """
    numbers, offsets, sizes = array("i"), array("q"), array("q")

    def names() -> Iterator[str]:
        for number, member in members:
            numbers.append(number)
            offsets.append(member.offset)
            sizes.append(member.size)
            yield member.name

    collected = Names.collect(names())
    places = [np.asarray(values) for values in (numbers, offsets, sizes)]
    arrays = {**dict(zip(PLACES, places, strict=True)), **collected.arrays()}
    return Table(arrays, [[shard.name, shard.stat().st_size] for shard in shards], kind=kind)


def find_members(shard: Path, suffixes: Collection[str] | None) -> Iterator[Member]:
    """Yield the files of some kinds in a tar file, in its order.

    A suffix is what follows the key in a name, in lower case, such as `.jpg`: as webdataset has it,
    the key ends at the first dot; files that this puts in no sample are reported. None takes
    all files. A damaged or compressed file is an error.
    """
    keys, dotted = set[str](), list[Member]()
    try:
        require_regular_file(shard)
        length = shard.stat().st_size
        # "r:" refuses compressed files, in which no place can be read directly
        with tarfile.open(shard, "r:", errors="surrogateescape") as tar:
            for entry in tar:
                member = Member(entry.name, entry.offset_data, entry.size)
                is_selected = suffixes is None or member.suffix in suffixes
                if is_selected and entry.isfile() and not entry.issparse():
                    if not 0 <= entry.size <= length - entry.offset_data:
                        raise tarfile.ReadError(f"a member of {entry.size} bytes")
                    keys.add(member.key)
                    yield member
                elif suffixes and Path(entry.name).suffix.lower() in suffixes:
                    dotted.append(member)  # or of a sample: `key.mask.png`
        with shard.open("rb") as stream:
            stream.seek(tar.offset)  # where tarfile takes what comes for the end
            rest = stream.read(tarfile.BLOCKSIZE)
            is_cut = len(rest) < tarfile.BLOCKSIZE
            while rest and not rest.strip(b"\0"):
                rest = stream.read(_AT_ONCE)
            if is_cut or rest:
                raise tarfile.ReadError(f"neither a header nor the end at byte {tar.offset}")
    except (
        tarfile.TarError,
        OSError,
        EOFError,
        ValueError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise ValueError(
            f"{shard} is not a tar file, or is damaged or compressed ({error}): download it again, "
            "or uncompress it"
        ) from error
    lost = [member.name for member in dotted if member.key not in keys]
    if lost:
        message = "%s: %d files with several dots in their names are left out, such as %s"
        logger.warning(message, shard, len(lost), lost[0])


def group_members(shard: Path, suffixes: Collection[str] | None) -> list[list[Member]]:
    """Gather the files of each key, which need not be neighbours; see `find_members`."""
    samples: dict[str, list[Member]] = {}
    for member in find_members(shard, suffixes):
        samples.setdefault(member.key, []).append(member)
    return [*samples.values()]


def is_shard_pattern(path: Path) -> bool:
    """Return whether a path names shards: tar files, or a pattern of them."""
    return path.suffix == ".tar" or (path.name.endswith("}") and not path.is_dir())


def expand_shards(pattern: str, *, missing: list[str] | None = None) -> list[Path]:
    """Turn a pattern into the paths of existing files.

    `{0000..0099}` stands for numbers of that many digits, `{a,b}` for alternatives, `*`, `?` and
    `[...]` are a shell's. A file that is not there is an error, unless `missing` takes it.
    """
    paths, absent = list[Path](), list[str]()
    for path in expand_braces(pattern):
        is_pattern = any(character in path for character in "*?[")
        names = sorted(glob.glob(path)) if is_pattern else [path]  # noqa: PTH207
        files = [Path(name) for name in names if os.path.isfile(name)]  # noqa: PTH113 (any name)
        paths += files
        if not files:
            absent.append(path)
            if missing is None:
                break  # a pattern may stand for millions
    if not paths or (absent and missing is None):
        raise ValueError(f"there is no shard {', '.join(absent[:1])} (of {pattern!r})")
    if missing is not None:
        missing += absent
    return paths


def expand_braces(pattern: str) -> Iterator[str]:
    """Yield the paths one by one: a pattern of some bytes may stand for more than the memory."""
    braces = re.search(r"\{([^{}]*)\}", pattern)
    if braces is None:
        yield pattern
        return
    choices: Iterable[str] = braces[1].split(",")
    numbers = re.fullmatch(r"(\d{1,18})\.\.(\d{1,18})", braces[1])
    if numbers:
        width = len(numbers[1])
        choices = (f"{n:0{width}}" for n in range(int(numbers[1]), int(numbers[2]) + 1))
    for choice in choices:
        yield from expand_braces(pattern[: braces.start()] + choice + pattern[braces.end() :])
