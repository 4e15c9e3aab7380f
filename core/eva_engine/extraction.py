"""Features of many images or texts in files: computed by several processes, continued after a stop.

    names, features = read_features("output/photos")  # of all files

A file holds a bounded number of samples, so that memory does not grow with theirs.

Shapes: B samples, C channels, h x w patches, L tokens of a text.
"""

import argparse
import contextlib
import hashlib
import json
import os
import sys
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.utils.data import Dataset

from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.checkpoints.verification import sha256_of
from eva_data.files import IMAGE_SUFFIXES as SUFFIXES
from eva_data.files import (
    LISTED_IMAGE_SUFFIXES,
    find_files,
    read_lines,
    require_regular_file,
    write_tensors,
    write_text,
    writing,
)
from eva_data.images import UnreadableImageError, read_image
from eva_data.labelled_images import open_labelled
from eva_data.progress import ProgressBar
from eva_data.transforms import ImageTransform
from eva_engine import distributed
from eva_engine.commands.extraction import Extraction
from eva_engine.data.loading import evaluation_loader
from eva_engine.distributed import DTYPES
from eva_runs.commands import say
from eva_runs.output_folder import locked
from eva_runs.processes import is_main, on_main

SETTINGS = "features.json"
PICTURES, TEXTS = UNITS = ("pictures", "texts")  # what the settings call the number of samples
LARGEST_FILE = 4096  # samples
_Read = TypeVar("_Read")
_DAMAGE = (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, SafetensorError)


class Features(NamedTuple):
    """Names of samples (paths of images, or texts), and their features (B, C) or (B, C, h, w)."""

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

    def missing(self) -> list[int]:
        """List the shards whose files are not there."""
        return [shard for shard in range(self.shards) if not self.file(shard).is_file()]

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
        Names and features; unreadable images that were skipped are in neither.

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
    if missing := plan.missing():
        raise ValueError(
            f"{folder} lacks {len(missing)} of {plan.shards} files, such as "
            f"{plan.file(missing[0]).name}: run the same command again to complete it"
        )
    parts = [_opened(plan.file(shard), _read_shard) for shard in range(plan.shards)]
    names = [name for part in parts for name in part.names]
    return Features(names, torch.cat([part.features for part in parts]))


def _write_shard(file: Path, names: list[str], features: Tensor) -> None:
    """Write one file of features (B, C) or (B, C, h, w), completely or not at all."""
    if file.suffix == ".npz":
        with writing(file) as stream:
            np.savez(stream, features=features.numpy(), names=np.array(names))
    else:
        write_tensors({"features": features}, file, {"names": json.dumps(names)})


def _opened(file: Path, read: Callable[[Path], _Read]) -> _Read:
    """Read a file, or say that it is damaged.

    numpy compresses nothing by itself: a compressed file was not written here, and its content may
    be larger than memory.
    """
    try:
        if file.suffix == ".npz":
            with zipfile.ZipFile(file) as archive:
                if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                    raise ValueError("it is compressed, which an extraction does not do")
        return read(file)
    except _DAMAGE as error:
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


class Samples(Dataset[tuple[int, Tensor | None, str]], ABC):
    """Samples by index: (index, tensor, ""), or (index, None, why it cannot be read).

    Attributes:
        unit: What the samples are, of `UNITS`.
        names: Their names.
    """

    unit: str
    names: Sequence[str]

    @cached_property
    def digest(self) -> str:
        """A hash that distinguishes lists of names."""
        return hashlib.sha256("\n".join(self.names).encode("utf-8", "surrogateescape")).hexdigest()

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[int, Tensor | None, str]: ...


class Pictures(Samples):
    """Images as tensors (3, H, W).

    Args:
        locations: Folders, which are searched, and image files; or one dataset by name, see
            `eva_data.labelled_images`.
        transform: Transform of a PIL image in RGB.

    Raises:
        ValueError: If there is no image.
    """

    unit = PICTURES

    def __init__(self, locations: Sequence[str], transform: ImageTransform) -> None:
        self.transform = transform
        self._samples = None
        if len(locations) == 1 and locations[0].startswith(("torchvision:", "hf:")):
            self._samples = open_labelled(locations[0], None, upright=True)
            self.names = [self._samples.sample_id(i) for i in range(len(self._samples))]
            return
        self.names = [path for location in locations for path in _paths(Path(location))]
        if not self.names:
            raise ValueError(f"{', '.join(locations)}: no image there, of {LISTED_IMAGE_SUFFIXES}")

    def load(self, index: int) -> Image.Image:
        """Read an image in RGB, upright as its EXIF data say."""
        if self._samples is not None:
            return self._samples.image(index)
        return read_image(self.names[index], upright=True)

    def __getitem__(self, index: int) -> tuple[int, Tensor | None, str]:
        try:
            return index, self.transform(self.load(index)), ""
        except UnreadableImageError as error:
            return index, None, str(error)


def _paths(location: Path) -> list[str]:
    if location.is_dir():
        return [str(location / path) for path in find_files(location, SUFFIXES)]
    if location.is_file():
        return [str(location)]
    raise ValueError(f"there is no folder or image {location}")


class Texts(Samples):
    """Texts as tokens (L,).

    Args:
        file: Text file with one text in each line.
        transform: What makes tokens of a text.
    """

    unit = TEXTS

    def __init__(self, file: str | os.PathLike[str], transform: Callable[[str], Tensor]) -> None:
        self.transform = transform
        self.names = read_lines(file)

    def __getitem__(self, index: int) -> tuple[int, Tensor | None, str]:
        return index, self.transform(self.names[index]), ""


