"""The images of pre-training: several folders and tar shards, merged by a manifest.

A manifest is a TOML file (`pretrain/configs/merged30m.toml` is the paper's):

    root = "$DATASETS"                  # of relative paths; default: the manifest's folder
    index = "merged30m.safetensors"     # optional; written by tools/verify_data.py

    [[source]]
    name = "coco"
    folder = "coco/train2017"

    [[source]]
    name = "cc12m"
    shards = "cc12m/{00000..01242}.tar"
    weight = 0.5                        # how often an image comes in an epoch; default 1
    limit = 1000000                     # most images in an epoch; default all

Sources follow one another in the manifest's order. `weight` and `limit` take images evenly from all
of a source, always the same ones, so that an index stands for the same image in every run.
"""

import difflib
import logging
import os
import re
import tomllib
import zlib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from eva_data.names import Names
from eva_data.sources.image_source import FolderImages, ImageSource
from eva_data.sources.index_file import Table
from eva_data.sources.patterns import is_pattern
from eva_data.sources.shards import TarShards
from eva_data.transforms import TensorTransform

logger = logging.getLogger(__name__)

_MANIFEST_KEYS = ("root", "index", "source")
_LARGEST_WEIGHT = 1000  # the order of an epoch lies in memory
_SOURCE_KEYS = ("name", "folder", "shards", "weight", "limit")


@dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """A source as the manifest states it.

    Attributes:
        name: The source's name.
        kind: "folder" or "shards".
        location: The folder, or the pattern of the shards; full paths.
        weight: Times that an image comes in an epoch.
        limit: Most images in an epoch.
    """

    name: str
    kind: str
    location: str
    weight: float = 1.0
    limit: int | None = None

    def images_of(self, available: int) -> int:
        """Count the images of the source in an epoch.

        Args:
            available: Images that the source has.
        """
        wanted = max(1, round(self.weight * available))
        return wanted if self.limit is None else min(wanted, self.limit)

    def open(self, table: Table | None = None) -> ImageSource:
        """Open the source with all its images.

        Args:
            table: Its part of the index; None searches for the images.
        """
        if self.kind == "shards":
            return TarShards(self.location, table=table)
        return FolderImages(Path(self.location), names=None if table is None else Names(table))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A manifest's content.

    Attributes:
        file: The manifest.
        sources: The sources in its order.
        index: The index file, if it names one.
    """

    file: Path
    sources: tuple[SourceEntry, ...]
    index: Path | None

    @classmethod
    def read(cls, file: str | os.PathLike[str], *, root: str | None = None) -> "Manifest":
        """Read a manifest.

        Args:
            file: The TOML file.
            root: Folder of relative paths, instead of the manifest's `root`.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is not a manifest; the message names the entry.
        """
        path = Path(file)
        if not path.is_file():
            raise FileNotFoundError(f"there is no manifest {path}")
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path} is not a TOML file: {error}") from error
        _refuse_unknown(content, _MANIFEST_KEYS, str(path))
        folder = path.parent / _expand_path(root or content.get("root", "."), str(path))
        entries = content.get("source")
        if not isinstance(entries, list) or not entries:
            raise ValueError(f"{path} has no source: write one as [[source]]")
        sources = tuple(_source(entry, folder, f"{path}, source {entry}") for entry in entries)
        names = [source.name for source in sources]
        if len(set(names)) < len(names):
            raise ValueError(f"{path} names a source twice: {', '.join(names)}")
        index = content.get("index")
        return cls(
            file=path,
            sources=sources,
            index=None if index is None else path.parent / _expand_path(index, str(path)),
        )


class ManifestImages(ImageSource):
    """All images of a manifest.

    With an index file, the folders are not searched: for millions of images that saves minutes to
    hours at every start, and memory in every worker.

    Args:
        manifest: The TOML file.
        transform: Takes an image, (3, height, width) uint8; None returns it as it is.

    Raises:
        FileNotFoundError: If the manifest, or the index that it names, is not there.
        ValueError: If the manifest is wrong, a source has no images, or the index is of others.
    """

    def __init__(
        self, manifest: str | os.PathLike[str], transform: TensorTransform | None = None
    ) -> None:
        super().__init__(transform)
        self.manifest = Manifest.read(manifest)
        if self.manifest.index is None:
            self.sources = [entry.open() for entry in self.manifest.sources]
        else:
            self.sources = _open_indexed(self.manifest, self.manifest.index)
        self.counts = {
            entry.name: entry.images_of(len(source))
            for entry, source in zip(self.manifest.sources, self.sources, strict=True)
        }
        self._ends = list(accumulate(self.counts.values()))
        for name, count in self.counts.items():
            logger.info("%s: %s images in an epoch", name, f"{count:,}")

    def __len__(self) -> int:
        return self._ends[-1]

    def locate(self, index: int) -> tuple[ImageSource, int]:
        """Find the source of an image, and its index there."""
        if not 0 <= index < len(self):
            raise IndexError(f"no image {index} among {len(self)}")
        number = bisect_right(self._ends, index)
        source = self.sources[number]
        begin = self._ends[number - 1] if number else 0
        count = self._ends[number] - begin
        return source, (index - begin) * len(source) // count  # evenly over all its images

    def sample_id(self, index: int) -> str:
        """See `ImageSource`."""
        source, place = self.locate(index)
        return source.sample_id(place)

    def read(self, index: int) -> bytes:
        """See `ImageSource`."""
        source, place = self.locate(index)
        return source.read(place)

    def checksum(self) -> int:
        """See `ImageSource`; weights and limits count, the sources' paths do not."""
        value = zlib.crc32(repr(self.counts).encode())
        for source in self.sources:
            value = zlib.crc32(source.checksum().to_bytes(4, "little"), value)
        return value


