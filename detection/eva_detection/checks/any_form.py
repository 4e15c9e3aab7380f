"""The parts of a data set in any form, as `verify` takes them: COCO's lists and what they cost."""

import dataclasses
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from eva_data.coco.files import parse_json
from eva_data.object_data.as_coco import as_coco
from eva_data.object_data.content import LabelledPictures
from eva_data.object_data.forms import open_data

_LISTS = ("images", "annotations", "categories")


class Checked(NamedTuple):
    """A part to check.

    Attributes:
        name: "train", "val", "test", or "" where there is one file.
        place: File or folder, for messages.
        data: COCO's lists.
        folder: Folder of the pictures; None to leave them alone.
        problems: Sentences on labels and pictures that are not in the lists.
    """

    name: str
    place: Path
    data: dict[str, Any]
    folder: Path | None
    problems: list[str]


def load(file: Path) -> dict[str, Any]:
    """Parse an annotation file.

    Args:
        file: The file.

    Raises:
        ValueError: If it is not a JSON object with lists of images, annotations and categories.
    """
    collecting = gc.isenabled()
    gc.disable()  # it would look at millions of new objects again and again
    try:
        data = parse_json(file.read_bytes(), str(file))
    finally:
        if collecting:
            gc.enable()
    if not isinstance(data, dict):
        raise ValueError(f"{file} holds a {type(data).__name__}, not an object as COCO's files do")
    missing = [name for name in _LISTS if not isinstance(data.get(name), list)]
    if missing:
        raise ValueError(f"{file} has no list {' and '.join(missing)}; is it COCO's format?")
    return data


def parts_of(path: Path) -> Iterator[Checked]:
    """Read the parts of a data set, with the problems that training would refuse.

    Args:
        path: A `data.yaml`, or a folder in the form of YOLO, Pascal VOC or a COCO export.

    Yields:
        Each part; what is wrong with single labels is among its problems.

    Raises:
        ValueError: If it is in no such form, or cannot be read at all.
    """
    problems: list[str] = []
    source = open_data(path, report=problems.append)
    if not isinstance(source, LabelledPictures):
        for name, (file, folder) in source.items():
            yield Checked(name, file, load(file), folder, [])
        return
    for name, part in source.parts.items():
        problems += [f"{text}: is not there" for text in part.absent]
        part = dataclasses.replace(part, absent=())
        lists = as_coco(source, part, scored=name != "train", report=problems.append)
        data = {
            "images": lists.images,
            "annotations": [_with_area(one) for one in lists.annotations],
            "categories": lists.categories,
        }
        yield Checked(name, source.source, data, part.folder, [*problems, *lists.unreadable])
        problems.clear()


def _with_area(one: dict[str, Any]) -> dict[str, Any]:
    width, height = one["bbox"][2:]
    return {"iscrowd": 0, "area": width * height} | one
