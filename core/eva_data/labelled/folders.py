"""Labelled images: folders of classes here, data sets by name in `named`.

open_labelled("imagenet/val", transform)
open_labelled("torchvision:CIFAR100:/data/cifar:test", transform)
open_labelled("hf:food101:validation", transform)
"""

import os
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from eva_data.files import IMAGE_SUFFIXES, LISTED_IMAGE_SUFFIXES
from eva_data.images import read_image
from eva_data.index import Names
from eva_data.labelled.classes import (
    files_of_classes,
    find_picture_folders,
    labels_of_folders,
    listed,
    read_class_list,
)
from eva_data.labelled.labelled_images import LabelledImages
from eva_data.transforms import ImageTransform


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
        found = find_picture_folders(self.folder)
        if classes is None:
            classes = found
        if labels is None:
            labels = labels_of_folders(found, classes, self.folder, exact=True)
        super().__init__(transform, classes, upright=upright)
        numbers = array("i")
        searched = {name: labels[name] for name in found if name in labels}
        files = files_of_classes(
            self.folder, searched, numbers, suffixes=IMAGE_SUFFIXES, what="image"
        )
        self._names = Names.collect(files)
        if not numbers:
            raise ValueError(
                f"{self.folder} holds no image: looked in class folders for {LISTED_IMAGE_SUFFIXES}"
            )
        self.labels = np.array(numbers, np.int32)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """Name an image by its path below the folder."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} images")
        return self._names[index]

    def sample_id(self, index: int) -> str:
        """Name an image by its path."""
        return str(self.folder / self.name(index))

    def load(self, index: int) -> tuple[Image.Image, int]:
        """See `LabelledImages`."""
        picture = read_image(self.sample_id(index), upright=self.upright)
        return picture, int(self.labels[index])


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
            `hf:NAME[:CONFIG]:SPLIT` (see `named`).
        transform: Takes the PIL image in RGB; None returns it as it is.
        classes: Names in the order of the labels, or a text file with them; those of a training
            set for its validation set. None takes them from the data.
        upright: See `LabelledImages`.

    Returns:
        The data set.

    Raises:
        ValueError: If there is no such data, or its classes are not `classes`.
    """
    if isinstance(classes, str | os.PathLike):
        classes = read_class_list(classes)
    kind, colon, rest = os.fspath(location).partition(":")
    if not colon or kind not in ("torchvision", "hf"):
        return ClassFolders(location, transform, classes=classes, upright=upright)
    from eva_data.labelled.named import open_hugging_face, open_torchvision

    opener = open_torchvision if kind == "torchvision" else open_hugging_face
    samples = opener(rest, transform, upright=upright)
    if classes is not None and samples.classes != tuple(classes):
        raise ValueError(
            f"{location} has the classes {listed(list(samples.classes))}, but {len(classes)} "
            f"others are expected: {listed(list(classes))}"
        )
    return samples
