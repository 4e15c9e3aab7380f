"""A teacher's features of fixed views of images, computed once and read in every epoch."""

import contextlib
import copy
import hashlib
import json
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.utils.data import Dataset

from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.checkpoints.verification import sha256_of
from eva_data.files import expand_home
from eva_data.image_sources import Images, open_images
from eva_data.images import warn_of_depth
from eva_data.saving import write_tensors
from eva_engine import distributed
from eva_engine.data.loading import evaluation_loader, open_shared
from eva_engine.evaluation.classification_report import warn_of_left_out
from eva_engine.evaluation.counting import IndexedSamples, collate_readable
from eva_pretrain.config import PretrainConfig
from eva_pretrain.teachers import Teacher
from eva_pretrain.transforms import PretrainTransform, ValidationTransform, Views
from eva_runs.commands import echo
from eva_runs.errors import TooManyUnreadableError
from eva_runs.output_folder import lock_folder, match_recorded_settings, require_room
from eva_runs.precision import require_finite
from eva_runs.processes import is_main, run_on_main_rank

_AGAIN = "delete it and run the same command again"
_MOST, _FEW = 256 * 2**20, 32  # bytes of a file at most; files at least, for several processes


class FixedViews(Dataset[tuple[Tensor, int]]):
    """Views with the same crop and flip in every epoch and run; `count` of each image."""

    def __init__(self, images: Images, views: Views, count: int) -> None:
        transform: Any = copy.copy(images.transform)
        transform.views = views
        self.images, self.count = Images(images.files, transform), count
        self.names, seen = list[str](), Counter[str]()  # an image may be there twice
        for name in map(images.sample_id, range(len(images))):
            self.names += [f"{name}#{seen[name] + view}" for view in range(count)]
            seen[name] += count

    def __len__(self) -> int:
        return len(self.names)

    def view(self, index: int) -> dict[str, Tensor]:
        """Read a view; see `Views.finish`."""
        with torch.random.fork_rng(devices=[]):  # masks, of Python's generator, stay random
            torch.default_generator.manual_seed(index)  # of the CPU alone, which is faster
            view: dict[str, Tensor] = self.images[index // self.count]
        return view

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.view(index)["images"], 0


class CachedFeatures(Dataset[dict[str, Tensor]]):
    """Views of the student, with the teacher's `features` (patches, channels) from files."""

    def __init__(self, views: FixedViews, files: Iterable[Path], shape: Sequence[int]) -> None:
        self.views, index = views, {name: number for number, name in enumerate(views.names)}
        self._places = [
            (index[name], file, row, checksum)
            for file in files
            for row, (name, checksum) in enumerate(_read_names(file, {*index}, shape))
        ]

    def __len__(self) -> int:
        return len(self._places)

    def sample_id(self, index: int) -> str:
        """Return the name of a view: that of its image and a number."""
        return self.views.names[self._places[index][0]]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        view, file, row, checksum = self._places[index]
        with safe_open(file, framework="pt") as content:
            features = content.get_slice("features")[row]
        if zlib.crc32(features.numpy()) != checksum:
            raise ValueError(f"{file} is damaged: {_AGAIN}")
        return self.views.view(view) | {"features": features}


def _read_names(file: Path, recorded: set[str], shape: Sequence[int]) -> list[tuple[str, int]]:
    """Read the names of views, and checksums of their features."""
    try:
        with safe_open(file, framework="pt") as content:
            views = [(name, checksum) for name, checksum in json.loads(content.metadata()["views"])]
            rows = content.get_slice("features")
        names = {name for name, _ in views}
        form, expected = (rows.get_dtype(), rows.get_shape()), ("F16", [len(views), *shape])
        if form != expected or names - recorded:
            raise ValueError(f"it holds {form} of {len(names & recorded)} views, not {expected}")
        return views
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise ValueError(f"{file} cannot be read ({error}): {_AGAIN}") from error


def open_part(
    part: Literal["train", "val"],
    transform: PretrainTransform | ValidationTransform,
    *,
    teacher: Teacher,
    config: PretrainConfig,
) -> Images | CachedFeatures:
    """Open the images of a recipe, with the teacher's features if it has a cache for them.

    What the cache lacks is computed first, by all processes, which call this alike: features of
    `teacher.views` crops of each training image, and of the middle of each one for validation.

    Raises:
        ValueError: If the cache is of another teacher, list of images or crop, if the disk is too
            small for it, or a file of it damaged.
        TooManyUnreadableError: After `run.max_bad_samples`.
    """
    data = config.data
    find = partial(open_images, data.train if data.val_share else getattr(data, part), transform)
    images = open_shared(lambda folder: find(indexes=folder), config.run.output)
    warn_of_depth(len(images), images.encoded)
    if data.val_share:
        train, val = images.hold_out(data.val_share, name="data.val_share")
        images = val if part == "val" else train
    if not config.teacher.cache:
        return images
    run, folder = config.run, expand_home(config.teacher.cache) / part
    count = config.teacher.views if part == "train" else 1
    views = Views(size=teacher.image_size[0], mean=teacher.mean, std=teacher.std)
    seen, shape = FixedViews(images, views, count), (math.prod(teacher.grid), teacher.dim)
    indexes, each = range(len(seen)), math.prod(shape) * torch.float16.itemsize
    size = max(1, min(_MOST // each, math.ceil(len(seen) / _FEW)))
    parts = [indexes[start : start + size] for start in indexes[::size]]
    files = {
        folder / f"features-{number:05}-of-{len(parts):05}.safetensors": part
        for number, part in enumerate(parts)
    }
    names = "\n".join(seen.names).encode(errors="surrogateescape")

    def begin() -> list[Path]:
        stack.enter_context(lock_folder(folder))
        settings = vars(views) | {"crop_scale": config.data.crop_scale}
        settings["sha256"] = sha256_of(resolve_source(config.teacher.weights))
        settings["names"] = hashlib.sha256(names).hexdigest()
        match_recorded_settings(folder / "features.json", settings)
        missing = [file for file in files if not file.is_file()]
        count = sum(len(files[file]) for file in missing)
        require_room(folder, count * each)
        if count:
            echo(f"features of {count:,} views take {count * each / 1e9:,.3f} GB of {folder}")
        return missing

    with contextlib.ExitStack() as stack:
        missing = run_on_main_rank(begin)[distributed.rank() :: distributed.world_size()]
        left_out = _compute(seen, {file: files[file] for file in missing}, teacher, config)
        lost = [why for part in distributed.gather(left_out) for why in part]
    if is_main():
        warn_of_left_out(lost, unit="views")
    student = Views(size=transform.views.size, mean=config.data.mean, std=config.data.std)
    cache = CachedFeatures(FixedViews(images, student, count), files, shape)
    count = len(seen) - len(cache)
    if count > run.max_bad_samples:
        message = f"{count} of {len(seen)} views in {folder} could not be read"
        raise TooManyUnreadableError(f"{message}, max_bad_samples is {run.max_bad_samples}")
    return cache


def _compute(
    seen: FixedViews, files: dict[Path, range], teacher: Teacher, config: PretrainConfig
) -> list[str]:
    """Compute this process's files; return a reason for each view that cannot be read."""
    device, left_out, run = next(teacher.parameters()).device, list[str](), config.run
    size = run.batch_size
    batches = [
        [*names[first : first + size]]
        for names in files.values()
        for first in range(0, len(names), size)
    ]
    with evaluation_loader(
        IndexedSamples(seen),
        batches=batches,
        workers=run.workers,
        collate=collate_readable,
        progress="features",
    ) as loaded:
        stream = iter(loaded)
        for file, part in files.items():
            names = list[str]()
            batches_of_features = [torch.empty(0, math.prod(teacher.grid), teacher.dim)]
            for views, _, indexes, bad in islice(stream, math.ceil(len(part) / size)):
                left_out += bad.values()
                names += [seen.names[index] for index in indexes]
                batches_of_features += [teacher(views.to(device)).cpu()] if len(indexes) else []
            features = torch.cat([part.half() for part in batches_of_features])
            require_finite(features, f"features of {file}", advice="they are kept in fp16")
            # one entry: of several, safetensors writes the order at random
            views = [*zip(names, map(zlib.crc32, features.numpy()), strict=True)]
            write_tensors({"features": features}, file, {"views": json.dumps(views)})
    return left_out
