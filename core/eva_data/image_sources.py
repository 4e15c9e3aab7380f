"""Images without labels, of pre-training: folders, tar shards, and manifests that merge them.

`pretrain/configs/merged30m.toml` is the paper's manifest.
"""

import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.io import ImageReadMode
from torchvision.io import decode_image as torchvision_decode

from eva_data.files import (
    IMAGE_SUFFIXES,
    LISTED_IMAGE_SUFFIXES,
    find_files,
    require_regular_file,
)
from eva_data.images import UnreadableImageError, check_encoded_size, image_size, read_rgb
from eva_data.index import Names, Table
from eva_data.manifests import Manifest, Mixture, SourceEntry, expand_path, read_index
from eva_data.tar import PLACES, TarIndex, expand_shards, index_members, is_shard_pattern
from eva_data.transforms import TensorTransform

_GIF = b"GIF8"  # torchvision decodes every frame of it


def decode_image(content: bytes, name: str = "image") -> Tensor:
    """Decode an image by the rules of `eva_data.images`, without EXIF's orientation.

    torchvision decodes JPEG, PNG and WebP, which is faster and gives the same pixels; the one
    decoder does the rest.

    Returns:
        (3, height, width) uint8, RGB.

    Raises:
        UnreadableImageError: If it cannot be decoded, or claims too many pixels.
    """
    image_size(content, upright=False, name=name)  # before torchvision allocates what it claims
    if not content.startswith(_GIF):
        try:
            data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            image: Tensor = torchvision_decode(data, mode=ImageReadMode.RGB)
        except (RuntimeError, ValueError):
            pass
        else:
            if image.dtype == torch.uint16:  # PNG of 16 bits
                return (image.to(torch.int32) >> 8).to(torch.uint8)
            return image
    rgb = read_rgb(content, upright=False, name=name)
    return torch.from_numpy(rgb).permute(2, 0, 1).contiguous()


class ImageSource(Dataset[Any]):
    """A map-style dataset: `source[index]` reads, decodes and transforms one image.

    An image that cannot be read raises `UnreadableImageError`, which names it; what to do instead
    is the caller's decision.

    Args:
        transform: Takes the image, (3, height, width) uint8; None returns it as it is.
    """

    def __init__(self, transform: TensorTransform | None = None) -> None:
        self.transform = transform

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def sample_id(self, index: int) -> str:
        """Name the place of an image, for messages."""

    @abstractmethod
    def read(self, index: int) -> bytes:
        """Read an encoded image.

        Raises:
            OSError: If it cannot be read.
        """

    @abstractmethod
    def checksum(self) -> int:
        """Compute a number that changes with the images' names or order, not with their place."""

    def decode(self, index: int) -> Tensor:
        """Decode an image to (3, height, width) uint8."""
        name = self.sample_id(index)
        try:
            content = self.read(index)
        except UnreadableImageError:
            raise
        except OSError as error:
            reason = f"{name}: {error.strerror}" if error.strerror else str(error)
            raise UnreadableImageError(reason) from error
        return decode_image(content, name)

    def __getitem__(self, index: int) -> Any:
        image = self.decode(index)
        return image if self.transform is None else self.transform(image)


class FolderImages(ImageSource):
    """The images below a folder, searched with its subfolders where no table names them."""

    def __init__(
        self, folder: Path, transform: TensorTransform | None = None, *, table: Table | None = None
    ) -> None:
        super().__init__(transform)
        self.folder = folder
        if table is None:
            files = find_files(folder, IMAGE_SUFFIXES) if folder.is_dir() else ()
            table = Table(Names.collect(files).arrays())
        self.table = table
        self.names = Names(self.table)
        if not folder.is_dir() or not len(self.names):
            raise ValueError(
                f"{folder} is not a folder of images: looked for {LISTED_IMAGE_SUFFIXES}"
            )

    def __len__(self) -> int:
        return len(self.names)

    def sample_id(self, index: int) -> str:
        """Name an image by its path."""
        return str(self.folder / self.names[index])

    def read(self, index: int) -> bytes:
        """See `ImageSource`."""
        path = self.folder / self.names[index]
        require_regular_file(path)
        check_encoded_size(path.stat().st_size, str(path))
        return path.read_bytes()

    def checksum(self) -> int:
        """See `ImageSource`."""
        return self.names.checksum()


