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

    Raises:
        ValueError: If one comes twice.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        require_distinct(classes, "classes")
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


def require_distinct(names: Iterable[str], where: object) -> None:
    """Refuse names of which one comes twice.

    Raises:
        ValueError: If one does; the message names it.
    """
    seen: set[str] = set()
    twice = [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
    if twice:
        raise ValueError(f"{where} has {listed(twice)} more than once")


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
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if names and names[0].replace(" ", "").lower() == "id,name":
        names = _names_by_id(names[1:], path)
    if not names:
        raise ValueError(f"the class list {path} is empty: write a class in each line")
    require_distinct(names, f"the class list {path}")
    return names


def _names_by_id(lines: Sequence[str], path: Path) -> list[str]:
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, skipinitialspace=True)]
    for row in rows:
        if len(row) != 2 or not row[0].isdecimal() or not row[1]:
            raise ValueError(f"the class list {path} has a row that is not `id,name`: {row}")
    names = {int(number): name for number, name in rows}
    if sorted(names) != list(range(len(rows))):
        wrong = next((i for i in range(len(rows)) if i not in names), len(rows))
        raise ValueError(f"the class list {path} has no id {wrong}, or one twice: ids count from 0")
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


def find_class_folders(folder: Path, *, warn: bool = True) -> list[str]:
    """List the class folders of a folder, sorted.

    Args:
        folder: The folder.
        warn: Whether to warn of links that are no class.

    Raises:
        ValueError: If there is no such folder, or no folder in it.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: name a folder of class folders")
    above = {os.path.realpath(path) for path in (folder, *folder.absolute().parents)}
    shown = (path for path in folder.iterdir() if not path.name.startswith("."))
    found = sorted(path.name for path in shown if path.is_dir())  # not a link to itself
    for name in [name for name in found if (folder / name).is_symlink()]:
        if os.path.realpath(folder / name) in above:
            found.remove(name)
            if warn:
                logger.warning("%s links to a folder above: it is not a class", folder / name)
    if not found:
        raise ValueError(
            f"{folder} has no class folders: put what belongs to a class in a folder of its own, "
            f"such as {folder.name}/cat"
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
    folder: Path, labels: Mapping[str, int], numbers: "array[int]", *, suffixes: Collection[str]
) -> Iterator[str]:
    """Yield the files in class folders and their subfolders, relative to the folder of all.

    Args:
        folder: Where the class folders are.
        labels: Name of a class folder -> label, in the order of the search.
        numbers: Gains the label of each file.
        suffixes: Lower-case suffixes with their dot.

    Raises:
        ValueError: If there is no such file in any of them.
    """
    kinds = ", ".join(sorted(suffix.removeprefix(".") for suffix in suffixes))
    for name, label in labels.items():
        before = len(numbers)
        for path in find_files(folder / name, suffixes):
            numbers.append(label)
            yield f"{name}/{path}"
        if len(numbers) == before:
            logger.warning("class folder %s holds no file of %s", folder / name, kinds)
    if not numbers:
        raise ValueError(f"{folder} has class folders without a file of {kinds}")


def listed(names: Sequence[str], shown: int = 8) -> str:
    """Join names with commas; count those beyond `shown`, and cut long ones."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(shorten(name, 120, placeholder="...") for name in names[:shown]) + more
