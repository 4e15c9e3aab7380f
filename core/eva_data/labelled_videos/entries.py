"""What a list of videos says, line by line, and the labels that it means."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eva_data.classes import Spellings, listed

logger = logging.getLogger(__name__)

MOST_CLASSES = 100_000  # that numbers alone may stand for
_NUMBER = re.compile(r"[+-]?\d{1,18}")


class Entry(NamedTuple):
    """A video as a list names it.

    Attributes:
        line: Number of its line, from 1.
        path: Path as it is written there.
        label: Number of its class.
        frames: Number of its frames if it is a folder of pictures and the list says so.
    """

    line: int
    path: str
    label: int
    frames: int | None = None


class Labels:
    """Labels of a list, written as numbers or as names of classes.

    Args:
        classes: Names in the order of the labels; None if they are not known, and the list has
            numbers.
    """

    def __init__(self, classes: Sequence[str] | None) -> None:
        self._classes = classes
        self._spellings = None if classes is None else Spellings(classes)
        self._smallest, self._largest = MOST_CLASSES, -1

    def read(self, text: str) -> int | None:
        """Read a label, None if it is neither a number nor the name of a class."""
        if _NUMBER.fullmatch(text):
            return int(text)
        return None if self._spellings is None else self._spellings.label(text)

    def require(self, label: int, where: str) -> int:
        """Refuse a label without a class.

        Args:
            label: The label.
            where: List and line.

        Raises:
            ValueError: If it is below 0, or there are fewer classes.
        """
        if self._classes is not None and not 0 <= label < len(self._classes):
            raise ValueError(
                f"{where} has the label {label}, and there are {len(self._classes)} classes: "
                f"0 is {self._classes[0]}, {len(self._classes) - 1} is {self._classes[-1]}"
            )
        if not 0 <= label < MOST_CLASSES:
            raise ValueError(
                f"{where} has the label {label}: labels count from 0, and there are at most "
                f"{MOST_CLASSES:,} without a list of classes"
            )
        self._smallest, self._largest = min(self._smallest, label), max(self._largest, label)
        return label

    def of(self, text: str, where: str) -> int:
        """Read a label that has a class.

        Args:
            text: The label.
            where: List and line.

        Raises:
            ValueError: If it has none.
        """
        label = self.read(text)
        if label is None:
            raise self.refuse(text, where)
        return self.require(label, where)

    def refuse(self, text: str, where: str) -> ValueError:
        """Make the error about a label that `read` does not know.

        Args:
            text: The label.
            where: List and line.
        """
        if self._classes is None:
            return ValueError(
                f"{where} has the label {text!r}, which is not a number: give the classes, in the "
                "order of the labels"
            )
        return ValueError(
            f"{where} has the label {text!r}, which is not among the {len(self._classes)} "
            f"classes: {listed(list(self._classes), 4)}"
        )

    def classes(self) -> list[str]:
        """Name the classes: as given, or by the numbers up to the largest label."""
        if self._classes is not None:
            return list(self._classes)
        if 0 < self._smallest <= self._largest:
            logger.warning(
                "labels are %d to %d, and count from 0: no video has the label 0",
                self._smallest, self._largest,
            )  # fmt: skip
        return [str(label) for label in range(self._largest + 1)]


def labels_of(first: Mapping[str, str]) -> Labels:
    """Find out which classes labels mean: their numbers, or else their names, sorted.

    Args:
        first: Label -> where it comes first.

    Raises:
        ValueError: If some are numbers and some are names: one slip would change all classes.
    """
    numbers = Labels(None)
    names = [text for text in first if numbers.read(text) is None]
    if not names:
        return numbers
    if len(names) < len(first):
        number = next(text for text in first if numbers.read(text) is not None)
        raise ValueError(
            f"{first[names[0]]} has the label {names[0]!r}, and {first[number]} has {number!r}: "
            "labels are all numbers or all names, unless the classes are given"
        )
    return Labels(sorted(names))


def text_lines(file: Path, *, around: str | None = None) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file with their numbers, without those that are empty.

    Names of files need not be text: bytes that are not UTF-8 stay as they are.

    Args:
        file: The file.
        around: Characters that are taken away around a line; None takes all space.
    """
    with file.open(encoding="utf-8-sig", errors="surrogateescape") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield number, line.strip(around)


def label_text(value: Any) -> str:
    """Write a value of JSON as it would stand in a list; an only element stands for itself."""
    if isinstance(value, list) and len(value) == 1:  # "label": [3]
        value = value[0]
    return "" if value is None else str(value).strip()
