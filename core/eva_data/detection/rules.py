"""Rules of COCO's format for single values: numbers, ids, boxes and run lengths."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

Size = tuple[int, int]  # height and width in pixels
_LONGEST_NUMBER = 65  # bits: 13 characters of a compressed RLE


def format_value(value: Any, most: int = 80) -> str:
    """Format a value for a message, shortened to `most` characters."""
    text_of_value = repr(value)
    return text_of_value if len(text_of_value) <= most else f"{text_of_value[: most - 3]}..."


def is_integer(value: Any) -> TypeGuard[int]:
    """Return whether a value is an integer (true is not)."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_id(value: Any) -> TypeGuard[int]:
    """Return whether a value is an integer from 0 to 2^63 - 1."""
    return is_integer(value) and 0 <= value < 2**63


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


def rle_runs(segmentation: Any, size: Size) -> list[int]:
    """Read the runs, of background and foreground in turn, of an RLE, compressed or not.

    pycocotools does not check what it decodes, and writes beyond its memory if the runs are too
    long: those that do not fill the image of this size exactly are a ValueError ("RLE ...").
    """
    rle = segmentation if isinstance(segmentation, Mapping) else {"counts": segmentation}
    counts, stated = rle.get("counts"), rle.get("size")
    lengths = _run_lengths(counts)
    right = stated == [*size] and min(lengths, default=-1) >= 0
    if not right or sum(lengths) != math.prod(size):
        raise ValueError(
            f"RLE of size {format_value(stated)} with counts "
            f"{format_value(counts)}; its image "
            f"needs size [{size[0]}, {size[1]}] and runs of {math.prod(size)} pixels"
        )
    return lengths


def _run_lengths(counts: Any) -> list[int]:
    """Read counts, a list or a string (cocoapi, maskApi.c: rleFrString); none if they are wrong."""
    if isinstance(counts, list) and all(type(count) is int for count in counts):
        return counts
    lengths: list[int] = []
    value = shift = 0
    for character in counts if isinstance(counts, str) else "":
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift >= _LONGEST_NUMBER:
            return []
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    return [] if shift else lengths


def edges_of(texts: Iterable[str]) -> list[float] | None:
    """Read left, top, right and bottom of a box; None if they are not numbers in this order."""
    try:
        left, top, right, bottom = edges = [float(cell) for cell in texts]
    except ValueError:
        return None
    finite = all(abs(edge) < 2**31 for edge in edges)
    return edges if finite and left <= right and top <= bottom else None
