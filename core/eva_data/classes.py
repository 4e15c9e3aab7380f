"""Classes of labelled data: lists of names, and a folder for each class."""

import csv
import logging
import os
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eva_data.files import IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES, find_files, read_lines
from eva_data.index import Names

logger = logging.getLogger(__name__)

ALLOW_EMPTY = "--allow-empty-classes"  # of trainings on own data, and of their checks


class Spellings:
    """Labels by class name, also where another tool has written it in its own way.

    `riding a bike` is `riding_a_bike` for those who name folders, and quotes and brackets are lost
    in some of them. A spelling that stands for two classes stands for none.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        require_distinct(classes, "classes")
        self._labels = {name: label for label, name in enumerate(classes)}
        self._simple: dict[str, int | None] = {}
        for name, label in self._labels.items():
            key = _simplified(name)
            self._simple[key] = None if key in self._simple else label

    def label(self, name: str, *, exact: bool = False) -> int | None:
        """Find the label of a name, or with `exact` of this spelling alone; None without."""
        label = self._labels.get(name)
        return self._simple.get(_simplified(name)) if label is None and not exact else label


def _simplified(name: str) -> str:
    composed = unicodedata.normalize("NFC", name)  # a Mac writes accents apart from their letters
    return " ".join(re.sub(r"[\"'()]", "", composed.replace("_", " ")).split())


def folded(name: str) -> str:
    """Return a name without what people write in different ways: case, spaces, `_` for them."""
    return _simplified(name).casefold()


def find_respelled(names: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    """Find names that are one of the others but for case and spaces: name -> other."""
    exact = {*others}
    by_folded = {folded(other): other for other in sorted(exact)}
    pairs = ((name, by_folded.get(folded(name), name)) for name in names if name not in exact)
    return {name: other for name, other in pairs if name != other}


def describe_alike(names: Sequence[str], where: object) -> list[str]:
    """Say which of some classes differ by case or spaces alone, in a warning or none."""
    pairs = [
        f"{name!r} and {other!r}"
        for number, name in enumerate(names)
        for other in find_respelled([name], names[:number]).values()
    ]
    if not pairs:
        return []
    return [f"{where} has classes that differ by case or spaces alone: {list_names(pairs)}"]


def require_distinct(names: Sequence[str], where: object) -> None:
    """Refuse names of which one comes twice; the ValueError names it."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{where} has {list_names(twice)} more than once")


def read_class_list(file: str | os.PathLike[str]) -> list[str]:
    """Read class names from a file, in the order of the labels.

    It has one name in each line (the heads of ImageNet-21K follow the sorted names of its 21,841
    folders), or is a table of CSV with the header `id,name`, in any order of the ids.
    """
    names = read_lines(file, skip_blank=True)
    if names[0].replace(" ", "").lower() == "id,name":
        rows = [[cell.strip() for cell in row] for row in csv.reader(names, skipinitialspace=True)]
        by_id = {row[0]: row[1] for row in rows[1:] if len(row) == 2 and row[1]}
        ids = [str(label) for label in range(max(len(rows) - 1, 1))]
        missing = [label for label in ids if label not in by_id]
        if missing:
            raise ValueError(
                f"the class list {file} has no row `id,name` of the id {missing[0]}: ids count "
                "from 0, each once"
            )
        names = [by_id[label] for label in ids]
    require_distinct(names, f"the class list {file}")
    return names


def names_of_head(
    class_names: Sequence[str] | str | os.PathLike[str], num_classes: int, *, source: str
) -> tuple[str, ...]:
    """Take the names of the classes of a head, or of a file of them; they are as many as it has."""
    names = (
        read_class_list(class_names) if isinstance(class_names, str | os.PathLike) else class_names
    )
    if len(names) != num_classes:
        raise ValueError(
            f"there are {len(names)} names of classes, and {source} has {num_classes}: give "
            "those of its training, one in a line of a text file, as --classes"
        )
    return tuple(names)


