"""What COCO's format asks of a value of JSON: numbers, ids, boxes, polygons and run lengths.

Each rule stands here once. Those who ask (the reader, the checks of annotation files, the check of
submissions) say in their own words what is wrong.

Run lengths: pycocotools does not check what it decodes, and writes beyond its memory if the runs
are too long.
"""

import contextlib
import math
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np

Values = np.ndarray[Any, np.dtype[np.float64]]

LARGEST_ID = 2**63 - 1  # the evaluation sorts ids as 64-bit integers
THIN = 2.0  # px; boxes below are rarely meant
_LONGEST_NUMBER = 65  # bits: 13 characters


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether a value is an integer (true is not)."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_id(value: Any) -> TypeGuard[int]:
    """Whether a value is an integer from 0 to 2^63 - 1."""
    return is_integer(value) and 0 <= value <= LARGEST_ID


def is_side(value: Any) -> TypeGuard[float]:
    """Whether a value is a width or height of an image: an integer, also when written as 128.0."""
    return is_number(value) and 0 < value < 2**31 and value == int(value)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a finite number (true and text are not)."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False


def numbers(values: Sequence[Any]) -> Values:
    """Convert values to floats, with NaN or infinity for what is not a finite number."""
    if set(map(type, values)) <= {int, float}:
        with contextlib.suppress(OverflowError):
            return np.fromiter(values, float, len(values))
    return np.array([value if is_number(value) else math.nan for value in values], float)


def is_box(value: Any) -> TypeGuard[list[float]]:
    """Whether a value is a list of four finite numbers: x, y, width, height."""
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))


def has_corners(value: Any) -> TypeGuard[list[Any]]:
    """Whether a value is a list of x, y, x, y, ... for at least three corners."""
    return isinstance(value, list) and len(value) >= 6 and len(value) % 2 == 0


def run_lengths(counts: Any) -> list[int]:
    """Read the counts of a run-length code (RLE).

    Args:
        counts: A string, of a compressed code (cocoapi, maskApi.c: rleFrString), or a list.

    Returns:
        The runs, of background and foreground in turn; in a broken code they may be negative.

    Raises:
        ValueError: If a string ends in the middle of a number or holds other characters, or the
            counts are neither a string nor integers; the message does not name the code.
    """
    if isinstance(counts, list) and all(type(count) is int for count in counts):
        return counts
    if not isinstance(counts, str):
        raise ValueError(f"counts are a {type(counts).__name__}, not a string or integers")
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


def fill(lengths: Sequence[int], pixels: int) -> bool:
    """Whether runs fill an image exactly.

    Args:
        lengths: Lengths of the runs.
        pixels: Pixels of the image.
    """
    return min(lengths, default=0) >= 0 and sum(lengths) == pixels


def shown(value: Any, most: int = 80) -> str:
    """Write a value for a message, shortened to `most` characters."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."
