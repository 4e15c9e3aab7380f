"""Check the `segmentation` of COCO annotations, polygons and run lengths, and repair polygons."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eva_data.checks.findings import Kind
from eva_data.coco.rules import ROUNDING, Values, has_corners, numbers, rle_runs, shown

REMOVED = "removed"
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
        problems: Kind and detail of each problem.
        cleaned: Mask that cleaning leaves; None if the annotation cannot be used.
        area: Pixels of that mask.
    """

    problems: list[tuple[str, str]] = field(default_factory=list)
    cleaned: Any = None
    area: int = 0


def check_mask(segmentation: Any, size: tuple[int, int], *, tolerance: float) -> Mask:
    """Check one mask.

    Args:
        segmentation: Value in the annotation.
        size: Height and width of its image.
        tolerance: Pixels by which points may leave the image.
    """
    if not segmentation:
        return Mask([("mask_missing", "")])
    if isinstance(segmentation, dict):
        return _check_rle(segmentation, size)
    if isinstance(segmentation, list):
        return _check_polygons(segmentation, size, tolerance)
    return Mask([("mask_type", f"a {type(segmentation).__name__}")])


def _check_rle(segmentation: dict[str, Any], size: tuple[int, int]) -> Mask:
    try:
        area = sum(rle_runs(segmentation, size)[1::2])
    except ValueError as error:
        size_is_right = segmentation.get("size") == list(size)
        return Mask([("rle_broken" if size_is_right else "rle_size", str(error))])
    return Mask([], segmentation, area) if area else Mask([("mask_empty", "")])


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
            mask.problems.append(("polygon_malformed", shown(polygon, 60)))
            continue
        beyond = max(-points.min(), (points - limits).max())
        clipped = points.clip(0, limits).ravel().tolist()
        if beyond > tolerance + ROUNDING:
            text = f"by {beyond:.1f} px in an image of {width} x {height} px"
            mask.problems.append(("polygon_outside", text))
            # One that lies outside altogether would be left as a line on the border.
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
        mask.problems.append(("mask_empty", shown(polygons[0], 60)))
    return mask


def _points(polygon: Any) -> Values | None:
    """Convert the corners to (N, 2); None if it is not a polygon."""
    if not has_corners(polygon):
        return None
    values = numbers(polygon)
    return values.reshape(-1, 2) if np.isfinite(values).all() else None
