"""Datasets whose labels are not in COCO's form: what YOLO, VOC, tables and label programs read."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva_data.detection.coco import Entry, EntryError, Report
from eva_data.detection.rules import Size


@dataclass(frozen=True, kw_only=True)
class ImageList:
    """The images of a part of a dataset, sorted, by names relative to a folder.

    `labels` has a label file, or its content, for each image with objects; `missing` are listed.
    """

    folder: Path
    names: Sequence[str]
    labels: Mapping[str, Any]
    missing: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """A dataset with labels of each image that are not in COCO's form; `format` names theirs.

    `source` is the file or folder that was named, and `classes` are in the order of the ids, which
    begin with 1. `read` takes a label, the size of its image, whether it is scored, and the report
    of errors; it yields `category_id`, `bbox` and, where known, `segmentation` and `iscrowd`.
    Without `is_split` the images are for training or for evaluation, as they are needed. `notes`
    say what was not as the file has it.
    """

    format: str
    source: Path
    classes: Sequence[str]
    parts: Mapping[str, ImageList]
    read: Callable[[Any, Size, bool, Report], Iterator[Entry]]
    is_split: bool = True
    notes: tuple[str, ...] = ()


def fits_image(stated: Size | None, size: Size, location: str, report: Report) -> bool:
    """Return whether an image has the size that its labels state, if any; report another."""
    if stated in (None, size):
        return True
    height, width = stated or size
    turned = " (as it is stored, before its EXIF orientation)" * (stated == size[::-1])
    message = (
        f"its size is {width} x {height} px{turned}; its image has {size[1]} x {size[0]} px "
        "upright: boxes would be at the wrong place"
    )
    report(EntryError("labels.size", location, message))
    return False


def box_inside(left: float, top: float, right: float, bottom: float, size: Size) -> list[float]:
    """Clip the edges of a box to its image; return x, y, width and height with 3 decimals."""
    x, right = (round(min(max(value, 0.0), float(size[1])), 3) for value in (left, right))
    y, bottom = (round(min(max(value, 0.0), float(size[0])), 3) for value in (top, bottom))
    return [x, y, round(right - x, 3), round(bottom - y, 3)]