def write_features(options: argparse.Namespace, prepare: Callable[[], Extraction]) -> None:
    """Write the features that a command line asks for, and report on the files.

    Args:
        options: Options of `eva_engine.commands.extraction`.
        prepare: Function that loads what computes the features of the chosen kind.

    Raises:
        ValueError: If the folder is in use, or holds features of something else.
    """
    with contextlib.ExitStack() as stack:
        on_main(lambda: stack.enter_context(locked(options.output)))
        _write_features(options, prepare())


def _write_features(options: argparse.Namespace, extraction: Extraction) -> None:
    samples, shape = extraction.samples, extraction.shape
    stored = DTYPES[options.store]
    bytes_each = stored.itemsize * torch.Size(shape).numel()
    settings = {
        "weights": Path(options.weights).name,
        # distinguishes weights of equal names
        "sha256": on_main(lambda: sha256_of(resolve_source(options.weights))),
        **extraction.settings,
        "kind": options.kind,
        "store": options.store,
        "format": options.format,
        "shape": shape,
        samples.unit: len(samples),
        # so few that several processes have their share, and that little is lost with a file
        "shard_size": max(1, min(LARGEST_FILE, int(options.file_mb * 2**20 / bytes_each))),
        "names": samples.digest,
    }
    on_main(lambda: _agree(options.output, settings))
    plan = Plan(
        folder=options.output,
        samples=len(samples),
        shard_size=settings["shard_size"],
        suffix=options.format,
    )
    left_out = _extract(extraction, plan, options)
    left_out = [why for part in distributed.gather(left_out) for why in part]
    if is_main():
        for why in left_out:
            sys.stderr.write(f"left out: {why}\n")
        say(
            f"{options.output} holds {options.kind} features {tuple(shape)} of "
            f"{plan.count_written()} {samples.unit} in {plan.shards} files"
        )


def _agree(folder: Path, settings: dict[str, Any]) -> None:
    """Note the settings, or check that they are the same as before, to continue."""
    file = folder / SETTINGS
    if not file.is_file():
        write_text(file, json.dumps(settings, indent=2) + "\n")
        return
    try:
        before = dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"{file} cannot be read ({error}): remove it, or choose another --output"
        ) from error
    settings = json.loads(json.dumps(settings))  # tuples are lists there
    changed = [key for key in settings if before.get(key) != settings[key]]
    if changed:
        listed = ", ".join(f"{key} {before.get(key, '?')} -> {settings[key]}" for key in changed)
        raise ValueError(
            f"{folder} holds features with other settings ({listed}): choose another --output"
        )


def _extract(extraction: Extraction, plan: Plan, options: argparse.Namespace) -> list[str]:
    """Compute the files that are not there yet; each process takes its share of them.

    Returns:
        A reason for each image of this process that was left out.
    """
    samples, stored = extraction.samples, DTYPES[options.store]
    missing: list[int] = on_main(plan.missing)
    own = missing[distributed.rank() :: distributed.world_size()]
    steps = [
        (shard, batch)
        for shard in own
        for batch in _batches(plan.samples_of(shard), options.batch_size)
    ]
    if not steps:
        return []
    left_out: list[str] = []
    names: list[str] = []
    parts: list[Tensor] = []
    total = sum(len(batch) for _, batch in steps)
    with (
        ProgressBar(total, what="features", unit=samples.unit.removesuffix("s"))
        if is_main()
        else contextlib.nullcontext() as bar,
        evaluation_loader(
            samples, batches=[batch for _, batch in steps], workers=options.workers,
            collate=_collate,
        ) as batches,
    ):  # fmt: skip
        for (shard, batch), (indexes, tensors, bad) in zip(steps, batches, strict=True):
            if bad and not options.skip_unreadable:
                raise UnreadableImageError(f"{bad[0]}; --skip-unreadable leaves such images out")
            left_out += bad
            if indexes:
                found = [samples.names[index] for index in indexes]
                parts.append(_finite(extraction.compute(tensors).to(stored), found).cpu())
                names += found
            if bar is not None:
                bar.update(len(batch))
            if batch[-1] == plan.samples_of(shard)[-1]:
                empty = torch.empty(0, *extraction.shape, dtype=stored)
                _write_shard(plan.file(shard), names, torch.cat(parts) if parts else empty)
                names, parts = [], []
    return left_out


def _finite(features: Tensor, names: Sequence[str]) -> Tensor:
    finite = features.flatten(1).isfinite().all(1).cpu()
    if not finite.all():
        raise FloatingPointError(
            f"features of {names[int((~finite).nonzero()[0])]} are not finite in {features.dtype}: "
            "use --precision fp32 and --store fp32"
        )
    return features


def _collate(
    loaded: list[tuple[int, Tensor | None, str]],
) -> tuple[list[int], Tensor | None, list[str]]:
    """Stack what was read: indexes, tensors (B, ...), and the reasons for what was not."""
    good = [(index, tensor) for index, tensor, _ in loaded if tensor is not None]
    tensors = torch.stack([tensor for _, tensor in good]) if good else None
    return [index for index, _ in good], tensors, [why for _, one, why in loaded if one is None]


def _batches(indexes: range, size: int) -> Iterator[list[int]]:
    for start in range(0, len(indexes), size):
        yield list(indexes[start : start + size])
