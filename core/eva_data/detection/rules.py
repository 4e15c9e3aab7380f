"""Rules of COCO's format for single values: numbers, ids, boxes, polygons and run lengths."""

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np

Array = np.ndarray[Any, Any]
Size = tuple[int, int]  # height and width in pixels

LARGEST_ID = 2**63 - 1  # the evaluation sorts ids as 64-bit integers
THIN = 2.0  # px; boxes below are rarely meant
ROUNDING = 1e-6  # px
_LONGEST_NUMBER = 65  # bits: 13 characters of a compressed RLE


def shown(value: Any, most: int = 80) -> str:
    """Format a value for a message, shortened to `most` characters."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def is_integer(value: Any) -> TypeGuard[int]:
    """Return whether a value is an integer (true is not)."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_id(value: Any) -> TypeGuard[int]:
    """Return whether a value is an integer from 0 to 2^63 - 1."""
    return is_integer(value) and 0 <= value <= LARGEST_ID


def is_side(value: Any) -> TypeGuard[float]:
    """Return whether a value is a width or height of an image: an integer, also as 128.0."""
    return is_number(value) and 0 < value < 2**31 and value == int(value)


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a value is a finite number (true and text are not)."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False


def is_box(value: Any) -> TypeGuard[list[float]]:
    """Return whether a value is a list of four finite numbers: x, y, width, height."""
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))


def has_corners(value: Any) -> TypeGuard[list[Any]]:
    """Return whether a value is a list of x, y, x, y, ... for at least three corners."""
    return isinstance(value, list) and len(value) >= 6 and len(value) % 2 == 0


def category_name(entry: Mapping[str, Any]) -> str:
    """Read the name of a category, text or a number; "" if it has none."""
    name = entry.get("name")
    return str(name) if isinstance(name, str | int | float) else ""


def flag(value: Any) -> int | None:
    """Read `iscrowd` or `ignore`: 0 or 1, null is 0; None for other values."""
    if isinstance(value, str) or value not in (None, 0, 1):
        return None
    return int(value or 0)


def suspected_unit(boxes: Array, sides: Array) -> str:
    """Judge boxes, (N, 4), by images, (N, 2) sides, in which one below 2 px is suspicious.

    Returns:
        "fractions" if no number is above 1, as YOLO has them; "thin" if all boxes are less than
        2 px wide and high; "" otherwise.
    """
    boxes = boxes[np.min(sides, axis=1) > 2 * THIN]
    if len(boxes) and np.abs(boxes).max() <= 1:
        return "fractions"
    return "thin" if len(boxes) and boxes[:, 2:].max() < THIN else ""


def clip(boxes: Array, sides: Array) -> tuple[Array, Array, Array]:
    """Clip boxes, (N, 4), to their images, (N, 2) sides.

    Returns:
        The boxes' parts within, the pixels by which each leaves its image, and which are outside.
    """
    with np.errstate(over="ignore"):
        low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    beyond = np.maximum(-low, high - sides).max(axis=1)
    low = low.clip(min=0)
    sizes = np.minimum(high, sides) - low
    outside = (sizes.min(axis=1) <= ROUNDING) & (beyond > 0)
    return np.concatenate([low, sizes], axis=1), beyond, outside


def rle_runs(segmentation: Mapping[str, Any], size: Size) -> list[int]:
    """Read a run-length encoding (RLE), compressed or not.

    pycocotools does not check what it decodes, and writes beyond its memory if the runs are too
    long.

    Args:
        segmentation: `size` and `counts`.
        size: Height and width of its image.

    Returns:
        The runs, of background and foreground in turn, which fill the image exactly.

    Raises:
        ValueError: If they do not, or cannot be read; the message starts with "RLE".
    """
    counts, (height, width) = segmentation.get("counts"), size
    if segmentation.get("size") != [height, width]:
        raise ValueError(
            f"RLE of size {shown(segmentation.get('size'))}; its image is {width} px wide and "
            f"{height} px high, so it needs 'counts' and 'size': [{height}, {width}]"
        )
    try:
        lengths = _run_lengths(counts)
    except ValueError as error:
        raise ValueError(f"RLE with broken counts: {error}") from error
    if min(lengths, default=0) < 0:
        raise ValueError("RLE with a negative count; counts are runs of pixels")
    if (covered := sum(lengths)) != height * width:
        text = covered if covered < 2**63 else "too many"
        raise ValueError(f"RLE of {text} pixels; its image has {height * width}")
    return lengths


def _run_lengths(counts: Any) -> list[int]:
    """Read the counts of an RLE: a list, or a string (cocoapi, maskApi.c: rleFrString)."""
    if isinstance(counts, list) and all(type(count) is int for count in counts):
        return counts
    if not isinstance(counts, str):
        raise ValueError("they are not a string or a list of integers")
    lengths: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"character {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if shift > _LONGEST_NUMBER:
            raise ValueError("a number of more than 64 bits")
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("it ends in the middle of a number")
    return lengths