class ShardImages(ImageSource):
    """The images in tar shards, in the order of the shards and of their members.

    All members that are images count, whatever else (captions, labels) shares their key. Without a
    table, which is the index, the shards of the pattern (see `expand_shards`) are looked through.
    """

    def __init__(
        self,
        pattern: str | Sequence[str],
        transform: TensorTransform | None = None,
        *,
        table: Table | None = None,
    ) -> None:
        super().__init__(transform)
        shards = expand_shards(pattern)
        self.table = index_members(shards, IMAGE_SUFFIXES) if table is None else table
        self._members = TarIndex(shards, self.table)
        if not len(self._members):
            raise ValueError(f"no image in {shards[0]} (and {len(shards) - 1} more shards)")

    def __len__(self) -> int:
        return len(self._members)

    def sample_id(self, index: int) -> str:
        """Name shard and member, `folder/shard-0000.tar:key.jpg`."""
        return self._members.sample_id(index)

    def read(self, index: int) -> bytes:
        """See `ImageSource`."""
        check_encoded_size(self._members.size(index), self.sample_id(index))
        return self._members.read(index)

    def checksum(self) -> int:
        """See `ImageSource`."""
        return self._members.names.checksum()


class ManifestImages(ImageSource):
    """All images of a manifest.

    With an index file, the folders are not searched: for millions of images that saves minutes to
    hours at every start, and memory in every worker.

    Raises:
        FileNotFoundError: If the manifest, or the index that it names, is not there.
        ValueError: If the manifest is wrong, a source has no images, or the index is of others.
    """

    def __init__(
        self, manifest: str | os.PathLike[str], transform: TensorTransform | None = None
    ) -> None:
        super().__init__(transform)
        self.manifest = Manifest.read(manifest)
        entries, tables = self.manifest.sources, read_index(self.manifest)
        self.sources = [open_source(*pair) for pair in zip(entries, tables, strict=True)]
        self._mixture = Mixture(self.sources, entries)
        self.counts = self._mixture.counts

    def __len__(self) -> int:
        return len(self._mixture)

    def locate(self, index: int) -> tuple[ImageSource, int]:
        """Find the source of an image, and its index there."""
        return self._mixture.locate(index)

    def sample_id(self, index: int) -> str:
        """See `ImageSource`."""
        source, place = self.locate(index)
        return source.sample_id(place)

    def read(self, index: int) -> bytes:
        """See `ImageSource`."""
        source, place = self.locate(index)
        return source.read(place)

    def checksum(self) -> int:
        """See `ImageSource`; weights and limits count too."""
        return self._mixture.checksum()


def open_images(location: str, transform: TensorTransform | None = None) -> ImageSource:
    """Open the images of a manifest (`.toml`), a folder, or a pattern of tar shards."""
    path = expand_path(location, "the images")
    if path.suffix == ".toml":
        return ManifestImages(path, transform)
    if is_shard_pattern(path):
        return ShardImages(str(path), transform)
    return FolderImages(path, transform)


def open_source(entry: SourceEntry, table: Table | None = None) -> FolderImages | ShardImages:
    """Open a source of a manifest by its part of the index; without one, search for the images."""
    if entry.kind == "shards":
        return ShardImages(entry.location, table=table)
    return FolderImages(Path(entry.location), table=table)


def select(table: Table, keep: NDArray[np.bool_]) -> Table:
    """Take those images of a source that `keep`, (number of images,), marks, for an index."""
    names = Names(table)
    places = {key: table[key][keep] for key in PLACES if key in table}
    chosen = Names.collect(names[index] for index in np.flatnonzero(keep).tolist())
    return Table(places | chosen.arrays(), table.about)
