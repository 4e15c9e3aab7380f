"""Checks the `segmentation` of COCO annotations, polygons and run lengths, and repairs polygons."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from findings import Kind

from eva_detection.data.rle import run_lengths

Points = np.ndarray[Any, np.dtype[np.float64]]

REMOVED = "removed"
ROUNDING = 1e-6  # px
KINDS: Mapping[str, Kind] = {
    "mask_missing": Kind("no mask, though other annotations have one", REMOVED),
    "mask_type": Kind("segmentation is neither polygons nor an RLE", REMOVED),
    "polygon_malformed": Kind(
        "polygon of an odd number, fewer than 6, or not finite coordinates",
        "polygon removed",
    ),
    "polygon_outside": Kind("polygon with points outside the image", "clipped"),
    "rle_size": Kind("RLE of another size than the image", REMOVED),
    "rle_broken": Kind("RLE that does not decode", REMOVED),
    "mask_empty": Kind("mask without a pixel", REMOVED),
}


@dataclass
class Mask:
    """A checked mask.

    Attributes:
        problems: (kind, detail).
        cleaned: what cleaning leaves; None if the annotation cannot be used.
        area: pixels of what cleaning leaves.
    """

    problems: list[tuple[str, str]] = field(default_factory=list)
    cleaned: Any = None
    area: int = 0


def check_mask(segmentation: Any, size: tuple[int, int], *, tolerance: float) -> Mask:
    """Checks one mask.

    Args:
        segmentation: of the annotation.
        size: height and width of its image.
        tolerance: pixels by which points may leave the image.
    """
    if not segmentation:
        return Mask([("mask_missing", "")])
    if isinstance(segmentation, dict):
        return _check_rle(segmentation, size)
    if isinstance(segmentation, list):
        return _check_polygons(segmentation, size, tolerance)
    return Mask([("mask_type", f"a {type(segmentation).__name__}")])


def _check_rle(segmentation: dict[str, Any], size: tuple[int, int]) -> Mask:
    if segmentation.get("size") != list(size):
        text = f"{segmentation.get('size')}, the image {list(size)} (height, width)"
        return Mask([("rle_size", text)])
    counts = segmentation.get("counts")
    # pycocotools does not check what it decodes, and writes beyond its memory if the counts are
    # too large: look at them first.
    try:
        lengths = run_lengths(counts) if isinstance(counts, str) else _whole_numbers(counts)
    except ValueError as error:
        return Mask([("rle_broken", str(error))])
    if min(lengths, default=0) < 0 or sum(lengths) != size[0] * size[1]:
        text = f"covers {sum(lengths)} pixels, the image has {size[0] * size[1]}"
        return Mask([("rle_broken", text)])
    area = sum(lengths[1::2])
    return Mask([], segmentation, area) if area else Mask([("mask_empty", "")])


def _whole_numbers(counts: Any) -> list[int]:
    if not isinstance(counts, list) or not all(type(count) is int for count in counts):
        raise ValueError(f"counts are a {type(counts).__name__}, not a string or whole numbers")
    return counts


def _check_polygons(polygons: list[Any], size: tuple[int, int], tolerance: float) -> Mask:
    from pycocotools import mask as rle

    mask = Mask()
    height, width = size
    limits = np.array([width, height], float)
    kept: list[Any] = []
    inside: list[list[float]] = []  # the same within the image, for pycocotools
    for polygon in polygons:
        points = _points(polygon)
        if points is None:
            mask.problems.append(("polygon_malformed", _shortened(polygon)))
            continue
        beyond = max(-points.min(), (points - limits).max())
        clipped = points.clip(0, limits).ravel().tolist()
        if beyond > tolerance + ROUNDING:
            text = f"by {beyond:.1f} px in an image of {width} x {height} px"
            mask.problems.append(("polygon_outside", text))
            # Wholly outside, it would be left as a line on the border.
            if not rle.area(rle.frPyObjects([clipped], height, width))[0]:
                continue
            polygon = clipped
        kept.append(polygon)
        inside.append(clipped)
    if inside:
        mask.area = int(rle.area(rle.merge(rle.frPyObjects(inside, height, width))))
    if mask.area:
        mask.cleaned = kept
    else:
        mask.problems.append(("mask_empty", _shortened(polygons[0])))
    return mask


def _points(polygon: Any) -> Points | None:
    """The corners as (N, 2), or None if it is no polygon."""
    if not isinstance(polygon, list) or len(polygon) % 2 or len(polygon) < 6:
        return None
    values = numbers(polygon)
    return values.reshape(-1, 2) if np.isfinite(values).all() else None


def numbers(values: Sequence[Any]) -> Points:
    """The values as floats, NaN for what is no number (as text and true are)."""
    if set(map(type, values)) <= {int, float}:
        with contextlib.suppress(OverflowError):
            return np.fromiter(values, float, len(values))
    return np.array([_number(value) for value in values], float)


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _shortened(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
