"""Tar shards: the files in them and where these lie, and patterns that name shards."""

import glob
import logging
import os
import re
import tarfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from eva_data.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, require_regular_file

logger = logging.getLogger(__name__)

_AT_ONCE = 2**20  # bytes behind the last member


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


def shard_pattern(path: Path) -> str | None:
    """Return the pattern of the shards that a path names: itself, or that of a folder of shards.

    As img2dataset writes such folders, they may have tables beside the tar files; one with other
    folders, images or videos holds archives of these, and is None like all that are no shards.
    """
    if not path.is_dir():
        return str(path) if path.suffix == ".tar" or path.name.endswith("}") else None
    others, has_shards = IMAGE_SUFFIXES | VIDEO_SUFFIXES, False
    with os.scandir(path) as entries:
        for entry in (entry for entry in entries if entry.name[0] not in "._"):
            suffix = Path(entry.name).suffix
            if entry.is_dir() or suffix.lower() in others:
                return None
            has_shards |= suffix == ".tar"
    is_plain = "{" not in str(path)  # which a pattern would expand
    return f"{glob.escape(str(path))}/*.tar" if has_shards and is_plain else None


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
