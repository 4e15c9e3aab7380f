"""Manifests: TOML files that merge several sources, and the index of what is in them.

    root = "$DATASETS"                  # of relative paths; default: the manifest's folder
    index = "merged30m.safetensors"     # optional; written by `eva data verify`

    [[source]]
    name = "coco"
    folder = "coco/train2017"           # the kind of the source, and where it is

    [[source]]
    name = "cc12m"
    shards = "cc12m/{00000..01242}.tar"
    weight = 0.5                        # how often a sample comes in an epoch; default 1
    limit = 1000000                     # most samples in an epoch; default all

Sources follow one another in the manifest's order. `weight` and `limit` take samples evenly from
all of a source, always the same ones, so that an index stands for the same sample in every run.
"""

import difflib
import logging
import os
import re
import tomllib
import zlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from eva_data.files import home_expanded
from eva_data.index import IMAGE_KIND, Table, damaged

logger = logging.getLogger(__name__)

_MANIFEST_KEYS = ("root", "index", "source")
_LARGEST_WEIGHT = 1000  # the order of an epoch lies in memory


@dataclass(frozen=True, kw_only=True)
class Form:
    """What the manifests of one kind of data may say.

    Attributes:
        kinds: Kinds of sources; the key that holds the place of one.
        options: Further keys of a source, which hold text.
        check: Check of `eva data verify` that writes the index.
        index: Kind of the index file.
    """

    kinds: tuple[str, ...]
    options: tuple[str, ...] = ()
    check: str
    index: str


IMAGES = Form(kinds=("folder", "shards"), check="images", index=IMAGE_KIND)


@dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """A source as the manifest states it.

    Attributes:
        name: The source's name.
        kind: What it is, such as "folder" or "shards".
        location: The folder, or the pattern of the shards; full paths.
        weight: Times that a sample comes in an epoch.
        limit: Most samples in an epoch.
        options: What else the manifest says of it; `root` is a full path.
    """

    name: str
    kind: str
    location: str
    weight: float = 1.0
    limit: int | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def samples_of(self, available: int) -> int:
        """Count the samples of the source in an epoch, of those that it has."""
        wanted = max(1, round(self.weight * available))
        return wanted if self.limit is None else min(wanted, self.limit)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A manifest's content.

    Attributes:
        file: The manifest.
        sources: The sources in its order.
        index: The index file, if it names one.
        form: What it may say.
    """

    file: Path
    sources: tuple[SourceEntry, ...]
    index: Path | None
    form: Form = IMAGES

    @classmethod
    def read(
        cls, file: str | os.PathLike[str], *, root: str | None = None, form: Form = IMAGES
    ) -> "Manifest":
        """Read a manifest.

        Args:
            file: The TOML file.
            root: Folder of relative paths, instead of the manifest's `root`.
            form: What it may say.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is not a manifest; the message names the entry.
        """
        path = Path(file)
        if not path.is_file():
            raise FileNotFoundError(f"there is no manifest {path}")
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"{path} is not a TOML file: {error}") from error
        _refuse_unknown(content, _MANIFEST_KEYS, str(path))
        folder = path.parent / expand_path(root or content.get("root", "."), str(path))
        entries = content.get("source")
        if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
            raise ValueError(f"{path} has no source: write one as [[source]]")
        sources = tuple(_source(entry, folder, f"{path}, {entry}", form) for entry in entries)
        names = [source.name for source in sources]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"{path} has no source, or one twice: {', '.join(names)}")
        index = content.get("index")
        return cls(
            file=path,
            sources=sources,
            index=None if index is None else path.parent / expand_path(index, str(path)),
            form=form,
        )


def _source(entry: dict[str, Any], root: Path, where: str, form: Form) -> SourceEntry:
    _refuse_unknown(entry, ("name", *form.kinds, "weight", "limit", *form.options), where)
    kinds = [kind for kind in form.kinds if kind in entry]
    if len(kinds) != 1:
        raise ValueError(f"{where}: give either {' or '.join(form.kinds)}")
    name, weight, limit = entry.get("name"), entry.get("weight", 1.0), entry.get("limit")
    options = {key: entry[key] for key in form.options if key in entry}
    checks = {
        "name": isinstance(name, str) and re.fullmatch(r"[\w.-]+", name),
        "weight": type(weight) in (int, float) and 0 < weight <= _LARGEST_WEIGHT,
        "limit": limit is None or (type(limit) is int and limit >= 1),
        **{key: isinstance(value, str) and value for key, value in options.items()},
    }
    if wrong := [key for key, is_right in checks.items() if not is_right]:
        raise ValueError(
            f"{where}: {wrong[0]} is {entry.get(wrong[0])!r}; a name is of letters, digits, '_', "
            f"'-' and '.', a weight above 0 and at most {_LARGEST_WEIGHT}, a limit an integer from "
            "1, anything else text"
        )
    if "root" in options:
        options["root"] = str(root / expand_path(options["root"], where))
    location = str(root / expand_path(entry[kinds[0]], where))
    return SourceEntry(
        name=str(name),
        kind=kinds[0],
        location=location,
        weight=float(weight),
        limit=limit,
        options=options,
    )


def _refuse_unknown(entry: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in entry:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1) or known
            raise ValueError(f"{where}: unknown key {key!r}; is it {' or '.join(close)}?")


def expand_path(text: Any, where: str) -> Path:
    """Put in the variables of the environment and the home folder.

    Args:
        text: A path.
        where: Place that has it, for messages.

    Raises:
        ValueError: If it is not a path, or a variable is not set.
    """
    if not isinstance(text, str) or not text:
        raise ValueError(f"{where}: {text!r} is not a path")
    expanded = os.path.expandvars(text)
    if unset := re.search(r"\$\{?\w+", expanded):
        raise ValueError(f"{where}: {unset.group()} of {text!r} is not set; export it")
    return home_expanded(expanded)


class Samples(Protocol):
    """What a mixture needs of a source."""

    def __len__(self) -> int: ...

    def checksum(self) -> int:
        """Compute a number that changes with the samples and their order."""


Source = TypeVar("Source", bound=Samples)


class Mixture(Generic[Source]):
    """Which sample of which source stands at each place of an epoch.

    Args:
        sources: The sources.
        entries: What the manifest says of each.

    Attributes:
        counts: Samples of each source in an epoch, by its name.
    """

    def __init__(self, sources: Sequence[Source], entries: Sequence[SourceEntry]) -> None:
        self.sources = sources
        self.counts = {
            entry.name: entry.samples_of(len(source))
            for entry, source in zip(entries, sources, strict=True)
        }
        self._ends = list(accumulate(self.counts.values()))
        for name, count in self.counts.items():
            logger.info("%s: %s samples in an epoch", name, f"{count:,}")

    def __len__(self) -> int:
        return self._ends[-1]

    def locate(self, index: int) -> tuple[Source, int]:
        """Find the source of a sample, and its index there.

        Raises:
            IndexError: If there is no such sample.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"no sample {index} among {len(self)}")
        number = bisect_right(self._ends, index)
        begin = self._ends[number - 1] if number else 0
        source, count = self.sources[number], self._ends[number] - begin
        return source, (index - begin) * len(source) // count  # evenly over all of them

    def checksum(self) -> int:
        """Compute a number that changes with the samples, weights and limits, not with paths."""
        value = zlib.crc32(repr(self.counts).encode())
        for source in self.sources:
            value = zlib.crc32(source.checksum().to_bytes(4, "little"), value)
        return value


