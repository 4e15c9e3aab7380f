"""Images without labels, of pre-training: folders, tar shards, and manifests that merge them."""

import contextlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.io import ImageReadMode, decode_image as torchvision_decode

from eva_data.checks.findings import Findings
from eva_data.files import IMAGE_SUFFIXES, LISTED_IMAGE_SUFFIXES, find_files
from eva_data.images import inspect_image, read_encoded, read_rgb
from eva_data.index import IMAGE_KIND, FolderFiles, Names, StoredFiles, Table
from eva_data.manifests import IMAGES, SourceEntry, expand_path, open_parts
from eva_data.samples import Mixture, Samples, View
from eva_data.tar import expand_shards, find_members
from eva_data.tar_index import TarIndex, index_shards, table_of_members
from eva_data.transforms import TensorTransform

_GIF = b"GIF8"  # torchvision decodes every frame of it


def decode_image(content: bytes, name: str = "image") -> Tensor:
    """Decode an image by the rules of `eva_data.images`, as stored: (3, height, width) uint8, RGB.

    torchvision decodes JPEG, PNG and WebP of 8 bits without transparency, which is faster and gives
    the same pixels; the one decoder does the rest. What cannot be decoded is an
    `UnreadableImageError`.
    """
    # before torchvision allocates what it claims
    facts = inspect_image(content, decode=False, name=name)
    image: Tensor | None = None
    grey_of_16_bits = facts.bits == 16  # of colours, which Pillow has as 8 bits, the upper 8
    if not (grey_of_16_bits or facts.transparent or content.startswith(_GIF)):
        with contextlib.suppress(RuntimeError, ValueError):
            data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            image = torchvision_decode(data, mode=ImageReadMode.RGB)
    if image is None:
        rgb = read_rgb(content, upright=False, name=name)
        return torch.from_numpy(rgb).permute(2, 0, 1).contiguous()
    if image.dtype == torch.uint16:  # colours
        return (image.to(torch.int32) >> 8).to(torch.uint8)
    return image


class Images(Samples[StoredFiles], Dataset[Any]):
    """A map-style dataset of stored images: `images[index]` reads, decodes and transforms one.

    An image that cannot be read raises `UnreadableImageError`, which names it. All members of a
    shard that are images count, whatever else (captions, labels) shares their key. `transform`
    takes the image, (3, height, width) uint8; None returns it as it is.
    """

    def __init__(
        self,
        files: StoredFiles | View[StoredFiles],
        transform: TensorTransform | None = None,
    ) -> None:
        super().__init__(files)
        self.transform = transform

    def encoded(self, index: int) -> bytes:
        """Read the content of an image's file."""
        return read_encoded(*self.locate(index))

    def decode(self, index: int) -> Tensor:
        """Decode an image to (3, height, width) uint8."""
        files, position = self.locate(index)
        return decode_image(read_encoded(files, position), files.sample_id(position))

    def __getitem__(self, index: int) -> Any:
        image = self.decode(index)
        return image if self.transform is None else self.transform(image)


def open_images(
    location: str | os.PathLike[str],
    transform: TensorTransform | None = None,
    *,
    indexes: Path | None = None,
) -> Images:
    """Open the images of a manifest (`.toml`) or its index, a folder, or tar shards.

    With an index file, which a manifest may name, nothing is searched: for millions of images that
    saves minutes to hours at every start, and memory in every worker. Indexes of shards can be
    saved in a folder `indexes`.
    """
    path = expand_path(os.fspath(location), "the images")
    parts = open_parts(path, IMAGES)
    files = [open_source(entry, table, indexes=indexes).source for entry, table in parts]
    is_mixed = path.suffix == ".toml" or len(files) > 1
    mixture = Mixture(files, [entry for entry, _ in parts]) if is_mixed else files[0]
    return Images(mixture, transform)


def _index_images(shard: Path, _: Findings) -> Table:
    return table_of_members(shard, find_members(shard, IMAGE_SUFFIXES))


def open_source(
    entry: SourceEntry, table: Table | None = None, *, indexes: Path | None = None
) -> Images:
    """Open a source of a manifest by its part of the index; without one, search for the images."""
    files: StoredFiles
    if entry.kind == "shards":
        shards = expand_shards(entry.location)
        if table is None:
            findings = Findings({})
            table = index_shards(shards, _index_images, findings, kind=IMAGE_KIND, folder=indexes)
        files = TarIndex(shards, table)
    else:
        folder = Path(entry.location)
        if table is None:
            names = find_files(folder, IMAGE_SUFFIXES) if folder.is_dir() else ()
            table = Table(Names.collect(names).arrays())
        files = FolderFiles(folder, table)
    if not len(files):
        raise ValueError(f"{entry.location} holds no image ({LISTED_IMAGE_SUFFIXES})")
    return Images(files)
