"""A label file of YOLO: a line for each object, in fractions of the upright picture.

`class x_center y_center width height` is a box, `class x1 y1 x2 y2 x3 y3 ...` an outline, whose box
is that of its corners. Both may be in one file.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eva_data.coco.rules import shown
from eva_data.files import require_regular_file
from eva_data.object_data.content import Report, Size, box_inside, rounded

_TOLERANCE = 0.01  # by which a value may leave 0 to 1
_MOST_BYTES = 64 * 2**20  # no label file is larger


def read_label_file(
    file: Path, size: Size, *, classes: int, report: Report
) -> Iterator[dict[str, Any]]:
    """Read the objects of one file.

    Args:
        file: The file.
        size: Height and width of the upright picture.
        classes: Number of classes.
        report: Receives what is wrong with a line, which is left out if it returns.

    Yields:
        `category_id` (class + 1), `bbox` and, of an outline, `segmentation`.
    """
    try:
        require_regular_file(file)
        if file.stat().st_size > _MOST_BYTES:
            report(f"{file} has {file.stat().st_size:,} bytes, too many for labels of a picture")
            return
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        report(f"{file} cannot be read: {error.strerror}" if error.strerror else str(error))
        return
    except ValueError as error:
        report(f"{file} is not text in UTF-8 ({error})")
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if words := line.split():
            try:
                yield _object(words, size, classes)
            except ValueError as error:
                report(f"{file}, line {number}: {error}")


def _object(words: list[str], size: Size, classes: int) -> dict[str, Any]:
    category = _class(words[0], classes)
    count = len(words) - 1
    if count != 4 and (count < 6 or count % 2):
        raise ValueError(
            f"{count} numbers follow the class; a box has 4 (x_center y_center width height), an "
            f"outline has x and y of at least 3 corners: {shown(' '.join(words))}"
        )
    values = [_fraction(word) for word in words[1:]]
    height, width = size
    if count == 4:
        x, y, w, h = values
        edges = (x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height
        return {"category_id": category + 1, "bbox": box_inside(*edges, size)}
    xs = [rounded(min(max(value, 0.0), 1.0) * width) for value in values[::2]]
    ys = [rounded(min(max(value, 0.0), 1.0) * height) for value in values[1::2]]
    return {
        "category_id": category + 1,
        "bbox": box_inside(min(xs), min(ys), max(xs), max(ys), size),
        "segmentation": [[value for corner in zip(xs, ys, strict=True) for value in corner]],
    }


def _class(word: str, classes: int) -> int:
    value = _number(word)
    if value != int(value):
        raise ValueError(f"the class is {shown(word)}; it must be an integer")
    if not 0 <= value < classes:
        raise ValueError(
            f"the class is {value:g}; data.yaml has {classes} names, so 0 to {classes - 1}"
        )
    return int(value)


def _fraction(word: str) -> float:
    value = _number(word)
    if not -_TOLERANCE <= value <= 1 + _TOLERANCE:
        raise ValueError(
            f"{shown(word)} is outside of 0 to 1: values are fractions of the picture's width and "
            "height, and not pixels"
        )
    return value


def _number(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in word:
        raise ValueError(f"{shown(word)} is not a finite number")
    return value