def find_class_folders(folder: Path, *, warn: bool = True) -> list[str]:
    """List the class folders of a folder, sorted; warn of links that are no class."""
    above = {os.path.realpath(path) for path in (folder, *folder.absolute().parents)}
    folders = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") or not path.is_dir():  # a link to itself is no folder
            continue
        if not path.is_symlink() or os.path.realpath(path) not in above:
            folders.append(path.name)
        elif warn:
            logger.warning("%s links to a folder above: it is not a class", path)
    if not folders:
        raise ValueError(
            f"{folder} has no class folders: put what belongs to a class in a folder of its own, "
            f"such as {folder.name}/cat"
        )
    return folders


class ClassFiles(NamedTuple):
    """Files in class folders: their names below the folder of all, labels, names of the labels."""

    names: Names
    labels: NDArray[np.int32]
    classes: Sequence[str]


def find_class_files(
    folder: Path,
    suffixes: Collection[str],
    *,
    classes: Sequence[str] | None = None,
    labels: Mapping[str, int] | None = None,
    exact: bool = True,
) -> ClassFiles:
    """Find the files of some suffixes in class folders and below, sorted by folder and name.

    A folder without files is no class; without any file it is an error. `classes` are the names of
    the folders in the order of the labels, None sorts those there; `exact` allows no other
    spelling. `labels` are those of each folder, instead of its place in `classes`; other folders
    are left out.
    """
    folders = find_class_folders(folder)
    own, unread = list[str](), list[str]()
    others = OTHER_IMAGE_SUFFIXES if suffixes == IMAGE_SUFFIXES else ()
    if labels is None and classes is not None:
        labels = _labels_of(folder, folders, classes, suffixes, exact=exact)
    kinds = ", ".join(sorted(suffix.removeprefix(".") for suffix in suffixes))
    numbers = array("i")

    def files() -> Iterator[str]:
        for name in folders:
            before, label = len(numbers), len(own) if labels is None else labels.get(name)
            if label is None:
                continue
            for path in find_files(folder / name, {*suffixes, *others}):
                if path.lower().endswith(others):
                    unread.append(f"{name}/{path}")
                else:
                    numbers.append(label)
                    yield f"{name}/{path}"
            if len(numbers) > before:
                own.append(name)
            else:
                logger.warning("class folder %s holds no file of %s", folder / name, kinds)

    names = Names.collect(files())
    if unread:
        message = "%s: no training reads images such as %s; %d are left out"
        logger.warning(message, folder, unread[0], len(unread))
    if not numbers:
        raise ValueError(f"{folder} has class folders without a file of {kinds}")
    return ClassFiles(names, np.array(numbers, np.int32), own if classes is None else classes)


def _labels_of(
    root: Path,
    folders: list[str],
    classes: Sequence[str],
    suffixes: Collection[str],
    *,
    exact: bool,
) -> dict[str, int]:
    spellings = Spellings(classes)
    labels = {name: spellings.label(name, exact=exact) for name in folders}
    labels_by_name = {name: label for name, label in labels.items() if label is not None}
    free = [name for label, name in enumerate(classes) if label not in labels_by_name.values()]
    unclear = [name for name in folders if name not in labels_by_name]
    for name, other in find_respelled(unclear, free).items():
        logger.warning("%s: the folder %r is taken for the class %r", root, name, other)
        labels_by_name[name] = classes.index(other)
    others = (name for name in folders if name not in labels_by_name)
    unknown = [name for name in others if any(find_files(root / name, suffixes))]
    if unknown:
        raise ValueError(
            f"{root} has {len(unknown)} folders that are not among the {len(classes)} classes: "
            f"{list_names(unknown)}; expected {list_names(list(classes), 4)}"
        )
    return labels_by_name


def list_names(names: Sequence[str], shown: int = 8) -> str:
    """Join names with commas; count those beyond `shown`, and cut long ones."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(shorten(name, 120, placeholder="...") for name in names[:shown]) + more
