"""What a reader of labelled pictures offers, whatever the form of its files."""

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva_data.files import IMAGE_SUFFIXES

Report = Callable[[str], None]  # receives a sentence on what is wrong with a label
Size = tuple[int, int]  # height and width in pixels
_DECIMALS = 3  # of pixels: what 6 decimals of a fraction hold


@dataclass(frozen=True, kw_only=True)
class Part:
    """The pictures of training or of evaluation.

    Attributes:
        folder: Folder that the names are relative to.
        names: Names of the pictures, sorted.
        absent: Sentences on pictures that a list names and that are not there.
    """

    folder: Path
    names: Sequence[str]
    absent: Sequence[str] = ()


class LabelledPictures:
    """Pictures with boxes or outlines of objects.

    Args:
        form: Name of the form of its files.
        source: File or folder that was named.
        parts: "train", "val" and, without the latter, "test", as far as they are there.
    """

    def __init__(self, form: str, source: Path, parts: Mapping[str, Part]) -> None:
        self.form, self.source, self.parts = form, source, parts
        self.notes: list[str] = []

    @property
    @abstractmethod
    def classes(self) -> Sequence[str]:
        """Names of the classes, in the order of their ids, which begin with 1."""

    @abstractmethod
    def objects(
        self, part: Part, name: str, size: Size, *, scored: bool, report: Report
    ) -> Iterator[dict[str, Any]]:
        """Read the objects of a picture.

        Args:
            part: Part of the picture.
            name: Name of the picture.
            size: Height and width of the upright picture.
            scored: Whether the part is for evaluation.
            report: Receives what is wrong; if it returns, the label is left out.

        Yields:
            `category_id`, `bbox` and, where it is known, `segmentation` and `iscrowd`, as in COCO.
        """


def refuse(text: str) -> None:
    """Raise what is wrong, at once.

    Args:
        text: The sentence.

    Raises:
        ValueError: With it.
    """
    raise ValueError(text)


def box_inside(left: float, top: float, right: float, bottom: float, size: Size) -> list[float]:
    """Cut a box at the edges of its picture; return x, y, width and height in COCO's way.

    Args:
        left: Left edge in pixels from 0.
        top: Upper edge.
        right: Right edge.
        bottom: Lower edge.
        size: Height and width of the picture.
    """
    x, right = (min(max(value, 0.0), float(size[1])) for value in (left, right))
    y, bottom = (min(max(value, 0.0), float(size[0])) for value in (top, bottom))
    x, y, right, bottom = (round(value, _DECIMALS) for value in (x, y, right, bottom))
    return [x, y, round(right - x, _DECIMALS), round(bottom - y, _DECIMALS)]


def rounded(value: float) -> float:
    """Round a coordinate in pixels, as files hold it."""
    return round(value, _DECIMALS)


def part_of(
    paths: Sequence[str], *, folders: Sequence[str] = (), absent: Sequence[str] = ()
) -> Part:
    """Make a part of pictures that lie anywhere.

    Args:
        paths: Absolute paths; a path may be there several times.
        folders: Folders that hold some of them, which names are not shortened below: so the name
            of a picture, which decides where it is held out, does not depend on the others.
        absent: See `Part`.
    """
    paths = sorted(set(paths))
    above = os.path.commonpath([*folders, *map(os.path.dirname, paths)])
    begin = len(above.rstrip(os.sep)) + 1
    names = [path[begin:] for path in paths]
    return Part(folder=Path(above), names=names, absent=absent)


def is_picture(name: str) -> bool:
    """Return whether a name has a suffix of pictures, in small or capital letters."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122
