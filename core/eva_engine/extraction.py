"""Features of many images or texts in files: computed by several processes, continued after a stop.

    names, features = read_features("output/photos")  # of all files

Shapes: B samples, C channels, h x w patches, L tokens of a text.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

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
)
from eva_data.images import UnreadableImageError, read_image
from eva_data.labelled_images import open_labelled
from eva_data.progress import ProgressBar
from eva_data.transforms import ImageTransform
from eva_engine import distributed
from eva_engine.commands.extraction import Extraction
from eva_engine.data.loading import evaluation_loader
from eva_engine.evaluation.classification_report import complain_of_left_out
from eva_engine.evaluation.counting import Indexed, collate_readable
from eva_runs.commands import say
from eva_runs.output_folder import locked
from eva_runs.precision import DTYPES
from eva_runs.processes import is_main, on_main

SETTINGS = "features.json"
LARGEST_FILE = 4096  # samples


class Features(NamedTuple):
    """Names of samples (paths of images, or texts), and their features (B, C) or (B, C, h, w)."""

    names: list[str]
    features: Tensor


def _plan(folder: Path, settings: Mapping[str, Any]) -> dict[Path, range]:
    """Spread the indexes of samples over files."""
    every, size = range(settings["samples"]), settings["shard_size"]
    shards = [every[start : start + size] for start in every[::size]]
    return {
        folder / f"features-{number:05}-of-{len(shards):05}.safetensors": shard
        for number, shard in enumerate(shards)
    }


def read_features(folder: str | os.PathLike[str]) -> Features:
    """Read all that an extraction wrote to its output; skipped images are not in it.

    Raises:
        ValueError: If there is no extraction, or it is not complete or damaged.
    """
    parts = [_read_file(file) for file in list_features(folder)]
    names = [name for part in parts for name in part.names]
    return Features(names, torch.cat([part.features for part in parts]))


def list_features(folder: str | os.PathLike[str]) -> dict[Path, list[str]]:
    """List the files of an extraction with the names of their samples; see `read_features`."""
    files = [*_plan(Path(folder), _read_settings(Path(folder)))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} of {len(files)} files, such as {missing[0]}: run the "
            "same command again to complete it"
        )
    return {file: _read_file(file, features=False).names for file in files}


def _read_settings(folder: Path) -> dict[str, Any]:
    try:
        require_regular_file(folder / SETTINGS)
        settings = dict(json.loads((folder / SETTINGS).read_text(encoding="utf-8")))
        return settings | {name: max(1, int(settings[name])) for name in ("samples", "shard_size")}
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{folder} holds no features: {SETTINGS} cannot be read") from error


def _read_file(file: Path, *, features: bool = True) -> Features:
    try:
        with safe_open(file, framework="pt") as content:
            found = content.get_tensor("features") if features else torch.empty(0)
            return Features(json.loads(content.metadata()["names"]), found)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise ValueError(
            f"{file} cannot be read ({error}): delete it and run the same command again"
        ) from error


class Samples(Dataset[tuple[Tensor, int]], ABC):
    """Samples as tensors, without a label (0), so that they are loaded as those with one.

    Attributes:
        unit: What the samples are, in the plural.
        names: Their names.
    """

    unit: str
    names: Sequence[str]
    classes: Sequence[str] = ()

    @cached_property
    def digest(self) -> str:
        """A hash that distinguishes lists of names."""
        return hashlib.sha256("\n".join(self.names).encode("utf-8", "surrogateescape")).hexdigest()

    def __len__(self) -> int:
        return len(self.names)

    def sample_id(self, index: int) -> str:
        """Return the name of a sample."""
        return self.names[index]

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[Tensor, int]: ...


class Images(Samples):
    """Images as tensors (3, H, W), upright as their EXIF data say.

    They are those of folders, which are searched, and files; or of one dataset by name, see
    `eva_data.labelled_images`.

    Raises:
        ValueError: If there is no image.
    """

    unit = "images"

    def __init__(self, locations: Sequence[str], transform: ImageTransform) -> None:
        self.transform = transform
        if len(locations) == 1 and locations[0].startswith(("torchvision:", "hf:")):
            samples = open_labelled(locations[0], None, upright=True)
            self.names = [samples.sample_id(index) for index in range(len(samples))]
            self._read = samples.image
            return
        paths: list[Path] = []
        for path in map(Path, locations):
            paths += [path] if path.is_file() else [path / n for n in find_files(path, SUFFIXES)]
        if not paths:
            raise ValueError(f"{', '.join(locations)}: no image there, of {LISTED_IMAGE_SUFFIXES}")
        self.names = [str(path) for path in paths]
        self._read = self._read_file

    def _read_file(self, index: int) -> Image.Image:
        return read_image(self.names[index], upright=True)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self._read(index)), 0


class Texts(Samples):
    """Texts of a file, one in each line, as tokens (L,)."""

    unit = "texts"

    def __init__(self, file: str | os.PathLike[str], transform: Callable[[str], Tensor]) -> None:
        self.transform = transform
        self.names = read_lines(file)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.names[index]), 0


def write_features(options: argparse.Namespace, prepare: Callable[[], Extraction]) -> None:
    """Write the features that a command line asks for, and report on the files.

    Args:
        options: Options of `eva_engine.commands.extraction`.
        prepare: Function that loads what computes the features of the chosen kind.
    """
    with contextlib.ExitStack() as stack:
        on_main(lambda: stack.enter_context(locked(options.output)))
        extraction = prepare()
        samples, shape = extraction.samples, extraction.shape
        bytes_each = DTYPES[options.store].itemsize * torch.Size(shape).numel()
        settings = {
            "weights": Path(options.weights).name,
            # distinguishes weights of equal names
            "sha256": on_main(lambda: sha256_of(resolve_source(options.weights))),
            **extraction.settings,
            "kind": options.kind,
            "store": options.store,
            "shape": shape,
            "samples": len(samples),
            # so few that several processes have their share, and that little is lost with a file
            "shard_size": max(1, min(LARGEST_FILE, int(options.file_mb * 2**20 / bytes_each))),
            "names": samples.digest,
        }
        on_main(lambda: _agree(options.output, settings))
        plan = _plan(options.output, settings)
        on_main(lambda: _require_room(options.output, plan, bytes_each, samples.unit))
        left_out = distributed.gather(_extract(extraction, plan, options))
        if is_main():
            complain_of_left_out([why for part in left_out for why in part], unit=samples.unit)
            written = sum(len(_read_file(file, features=False).names) for file in plan)
            say(
                f"{options.output} holds {options.kind} features {tuple(shape)} of {written} "
                f"{samples.unit} in {len(plan)} files"
            )


def _agree(folder: Path, settings: dict[str, Any]) -> None:
    """Note the settings, or check that they are the same as before, to continue."""
    if not (folder / SETTINGS).exists():
        write_text(folder / SETTINGS, json.dumps(settings, indent=2) + "\n")
        return
    before = _read_settings(folder)
    settings = json.loads(json.dumps(settings))  # tuples are lists there
    changed = [key for key in settings if before.get(key) != settings[key]]
    if changed:
        listed = ", ".join(f"{key} {before.get(key, '?')} -> {settings[key]}" for key in changed)
        raise ValueError(
            f"{folder} holds features with other settings ({listed}): choose another folder"
        )


def _require_room(folder: Path, plan: Mapping[Path, range], bytes_each: int, unit: str) -> None:
    """Say how large the missing files will be, and refuse them if the disk is too small."""
    missing = sum(len(part) for file, part in plan.items() if not file.is_file())
    needed, free = missing * bytes_each / 1e9, shutil.disk_usage(folder).free / 1e9
    text = f"features of {missing:,} {unit} will take {needed:,.3f} GB of {folder}"
    if needed > free:
        raise ValueError(f"{text}, whose disk has {free:,.3f} GB free: choose another folder")
    if missing:
        say(text)


def _extract(
    extraction: Extraction, plan: Mapping[Path, range], options: argparse.Namespace
) -> list[str]:
    """Compute the files that are not there yet; each process takes its share of them.

    Returns:
        A reason for each image of this process that was left out.
    """
    samples, stored = extraction.samples, DTYPES[options.store]
    missing: list[Path] = on_main(lambda: [file for file in plan if not file.is_file()])
    own = missing[distributed.rank() :: distributed.world_size()]
    size = options.batch_size
    batches = {
        file: [[*plan[file][at : at + size]] for at in range(0, len(plan[file]), size)]
        for file in own
    }
    order = [batch for part in batches.values() for batch in part]
    left_out: list[str] = []
    if not order:
        return left_out
    total, unit = sum(map(len, order)), samples.unit.removesuffix("s")
    bar = ProgressBar(total, what="features", unit=unit) if is_main() else None
    with (
        bar or contextlib.nullcontext(),
        evaluation_loader(
            Indexed(samples), batches=order, workers=options.workers, collate=collate_readable
        ) as loaded,
    ):
        stream = iter(loaded)
        for file, part in batches.items():
            names: list[str] = []
            found = [torch.empty(0, *extraction.shape, dtype=stored)]
            for batch in part:
                tensors, _, indexes, bad = next(stream)
                if bad and not options.skip_unreadable:
                    why = next(iter(bad.values()))
                    raise UnreadableImageError(f"{why}; --skip-unreadable leaves such images out")
                left_out += bad.values()
                if len(indexes):
                    own_names = [samples.names[index] for index in indexes]
                    found.append(_finite(extraction.compute(tensors).to(stored), own_names).cpu())
                    names += own_names
                if bar:
                    bar.update(len(batch))
            features = {"features": torch.cat(found)}
            write_tensors(features, file, {"names": json.dumps(names)})
    return left_out


def _finite(features: Tensor, names: Sequence[str]) -> Tensor:
    finite = features.flatten(1).isfinite().all(1).cpu()
    if not finite.all():
        raise FloatingPointError(
            f"features of {names[int((~finite).nonzero()[0])]} are not finite in {features.dtype}: "
            "use --precision fp32 and --store fp32"
        )
    return features
