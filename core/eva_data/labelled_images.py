"""Labelled images: folders of classes here, datasets by name in `named_datasets`.

open_labelled("imagenet/val", transform)
open_labelled("torchvision:CIFAR100:/data/cifar:test", transform)
open_labelled("hf:food101:validation", transform)
"""

import copy
import os
from abc import abstractmethod
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from eva_data.classes import (
    files_of_classes,
    find_class_folders,
    labels_of_folders,
    listed,
    read_class_list,
)
from eva_data.files import IMAGE_SUFFIXES
from eva_data.holdout import held_out
from eva_data.images import read_image
from eva_data.index import Names
from eva_data.transforms import ImageTransform


class LabelledImages(Dataset[tuple[Any, int]]):
    """A map-style dataset: `samples[index]` is (transformed image, label).

    Args:
        transform: Takes the PIL image in RGB; None returns it as it is.
        classes: Names of the labels 0, 1, ...
        upright: Turn images as their EXIF data say; see `eva_data.images`.
    """

    def __init__(
        self, transform: ImageTransform | None, classes: Sequence[str], *, upright: bool
    ) -> None:
        self.transform = transform
        self.classes = tuple(classes)
        self.upright = upright

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def sample_id(self, index: int) -> str:
        """Name the place of an image, for messages."""

    @abstractmethod
    def load(self, index: int) -> tuple[Image.Image, int]:
        """Read an image in RGB, and its label.

        Raises:
            UnreadableImageError: If it cannot be read.
        """

    def image(self, index: int) -> Image.Image:
        """Read an image in RGB, whatever its label."""
        return self.load(index)[0]

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = self.load(index)
        return (image if self.transform is None else self.transform(image)), label


class ClassFolders(LabelledImages):
    """Images in a folder for each class, searched with its subfolders.

    Paths and labels are two arrays and a block of bytes: 14 million images take about 1 GB, and
    the loader's processes share them.

    Args:
        folder: Folder with a folder for each class.
        transform: See `LabelledImages`.
        classes: Names of the class folders in the order of the labels; None sorts those there.
        labels: Label of each class folder, instead of its place in `classes`; other folders are
            left out.
        upright: See `LabelledImages`.

    Raises:
        ValueError: If there is no such folder, no class, no image, or an unknown class.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        transform: ImageTransform | None = None,
        *,
        classes: Sequence[str] | None = None,
        labels: Mapping[str, int] | None = None,
        upright: bool,
    ) -> None:
        self.folder = Path(folder)
        found = find_class_folders(self.folder)
        classes = found if classes is None else classes
        super().__init__(transform, classes, upright=upright)
        if labels is None:
            labels = labels_of_folders(found, classes, self.folder, exact=True)
        searched = {name: labels[name] for name in found if name in labels}
        numbers = array("i")
        files = files_of_classes(self.folder, searched, numbers, suffixes=IMAGE_SUFFIXES)
        self._names = Names.collect(files)
        self.labels = np.array(numbers, np.int32)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """Name an image by its path below the folder."""
        return self._names[index]

    def sample_id(self, index: int) -> str:
        """Name an image by its path."""
        return str(self.folder / self.name(index))

    def load(self, index: int) -> tuple[Image.Image, int]:
        """See `LabelledImages`."""
        image = read_image(self.sample_id(index), upright=self.upright)
        return image, int(self.labels[index])


class ChosenImages(LabelledImages):
    """Some of the images of a dataset, with its transform."""

    def __init__(self, samples: LabelledImages, indices: NDArray[np.int64]) -> None:
        super().__init__(samples.transform, samples.classes, upright=samples.upright)
        self._samples, self._places = samples, indices

    def __len__(self) -> int:
        return len(self._places)

    def sample_id(self, index: int) -> str:
        """See `LabelledImages`."""
        return self._samples.sample_id(int(self._places[index]))

    def load(self, index: int) -> tuple[Image.Image, int]:
        """See `LabelledImages`."""
        return self._samples.load(int(self._places[index]))


def hold_out_images(
    samples: LabelledImages, fraction: float, transform: ImageTransform, *, name: str
) -> tuple[ChosenImages, ChosenImages]:
    """Split a folder of classes into images to train on and held-out ones, of another transform.

    Raises:
        ValueError: If it is not a folder, or one side would be empty.
    """
    if not isinstance(samples, ClassFolders):
        raise ValueError(
            f"{name}={fraction:g} is for folders of classes; name a split of this dataset as val, "
            "such as hf:NAME:train[90%:] beside hf:NAME:train[:90%]"
        )
    names = (samples.name(index) for index in range(len(samples)))
    chosen = held_out(names, fraction, classes=samples.labels.tolist(), name=name)
    others = copy.copy(samples)
    others.transform = transform
    return (
        ChosenImages(samples, np.flatnonzero(~chosen)),
        ChosenImages(others, np.flatnonzero(chosen)),
    )


def open_labelled(
    location: str | os.PathLike[str],
    transform: ImageTransform | None,
    *,
    classes: Sequence[str] | str | os.PathLike[str] | None = None,
    upright: bool,
) -> LabelledImages:
    """Open labelled images.

    Args:
        location: A folder of class folders, `torchvision:NAME:ROOT[:SPLIT]` or
            `hf:NAME[:CONFIG]:SPLIT` (see `named_datasets`).
        transform: Takes the PIL image in RGB; None returns it as it is.
        classes: Names in the order of the labels, or a text file with them; those of a training
            set for its validation set. None takes them from the data.
        upright: See `LabelledImages`.

    Raises:
        ValueError: If there is no such data, or its classes are not `classes`.
    """
    if isinstance(classes, str | os.PathLike):
        classes = read_class_list(classes)
    kind, colon, rest = os.fspath(location).partition(":")
    if not colon or kind not in ("torchvision", "hf"):
        return ClassFolders(location, transform, classes=classes, upright=upright)
    from eva_data.named_datasets import open_hugging_face, open_torchvision  # which needs this one

    opener = open_torchvision if kind == "torchvision" else open_hugging_face
    samples = opener(rest, transform, upright=upright)
    if classes is not None and samples.classes != tuple(classes):
        raise ValueError(
            f"{location} has the classes {listed(list(samples.classes))}, but {len(classes)} "
            f"others are expected: {listed(list(classes))}"
        )
    return samples
