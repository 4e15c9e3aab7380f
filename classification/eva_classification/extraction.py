"""Features of many pictures into files: `tools/extract_features.py`.

The pictures are cut into shards of a bounded size, one file each, so that memory does not grow with
their number, several processes share the work, and an interrupted run continues at the next shard.

names, features = read_features("output/photos")  # of all files

Shapes: B pictures, C channels, h x w patches.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from eva_classification.features import FeatureExtractor
from eva_data.files import find_files, require_regular_file, writing
from eva_data.labelled.folders import open_labelled
from eva_data.pictures import UnreadableImageError, read_picture
from eva_data.suffixes import LISTED_PICTURES, PICTURES
from eva_data.tensors import write_tensors
from eva_data.transforms import PictureTransform
from eva_engine import distributed
from eva_engine.data.loading import evaluation_loader

SETTINGS = "features.json"
_Read = TypeVar("_Read")
_DAMAGE = (zipfile.BadZipFile, SafetensorError)


class Features(NamedTuple):
    """Names of pictures, and their features (B, C) or (B, C, h, w), in the same order."""

    names: list[str]
    features: Tensor


def read_features(folder: str | os.PathLike[str]) -> Features:
    """Read all that an extraction wrote.

    Args:
        folder: Its output.

    Returns:
        Names and features; unreadable pictures that were skipped are in neither.

    Raises:
        ValueError: If there is no extraction, or it is not complete.
    """
    folder = Path(folder)
    try:
        require_regular_file(folder / SETTINGS)
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        plan = Plan(
            folder=folder,
            pictures=int(settings["pictures"]),
            shard_size=max(1, int(settings["shard_size"])),
            suffix=str(settings["format"]),
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{folder} holds no features: {SETTINGS} cannot be read") from error
    missing = [shard for shard in range(plan.shards) if not plan.file(shard).is_file()]
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} of {plan.shards} files, such as "
            f"{plan.file(missing[0]).name}: run the same command again to complete it"
        )
    parts = [_opened(plan.file(shard), _read_shard) for shard in range(plan.shards)]
    names = [name for part in parts for name in part.names]
    return Features(names, torch.cat([part.features for part in parts]))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How pictures are spread over files.

    Attributes:
        folder: Folder of the files.
        pictures: Number of pictures.
        shard_size: Pictures in a file.
        suffix: "safetensors" or "npz".
    """

    folder: Path
    pictures: int
    shard_size: int
    suffix: str

    @property
    def shards(self) -> int:
        """Number of files."""
        return -(-self.pictures // self.shard_size)

    def file(self, shard: int) -> Path:
        """Name a file by its shard."""
        return self.folder / f"features-{shard:05}-of-{self.shards:05}.{self.suffix}"

    def count_written(self) -> int:
        """Count the pictures in all files, without those that were left out."""
        return sum(_opened(self.file(shard), _count) for shard in range(self.shards))

    def pictures_of(self, shard: int) -> range:
        """Give the indexes of a shard's pictures."""
        start = shard * self.shard_size
        return range(start, min(start + self.shard_size, self.pictures))


class Pictures(Dataset[tuple[int, Tensor | None, str]]):
    """Pictures by index: (index, image, ""), or (index, None, why it cannot be read).

    Args:
        locations: Folders, which are searched, and picture files; or one data set by name, see
            `eva_data.labelled.folders`.
        transform: Transform of a PIL picture in RGB.

    Raises:
        ValueError: If there is no picture.
    """

    def __init__(self, locations: Sequence[str], transform: PictureTransform) -> None:
        self.transform = transform
        self._samples = None
        if len(locations) == 1 and locations[0].startswith(("torchvision:", "hf:")):
            self._samples = open_labelled(locations[0], None, upright=True)
            self.names = [self._samples.sample_id(i) for i in range(len(self._samples))]
            return
        self.names = [path for location in locations for path in _paths(Path(location))]
        if not self.names:
            raise ValueError(
                f"{', '.join(locations)}: no picture there; looked for {LISTED_PICTURES}"
            )

    @cached_property
    def digest(self) -> str:
        """A hash that distinguishes lists of names."""
        return hashlib.sha256("\n".join(self.names).encode("utf-8", "surrogateescape")).hexdigest()

    def __len__(self) -> int:
        return len(self.names)

    def load(self, index: int) -> Image.Image:
        """Read a picture in RGB, upright as its EXIF data say."""
        if self._samples is not None:
            return self._samples.image(index)
        return read_picture(self.names[index], upright=True)

    def __getitem__(self, index: int) -> tuple[int, Tensor | None, str]:
        try:
            return index, self.transform(self.load(index)), ""
        except UnreadableImageError as error:
            return index, None, str(error)


def _paths(location: Path) -> Iterator[str]:
    if location.is_dir():
        yield from (str(location / path) for path in find_files(location, PICTURES))
    elif location.is_file():
        yield str(location)
    else:
        raise ValueError(f"there is no folder or picture {location}")


def extract(
    extractor: FeatureExtractor,
    pictures: Pictures,
    plan: Plan,
    *,
    kind: str,
    shape: Sequence[int],
    stored: torch.dtype,
    batch_size: int,
    workers: int,
    skip_unreadable: bool = False,
) -> list[str]:
    """Compute the files that are not there yet; each process takes its share of them.

    Args:
        extractor: The model.
        pictures: The pictures.
        plan: How they are spread over files.
        kind: "pooled" or "patches".
        shape: Shape of the features of one picture.
        stored: Number format in the files.
        batch_size: Pictures in a forward pass.
        workers: Processes that load.
        skip_unreadable: Leave unreadable pictures out.

    Returns:
        A reason for each picture of this process that was left out.

    Raises:
        UnreadableImageError: If a picture cannot be read, unless such pictures are skipped.
        FloatingPointError: If features are not finite in the number format.
    """
    compute = extractor if kind == "pooled" else extractor.patches
    missing = [shard for shard in range(plan.shards) if not plan.file(shard).is_file()]
    missing = distributed.gather(missing)[0]  # as the first process sees it
    own = missing[distributed.rank() :: distributed.world_size()]
    steps = [
        (shard, batch) for shard in own for batch in _batches(plan.pictures_of(shard), batch_size)
    ]
    if not steps:
        return []
    left_out: list[str] = []
    names: list[str] = []
    parts: list[Tensor] = []
    total = sum(len(batch) for _, batch in steps)
    with (
        tqdm(total=total, unit="picture", disable=distributed.rank() > 0) as bar,
        evaluation_loader(
            pictures, batches=[batch for _, batch in steps], workers=workers, collate=_collate
        ) as batches,
    ):
        for (shard, batch), (indexes, images, bad) in zip(steps, batches, strict=True):
            if bad and not skip_unreadable:
                raise UnreadableImageError(f"{bad[0]}; --skip-unreadable leaves such pictures out")
            left_out += bad
            if indexes:
                features = compute(images).to(stored)
                found = [pictures.names[index] for index in indexes]
                finite = features.flatten(1).isfinite().all(1).cpu()
                if not finite.all():
                    raise FloatingPointError(
                        f"features of {found[int((~finite).nonzero()[0])]} are not finite in "
                        f"{stored}: use --precision fp32 and --store fp32"
                    )
                names += found
                parts.append(features.cpu())
            bar.update(len(batch))
            if batch[-1] == plan.pictures_of(shard)[-1]:
                features = torch.cat(parts) if parts else torch.empty(0, *shape, dtype=stored)
                _write_shard(plan.file(shard), names, features)
                names, parts = [], []
    return left_out


def _collate(
    loaded: list[tuple[int, Tensor | None, str]],
) -> tuple[list[int], Tensor | None, list[str]]:
    """Stack what was read: indexes, images (B, 3, H, W), and the reasons for what was not."""
    good = [(index, image) for index, image, _ in loaded if image is not None]
    images = torch.stack([image for _, image in good]) if good else None
    return [index for index, _ in good], images, [why for _, image, why in loaded if image is None]


def _batches(indexes: range, size: int) -> Iterator[list[int]]:
    for start in range(0, len(indexes), size):
        yield list(indexes[start : start + size])


def _write_shard(file: Path, names: list[str], features: Tensor) -> None:
    if file.suffix == ".npz":
        with writing(file) as stream:
            np.savez(stream, features=features.numpy(), names=np.array(names))
    else:
        write_tensors({"features": features}, file, {"names": json.dumps(names)})


def _opened(file: Path, read: Callable[[Path], _Read]) -> _Read:
    """Read a file, or say in one sentence that it is damaged.

    numpy compresses nothing by itself: a compressed file was not written here, and its content may
    be larger than memory.
    """
    try:
        if file.suffix == ".npz":
            with zipfile.ZipFile(file) as archive:
                if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                    raise ValueError("it is compressed, which an extraction does not do")
        return read(file)
    except (OSError, ValueError, TypeError, KeyError, EOFError, *_DAMAGE) as error:
        raise ValueError(
            f"{file} cannot be read ({error}): delete it and run the same command again"
        ) from error


def _count(file: Path) -> int:
    """Count the pictures in a file without reading their features."""
    if file.suffix == ".npz":
        with np.load(file) as content:
            return len(content["names"])
    from safetensors import safe_open

    with safe_open(file, framework="pt") as content:
        return len(json.loads(content.metadata()["names"]))


def _read_shard(file: Path) -> Features:
    if file.suffix == ".npz":
        with np.load(file) as content:
            return Features(content["names"].tolist(), torch.from_numpy(content["features"]))
    from safetensors import safe_open

    with safe_open(file, framework="pt") as content:
        return Features(json.loads(content.metadata()["names"]), content.get_tensor("features"))