def open_images(location: str, transform: TensorTransform | None = None) -> ImageSource:
    """Open images by whatever names them.

    Args:
        location: A manifest (`.toml`), a folder, or a pattern of tar shards.
        transform: Takes an image, (3, height, width) uint8; None returns it as it is.

    Raises:
        FileNotFoundError: If there is no such manifest.
        ValueError: If there is no such folder or shard, or no image in it.
    """
    path = _expand_path(location, "the images")
    if path.suffix == ".toml":
        return ManifestImages(path, transform)
    if is_pattern(path):
        return TarShards(str(path), transform)
    return FolderImages(path, transform)


def write_index(file: Path, tables: Mapping[str, Table], manifest: Manifest) -> None:
    """Write the index file of a manifest.

    Args:
        file: Is replaced when the new one is complete.
        tables: Images of each source: arrays `names.*`, and those of `index_members` for shards.
        manifest: The manifest.
    """
    arrays = {f"{name}/{key}": table[key] for name, table in tables.items() for key in table}
    about = [[entry.name, entry.kind, tables[entry.name].about] for entry in manifest.sources]
    Table(arrays, about).save(file)


def _open_indexed(manifest: Manifest, file: Path) -> list[ImageSource]:
    command = f"write it with: python tools/verify_data.py images {manifest.file} --write {file}"
    if not file.is_file():
        raise FileNotFoundError(f"there is no index file {file}; {command}")
    index = Table.open(file)
    known = [entry[:2] for entry in index.about] if isinstance(index.about, list) else []
    wanted = [[entry.name, entry.kind] for entry in manifest.sources]
    if known != wanted:
        raise ValueError(
            f"{file} is the index of {known}, and {manifest.file} has {wanted}; {command}"
        )
    tables = (index.part(entry[0], entry[2]) for entry in index.about)
    return [entry.open(table) for entry, table in zip(manifest.sources, tables, strict=True)]


def _source(entry: Any, root: Path, where: str) -> SourceEntry:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is not a table: write [[source]]")
    _refuse_unknown(entry, _SOURCE_KEYS, where)
    name = entry.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"{where}: name must be letters, digits, '_', '-' and '.', got {name!r}")
    kinds = [kind for kind in ("folder", "shards") if kind in entry]
    if len(kinds) != 1 or not isinstance(entry[kinds[0]], str):
        raise ValueError(f"{where}: give either folder or shards, as a string")
    weight, limit = entry.get("weight", 1.0), entry.get("limit")
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not is_number or not 0 < weight <= _LARGEST_WEIGHT:
        raise ValueError(
            f"{where}: weight must be a number above 0 and at most {_LARGEST_WEIGHT}, got "
            f"{weight!r}"
        )
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ValueError(f"{where}: limit must be an integer from 1, got {limit!r}")
    location = str(root / _expand_path(entry[kinds[0]], where))
    return SourceEntry(
        name=name, kind=kinds[0], location=location, weight=float(weight), limit=limit
    )


def _expand_path(text: Any, where: str) -> Path:
    if not isinstance(text, str) or not text:
        raise ValueError(f"{where}: {text!r} is not a path")
    expanded = os.path.expandvars(text)
    unset = re.search(r"\$\{?\w+", expanded)
    if unset:
        raise ValueError(f"{where}: {unset.group()} of {text!r} is not set; export it")
    return Path(expanded).expanduser()


def _refuse_unknown(entry: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in entry:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"
            raise ValueError(f"{where}: unknown key {key!r}{hint}")