def write_index(file: Path, tables: Mapping[str, Table], manifest: Manifest) -> None:
    """Write the index file of a manifest.

    Args:
        file: Is replaced when the new one is complete.
        tables: Samples of each source: arrays `names.*`, and those of `index_members` for shards.
        manifest: The manifest.
    """
    arrays = {f"{name}/{key}": table[key] for name, table in tables.items() for key in table}
    about = []
    for entry in manifest.sources:
        place = asdict(entry) | {"location": os.path.abspath(entry.location)}  # noqa: PTH100 (of a pattern)
        about.append([entry.name, entry.kind, tables[entry.name].about, place])
    Table(arrays, about, kind=manifest.form.index).save(file)


def read_index(manifest: Manifest, file: Path) -> list[Table]:
    """Read the index file of a manifest.

    Args:
        manifest: The manifest.
        file: Its index.

    Returns:
        A table for each source.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is of other sources.
    """
    command = f"eva data verify {manifest.form.check} {manifest.file} --write {file}"
    if not file.is_file():
        raise FileNotFoundError(f"there is no index file {file}; write it with: {command}")
    index = Table.open(file, kind=manifest.form.index)
    try:
        known = [_stated(entry[0], entry[1], entry[3]["options"]) for entry in index.about]
    except (TypeError, LookupError, AttributeError) as error:
        raise damaged(file, repr(error)) from error
    wanted = [_stated(entry.name, entry.kind, entry.options) for entry in manifest.sources]
    if known != wanted:
        raise ValueError(
            f"{file} is the index of {known}, and {manifest.file} has {wanted}; write it again "
            f"with: {command} --overwrite"
        )
    return [index.part(entry[0], entry[2]) for entry in index.about]


def _stated(name: str, kind: str, options: Mapping[str, str]) -> tuple[str, str, dict[str, str]]:
    """Leave out where the data lie, which may change."""
    return name, kind, {key: value for key, value in options.items() if key != "root"}
