"""Labelled images: folders of classes here, data sets by name in `named`.

open_labelled("imagenet/val", transform)
open_labelled("torchvision:CIFAR100:/data/cifar:test", transform)
open_labelled("hf:food101:validation", transform)
"""

import logging
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import shorten

import numpy as np
from PIL import Image

from eva_data.files import find_files
from eva_data.labelled.labelled_images import LabelledImages
from eva_data.names import Names
from eva_data.pictures import read_picture
from eva_data.suffixes import LISTED_PICTURES, PICTURES
from eva_data.transforms import PictureTransform

logger = logging.getLogger(__name__)


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
        transform: PictureTransform | None = None,
        *,
        classes: Sequence[str] | None = None,
        labels: Mapping[str, int] | None = None,
        upright: bool,
    ) -> None:
        self.folder = Path(folder)
        found = _class_folders(self.folder)
        if classes is None:
            classes = found
        if labels is None:
            labels = {name: label for label, name in enumerate(classes)}
            _compare(found, classes, self.folder)
        super().__init__(transform, classes, upright=upright)
        numbers = array("i")
        self._names = Names.collect(
            self._search([n for n in found if n in labels], labels, numbers)
        )
        if not numbers:
            raise ValueError(
                f"{self.folder} holds no image: looked in class folders for {LISTED_PICTURES}"
            )
        self.labels = np.array(numbers, np.int32)

    def _search(
        self, folders: Sequence[str], labels: Mapping[str, int], numbers: "array[int]"
    ) -> Iterator[str]:
        """Yield the images of the class folders; the label of each is appended to `numbers`."""
        for name in folders:
            before = len(numbers)
            for path in find_files(self.folder / name, PICTURES):
                numbers.append(labels[name])
                yield f"{name}/{path}"
            if len(numbers) == before:
                logger.warning("class folder %s holds no image", self.folder / name)

    def __len__(self) -> int:
        return len(self.labels)

    def sample_id(self, index: int) -> str:
        """Name an image by its path."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} images")
        return str(self.folder / self._names[index])

    def load(self, index: int) -> tuple[Image.Image, int]:
        """See `LabelledImages`."""
        picture = read_picture(self.sample_id(index), upright=self.upright)
        return picture, int(self.labels[index])


def read_class_list(file: str | os.PathLike[str]) -> list[str]:
    """Read class names from a text file, one in a line, in the order of the labels.

    The heads of ImageNet-21K follow the sorted names of its 21,841 folders.

    Raises:
        ValueError: If there is no such file, no name in it, or one twice.
    """
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"there is no class list {path}: a text file with a class in each line")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise ValueError(f"the class list {path} is not text in UTF-8: {error}") from error
    names = [line for line in lines if line]
    if not names:
        raise ValueError(f"the class list {path} is empty")
    if twice := _repeated(names):
        raise ValueError(f"the class list {path} names {listed(twice)} more than once")
    return names


def open_labelled(
    location: str | os.PathLike[str],
    transform: PictureTransform | None,
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


def _class_folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise ValueError(
            f"there is no folder {folder}; name a folder of class folders, "
            "torchvision:NAME:ROOT:SPLIT or hf:NAME:SPLIT"
        )
    above = {os.path.realpath(path) for path in (folder, *folder.absolute().parents)}
    shown = (path for path in folder.iterdir() if not path.name.startswith("."))
    found = sorted(path.name for path in shown if path.is_dir())  # not a link to itself
    for name in [name for name in found if (folder / name).is_symlink()]:
        if os.path.realpath(folder / name) in above:
            logger.warning("%s links to a folder above itself: it is not a class", folder / name)
            found.remove(name)
    if not found:
        raise ValueError(
            f"{folder} has no class folders: put the images of each class in a folder of its own, "
            f"like {folder.name}/cat/1.jpg"
        )
    return found


def _compare(found: Sequence[str], classes: Sequence[str], folder: Path) -> None:
    if twice := _repeated(classes):
        raise ValueError(f"classes has {listed(twice)} more than once")
    known, there = set(classes), set(found)
    if unknown := [name for name in found if name not in known]:
        raise ValueError(
            f"{folder} has {len(unknown)} folders that are not among the {len(classes)} classes: "
            f"{listed(unknown)}; expected {listed(list(classes), 4)}"
        )
    if absent := [name for name in classes if name not in there]:
        logger.warning("%s has no folder of %d classes: %s", folder, len(absent), listed(absent))


def _repeated(names: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    return [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]


def listed(names: Sequence[str], shown: int = 8) -> str:
    """Join names with commas; count those beyond `shown`, and cut long ones."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(shorten(name, 120, placeholder="...") for name in names[:shown]) + more
