"""Files of features: a bounded number of samples in each, so that memory does not grow with theirs.

names, features = read_features("output/photos")  # of all files

Shapes: B samples, C channels, h x w patches.
"""

import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from eva_data.files import require_regular_file, writing
from eva_data.outputs.tensors import write_tensors

SETTINGS = "features.json"
PICTURES, TEXTS = UNITS = ("pictures", "texts")  # what the settings call the number of samples
_Read = TypeVar("_Read")
_DAMAGE = (zipfile.BadZipFile, SafetensorError)


class Features(NamedTuple):
    """Names of samples, and their features (B, C) or (B, C, h, w), in the same order.

    The names are paths of pictures, or the texts.
    """

    names: list[str]
    features: Tensor


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How samples are spread over files.

    Attributes:
        folder: Folder of the files.
        samples: Number of samples.
        shard_size: Samples in a file.
        suffix: "safetensors" or "npz".
    """

    folder: Path
    samples: int
    shard_size: int
    suffix: str

    @property
    def shards(self) -> int:
        """Number of files."""
        return -(-self.samples // self.shard_size)

    def file(self, shard: int) -> Path:
        """Name a file by its shard."""
        return self.folder / f"features-{shard:05}-of-{self.shards:05}.{self.suffix}"

    def count_written(self) -> int:
        """Count the samples in all files, without those that were left out."""
        return sum(_opened(self.file(shard), _count) for shard in range(self.shards))

    def samples_of(self, shard: int) -> range:
        """Give the indexes of a shard's samples."""
        start = shard * self.shard_size
        return range(start, min(start + self.shard_size, self.samples))


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
        unit = next((unit for unit in UNITS if unit in settings), PICTURES)
        plan = Plan(
            folder=folder,
            samples=int(settings[unit]),
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


def write_shard(file: Path, names: list[str], features: Tensor) -> None:
    """Write one file, completely or not at all.

    Args:
        file: The file, by its suffix of safetensors or npz.
        names: Names of the samples.
        features: (B, C) or (B, C, h, w).

    Raises:
        UnwritableError: If the disk is full, for example.
    """
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
    """Count the samples in a file without reading their features."""
    if file.suffix == ".npz":
        with np.load(file) as content:
            return len(content["names"])
    with safe_open(file, framework="pt") as content:
        return len(json.loads(content.metadata()["names"]))


def _read_shard(file: Path) -> Features:
    if file.suffix == ".npz":
        with np.load(file) as content:
            return Features(content["names"].tolist(), torch.from_numpy(content["features"]))
    with safe_open(file, framework="pt") as content:
        return Features(json.loads(content.metadata()["names"]), content.get_tensor("features"))
