"""The images of pre-training: several folders and tar shards, merged by a manifest.

`manifest_file` says what a manifest is; `pretrain/configs/merged30m.toml` is the paper's.
"""

import logging
import os
import zlib
from pathlib import Path

from eva_data.sources.image_source import FolderImages, ImageSource
from eva_data.sources.index_file import Table
from eva_data.sources.manifest_file import (
    Manifest,
    Mixture,
    SourceEntry,
    expand_path,
    read_index,
)
from eva_data.sources.names import Names
from eva_data.sources.patterns import is_pattern
from eva_data.sources.shards import TarShards
from eva_data.transforms import TensorTransform

logger = logging.getLogger(__name__)


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
        entries = self.manifest.sources
        if self.manifest.index is None:
            self.sources = [open_source(entry) for entry in entries]
        else:
            tables = read_index(self.manifest, self.manifest.index)
            self.sources = [open_source(*pair) for pair in zip(entries, tables, strict=True)]
        sizes = [len(source) for source in self.sources]
        self.counts = {
            entry.name: entry.samples_of(size) for entry, size in zip(entries, sizes, strict=True)
        }
        self._mixture = Mixture(sizes, [*self.counts.values()], what="image")
        for name, count in self.counts.items():
            logger.info("%s: %s images in an epoch", name, f"{count:,}")

    def __len__(self) -> int:
        return len(self._mixture)

    def locate(self, index: int) -> tuple[ImageSource, int]:
        """Find the source of an image, and its index there."""
        number, place = self._mixture.locate(index)
        return self.sources[number], place

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
    path = expand_path(location, "the images")
    if path.suffix == ".toml":
        return ManifestImages(path, transform)
    if is_pattern(path):
        return TarShards(str(path), transform)
    return FolderImages(path, transform)


def open_source(entry: SourceEntry, table: Table | None = None) -> ImageSource:
    """Open a source of a manifest with all its images.

    Args:
        entry: The source.
        table: Its part of the index; None searches for the images.
    """
    if entry.kind == "shards":
        return TarShards(entry.location, table=table)
    return FolderImages(Path(entry.location), names=None if table is None else Names(table))
