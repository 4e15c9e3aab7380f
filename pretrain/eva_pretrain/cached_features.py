"""A teacher's features of fixed views of images, computed once and read in every epoch."""

import argparse
import copy
import math
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from torch import Tensor
from torch.utils.data import Dataset

from eva_data.image_sources import Images, open_images
from eva_engine.commands.extraction import Extraction
from eva_engine.extraction import Samples, list_features, write_features
from eva_pretrain.config import PretrainConfig
from eva_pretrain.teachers import Teacher
from eva_pretrain.transforms import PretrainTransform, ValidationTransform, Views
from eva_runs.errors import TooManyUnreadableError

_FILE_MB = 256  # at most
_FILES = 32  # at least: a kill loses the work on one, and several processes have their shares


class FixedViews(Samples):
    """Views with the same crop and flip in every epoch and run; `count` of each image."""

    unit = "views"

    def __init__(self, images: Images, views: Views, count: int) -> None:
        transform: Any = copy.copy(images.transform)
        transform.views = views
        self.images, self.count = Images(images.files, transform), count
        names = map(images.sample_id, range(len(images)))
        self.names = [f"{name}#{view}" for name in names for view in range(count)]

    def view(self, index: int) -> dict[str, Tensor]:
        """Read a view; see `Views.finish`."""
        with torch.random.fork_rng(devices=[]):  # masks, of Python's generator, stay random
            torch.default_generator.manual_seed(index)  # of the CPU alone, which is faster
            view: dict[str, Tensor] = self.images[index // self.count]
        return view

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.view(index)["images"], 0


class CachedFeatures(Dataset[dict[str, Tensor]]):
    """Views of the student, with the teacher's `features` (patches, channels) from a folder."""

    def __init__(self, views: FixedViews, folder: Path) -> None:
        self.views, index = views, {name: number for number, name in enumerate(views.names)}
        files = list_features(folder).items()
        self._places = [(index[n], file, row) for file, ns in files for row, n in enumerate(ns)]

    def __len__(self) -> int:
        return len(self._places)

    def sample_id(self, index: int) -> str:
        """Return the name of a view: that of its image and a number."""
        return self.views.names[self._places[index][0]]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        view, file, row = self._places[index]
        with safe_open(file, framework="pt") as content:
            return self.views.view(view) | {"features": content.get_slice("features")[row]}


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
    images = open_images(getattr(config.data, part), transform)
    if not config.teacher.cache:
        return images
    run, folder = config.run, Path(config.teacher.cache) / part
    count = config.teacher.views if part == "train" else 1
    own = Views(size=teacher.image_size[0], mean=teacher.mean, std=teacher.std)
    seen, shape = FixedViews(images, own, count), (math.prod(teacher.grid), teacher.dim)
    megabytes = len(seen) * math.prod(shape) * torch.float16.itemsize / 2**20
    options = argparse.Namespace(
        output=folder, weights=config.teacher.weights, kind="patches", store="fp16",
        file_mb=min(_FILE_MB, megabytes / _FILES), batch_size=run.batch_size, workers=run.workers,
        skip_unreadable=True,
    )  # fmt: skip
    settings = vars(own) | {"crop_scale": config.data.crop_scale}
    device = next(teacher.parameters()).device
    extraction = Extraction(lambda batch: teacher(batch.to(device)), seen, shape, settings)
    write_features(options, lambda: extraction)
    student = Views(size=transform.views.size, mean=config.data.mean, std=config.data.std)
    cache = CachedFeatures(FixedViews(images, student, count), folder)
    if (lost := len(seen) - len(cache)) > run.max_bad_samples:
        text = f"{lost} of {len(seen)} views in {folder} could not be read"
        raise TooManyUnreadableError(f"{text}, max_bad_samples is {run.max_bad_samples}")
    return cache
