"""Detection datasets whose labels are not in COCO's form, such as those of YOLO, VOC and CSV."""

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from eva_data.detection.datasets import Entry, EntryError, Report
from eva_data.detection.rules import Size
from eva_data.files import printable


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
class ForeignDataset:
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


class Shape(NamedTuple):
    """An object by the name of its class: edges in pixels (left, top, right, bottom), and more.

    Those that are `difficult` are crowds in scoring, which count neither way.
    """

    name: str
    edges: Sequence[float]
    mask: Any = None  # polygons, or an RLE
    difficult: bool = False


class ImageLabels(NamedTuple):
    """The objects of an image: where they are stated, and with which sizes of the image, if any."""

    location: str
    shapes: Sequence[Shape]
    sizes: Collection[Size] = ()


def open_shapes(
    parts: Mapping[str, ImageList],
    *,
    format: str,
    source: Path,
    is_split: bool,
    classes: Sequence[str] = (),
) -> ForeignDataset:
    """Make a dataset of lists of `ImageLabels`; behind `classes` come other names, sorted."""
    labels = [entry for part in parts.values() for entry in part.labels.values()]
    names = sorted({shape.name for entry in labels for shape in entry.shapes})
    ids = {name: number for number, name in enumerate(dict.fromkeys([*classes, *names]), start=1)}
    if not ids and not any(part.missing for part in parts.values()):
        raise ValueError(f"{source}: none of its {len(labels)} annotated images has an object")
    for name in ids:
        if printable(name) != name:
            raise ValueError(f"{source}: class {name!r} is not text in UTF-8: save it as that")
    return ForeignDataset(
        format=format,
        source=source,
        classes=[*ids],
        parts=parts,
        read=functools.partial(_read_shapes, ids),
        is_split=is_split,
    )


def _read_shapes(
    ids: Mapping[str, int], labels: ImageLabels, size: Size, scored: bool, report: Report
) -> Iterator[Entry]:
    for stated in labels.sizes:
        if not _fits_image(stated, size, labels.location, report):
            return
    for shape in labels.shapes:
        entry = {"category_id": ids[shape.name], "bbox": box_inside(shape.edges, size)}
        entry |= {"segmentation": shape.mask} if shape.mask else {}
        yield entry | ({"iscrowd": 1} if scored and shape.difficult else {})


def _fits_image(stated: Size, size: Size, location: str, report: Report) -> bool:
    """Return whether an image has the size that its labels state; report another."""
    if stated == size:
        return True
    height, width = stated
    is_turned = stated == size[::-1]
    turned = " (as it is stored, before its EXIF orientation)" if is_turned else ""
    message = (
        f"its size is {width} x {height} px{turned}; its image has {size[1]} x {size[0]} px "
        "upright: boxes would be at the wrong place"
    )
    report(EntryError("labels.size", location, message))
    return False


def box_inside(edges: Sequence[float], size: Size) -> list[float]:
    """Clip the edges of a box to its image; return x, y, width and height with 3 decimals."""
    left, top, right, bottom = edges
    x, right = (round(min(max(value, 0.0), float(size[1])), 3) for value in (left, right))
    y, bottom = (round(min(max(value, 0.0), float(size[0])), 3) for value in (top, bottom))
    return [x, y, round(right - x, 3), round(bottom - y, 3)]
