"""Classes of labelled data: lists of names, and a folder for each class."""

import csv
import logging
import os
import re
import unicodedata
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import shorten

from eva_data.files import find_files

logger = logging.getLogger(__name__)


class Spellings:
    """Labels by class name, also where another tool has written it in its own way.

    `riding a bike` is `riding_a_bike` for those who name folders, and quotes and brackets are lost
    in some of them. A spelling that stands for two classes stands for none.

    Args:
        classes: Names in the order of the labels.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        if twice := _repeated(classes):
            raise ValueError(f"classes has {listed(twice)} more than once")
        self._labels = {name: label for label, name in enumerate(classes)}
        self._simple: dict[str, int | None] = {}
        for name, label in self._labels.items():
            key = _simplified(name)
            self._simple[key] = None if key in self._simple else label

    def label(self, name: str) -> int | None:
        """Find the label of a name, None if there is none."""
        exact = self._labels.get(name)
        return self._simple.get(_simplified(name)) if exact is None else exact


def _simplified(name: str) -> str:
    composed = unicodedata.normalize("NFC", name)  # a Mac writes accents apart from their letters
    return " ".join(re.sub(r"[\"'()]", "", composed.replace("_", " ")).split())


def read_class_list(file: str | os.PathLike[str]) -> list[str]:
    """Read class names from a file, in the order of the labels.

    It has one name in each line (the heads of ImageNet-21K follow the sorted names of its 21,841
    folders), or is a table of CSV with the header `id,name`, in any order of the ids.

    Raises:
        ValueError: If there is no such file, no name in it, or one twice.
    """
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"there is no class list {path}: a text file with a class in each line")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except ValueError as error:
        raise ValueError(f"the class list {path} is not text in UTF-8: {error}") from error
    lines = [line.strip() for line in text.splitlines()]
    names = [line for line in lines if line]
    if names and names[0].replace(" ", "").lower() == "id,name":
        names = _names_by_id(names[1:], path)
    if not names:
        raise ValueError(f"the class list {path} is empty")
    if twice := _repeated(names):
        raise ValueError(f"the class list {path} names {listed(twice)} more than once")
    return names


def _names_by_id(lines: Sequence[str], path: Path) -> list[str]:
    names: dict[int, str] = {}
    for row in csv.reader(lines, skipinitialspace=True):
        if len(row) != 2 or not row[0].strip().isdecimal() or not row[1].strip():
            raise ValueError(f"the class list {path} has a row that is not `id,name`: {row}")
        if int(row[0]) in names:
            raise ValueError(f"the class list {path} has the id {row[0]} more than once")
        names[int(row[0])] = row[1].strip()
    if lacking := sorted(set(range(len(names))) - set(names)):
        raise ValueError(
            f"the class list {path} has {len(names)} ids, but not {lacking[0]}: they count from 0"
        )
    return [names[label] for label in range(len(names))]


def names_of_head(
    given: Sequence[str] | str | os.PathLike[str], num_classes: int, *, source: str
) -> tuple[str, ...]:
    """Take the names of the classes of a head, which are as many as it has.

    Args:
        given: Names in the order of the labels, or a file of them, see `read_class_list`.
        num_classes: Classes of the head.
        source: Name of the weights, for messages.

    Raises:
        ValueError: If there are more or fewer names, or the file cannot be read.
    """
    names = read_class_list(given) if isinstance(given, str | os.PathLike) else given
    if len(names) != num_classes:
        raise ValueError(
            f"there are {len(names)} names of classes, and {source} has {num_classes}: give "
            "those of its training, one in a line of a text file, as --classes"
        )
    return tuple(names)


def find_picture_folders(folder: Path, *, warn: bool = True) -> list[str]:
    """List the class folders of images, as `find_class_folders` does."""
    return find_class_folders(
        folder,
        what="images",
        example="1.jpg",
        otherwise="torchvision:NAME:ROOT:SPLIT or hf:NAME:SPLIT",
        warn=warn,
    )


def find_class_folders(
    folder: Path, *, what: str, example: str, otherwise: str, warn: bool = True
) -> list[str]:
    """List the class folders of a folder, sorted.

    Args:
        folder: The folder.
        what: What lies in a class folder, in messages.
        example: Name of a file of that kind, in messages.
        otherwise: What could be named in place of a folder, in messages.
        warn: Whether to warn of links that are no class.

    Raises:
        ValueError: If there is no such folder, or no folder in it.
    """
    if not folder.is_dir():
        raise ValueError(
            f"there is no folder {folder}; name a folder of class folders, {otherwise}"
        )
    above = {os.path.realpath(path) for path in (folder, *folder.absolute().parents)}
    shown = (path for path in folder.iterdir() if not path.name.startswith("."))
    found = sorted(path.name for path in shown if path.is_dir())  # not a link to itself
    for name in [name for name in found if (folder / name).is_symlink()]:
        if os.path.realpath(folder / name) in above:
            found.remove(name)
            if not warn:
                continue
            logger.warning("%s links to a folder above itself: it is not a class", folder / name)
    if not found:
        raise ValueError(
            f"{folder} has no class folders: put the {what} of each class in a folder of its own, "
            f"like {folder.name}/cat/{example}"
        )
    return found


def labels_of_folders(
    found: Sequence[str], classes: Sequence[str], folder: Path, *, exact: bool
) -> dict[str, int]:
    """Give class folders their labels.

    Args:
        found: Names of the class folders.
        classes: Names in the order of the labels.
        folder: Where they are, for messages.
        exact: Whether a folder has the name of its class and no other spelling of it.

    Returns:
        Name of a folder -> label.

    Raises:
        ValueError: If a folder is not of a class, or a class is there twice.
    """
    spellings = Spellings(classes)
    places = {name: label for label, name in enumerate(classes)}
    labels = {name: places.get(name) if exact else spellings.label(name) for name in found}
    if unknown := [name for name, label in labels.items() if label is None]:
        raise ValueError(
            f"{folder} has {len(unknown)} folders that are not among the {len(classes)} classes: "
            f"{listed(unknown)}; expected {listed(list(classes), 4)}"
        )
    known = {name: label for name, label in labels.items() if label is not None}
    there = set(known.values())
    if absent := [name for label, name in enumerate(classes) if label not in there]:
        logger.warning("%s has no folder of %d classes: %s", folder, len(absent), listed(absent))
    return known


def files_of_classes(
    folder: Path,
    labels: Mapping[str, int],
    numbers: "array[int]",
    *,
    suffixes: Collection[str],
    what: str,
) -> Iterator[str]:
    """Yield the files in class folders and their subfolders, relative to the folder of all.

    Args:
        folder: Where the class folders are.
        labels: Name of a class folder -> label, in the order of the search.
        numbers: Gains the label of each file.
        suffixes: Lower-case suffixes with their dot.
        what: Name of one such file, in the warning about a class without any.
    """
    for name, label in labels.items():
        before = len(numbers)
        for path in find_files(folder / name, suffixes):
            numbers.append(label)
            yield f"{name}/{path}"
        if len(numbers) == before:
            logger.warning("class folder %s holds no %s", folder / name, what)


def _repeated(names: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    return [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]


def listed(names: Sequence[str], shown: int = 8) -> str:
    """Join names with commas; count those beyond `shown`, and cut long ones."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(shorten(name, 120, placeholder="...") for name in names[:shown]) + more
