"""Masks as they are drawn: from run-length codes, within their own box, at any size."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
_FIRST, _VALUE, _MORE, _SIGN, _BITS = 48, 0x1F, 0x20, 0x10, 5  # of COCO's characters


class PlacedMask(NamedTuple):
    """A part of a picture.

    Attributes:
        top: First row.
        left: First column.
        mask: (h, w) pixels from there on.
    """

    top: int
    left: int
    mask: Mask


def placed(mask: NDArray[Any] | Mapping[str, Any], height: int, width: int) -> PlacedMask | None:
    """Cut the box out of a mask that holds all of it.

    A run-length code is decoded within the columns of its box, which costs a large picture little.

    Args:
        mask: (H, W), or a run-length code of COCO, compressed or not.
        height: H of the picture.
        width: W of the picture.

    Returns:
        The box; None for a mask without a pixel.

    Raises:
        ValueError: If the mask is that of a picture of another size.
    """
    size = tuple(mask["size"]) if isinstance(mask, Mapping) else mask.shape
    if size != (height, width):
        raise ValueError(
            f"a mask of {size[1]} x {size[0]} px is not that of a picture of {width} x {height} px"
        )
    left, columns = 0, mask
    if isinstance(mask, Mapping):
        left, columns = _decoded(_counts(mask["counts"]), height, width)
    columns = np.asarray(columns, bool)
    rows = np.flatnonzero(columns.any(axis=1))
    if not len(rows):
        return None
    inside = columns[rows[0] : rows[-1] + 1]
    across = np.flatnonzero(inside.any(axis=0))
    return PlacedMask(int(rows[0]), left + int(across[0]), inside[:, across[0] : across[-1] + 1])


def resized(part: PlacedMask, ratio: float) -> PlacedMask:
    """Enlarge a part of a picture, or make it smaller, by the nearest pixel.

    Args:
        part: The part.
        ratio: Side of the new picture over that of the old one.

    Returns:
        The part of the new picture, with a pixel at least.
    """
    if ratio == 1:
        return part
    (top, ys), (left, xs) = (
        _nearest(start, length, ratio)
        for start, length in zip(part[:2], part.mask.shape, strict=True)
    )
    return PlacedMask(top, left, part.mask[ys[:, None], xs])


def inner_edge(mask: Mask, width: int) -> Mask:
    """Return the pixels of a mask that are nearer to its outside than a width.

    Args:
        mask: (h, w); what is around it is outside.
        width: Pixels, at least 1.

    Returns:
        (h, w).
    """
    core = np.pad(mask, 1)
    for _ in range(width):
        core[1:-1, 1:-1] &= (
            core[:-2, 1:-1] & core[2:, 1:-1] & core[1:-1, :-2] & core[1:-1, 2:]
        )  # the right side is complete before the left one changes
    edge: Mask = mask & ~core[1:-1, 1:-1]
    return edge


def _nearest(start: int, length: int, ratio: float) -> tuple[int, NDArray[np.intp]]:
    first = int(start * ratio)
    last = max(first + 1, round((start + length) * ratio))
    centres = (np.arange(first, last) + 0.5) / ratio
    return first, np.clip(centres.astype(np.intp) - start, 0, length - 1)


def _counts(code: Any) -> NDArray[np.int64]:
    """Lengths of the runs, which alternate between outside and inside."""
    if not isinstance(code, str | bytes):
        return np.asarray(code, np.int64)
    characters = np.frombuffer(code.encode() if isinstance(code, str) else code, np.uint8)
    values = characters.astype(np.int64) - _FIRST
    ends = (values & _MORE) == 0  # a number is characters of 5 bits each, the lowest first
    if not len(values) or not ends[-1]:
        return np.zeros(0, np.int64)
    firsts = np.concatenate(([0], np.flatnonzero(ends)[:-1] + 1))
    lengths = np.diff(np.append(firsts, len(values)))
    places = np.arange(len(values)) - firsts.repeat(lengths)
    numbers = np.add.reduceat((values & _VALUE) << (_BITS * places), firsts)
    negative = (values[ends] & _SIGN) > 0
    numbers[negative] -= np.int64(1) << (_BITS * lengths[negative])
    numbers[1::2] = np.cumsum(numbers[1::2])  # each is the difference to the one of its kind before
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def _decoded(counts: NDArray[np.int64], height: int, width: int) -> tuple[int, Mask]:
    """First column, and the columns from there on that hold all runs of the inside.

    What a damaged code has outside of the picture is left out.
    """
    ends = np.maximum.accumulate(np.cumsum(counts).clip(0, height * width))
    starts, stops = ends[: len(ends) // 2 * 2 : 2], ends[1::2]
    held = stops > starts
    starts, stops = starts[held], stops[held]
    if not len(starts) or not height:
        return 0, np.zeros((height, 0), bool)
    left, right = int(starts[0]) // height, -(-int(stops[-1]) // height)
    edges = np.stack((starts, stops), axis=1).ravel() - left * height
    lengths = np.diff(np.concatenate(([0], edges, [(right - left) * height])))
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return left, flat.reshape(right - left, height).T
