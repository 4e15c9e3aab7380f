"""The annotations of one file in COCO format, each checked and made uniform."""

from collections.abc import Mapping
from typing import Any

import pycocotools.mask as mask_api

from eva_data.coco.rules import (
    flag,
    has_corners,
    is_box,
    is_integer,
    is_number,
    rle_runs,
    shown,
)

_FARTHEST = 10**6  # px; pycocotools steps along the sides of polygons, without looking


def uniform_object(
    entry: Any,
    images: Mapping[int, dict[str, Any]],
    categories: Mapping[int, str],
    *,
    boxes_only: bool = False,
) -> dict[str, Any] | None:
    """Check an annotation and make it uniform.

    Args:
        entry: Entry of the file.
        images: Image id -> entry of the image, with `width` and `height`.
        categories: Known categories by their ids.
        boxes_only: Leave its mask alone, whatever it is.

    Returns:
        An object of `CocoFile.objects`; None if its box has no area.

    Raises:
        ValueError: If something is wrong; the message goes on after the entry's name.
    """
    if not isinstance(entry, dict):
        raise ValueError("is not a JSON object")
    ids = {key: entry.get(key) for key in ("image_id", "category_id")}
    for (key, value), known in zip(ids.items(), (images, categories), strict=True):
        if not is_integer(value) or value not in known:
            raise ValueError(f"has {key} {value!r}, which is not one of the file's")
    box = entry.get("bbox")
    if not is_box(box):
        raise ValueError(f"needs bbox: [x, y, width, height] in pixels, got {shown(box)}")
    if min(box[2:]) <= 0:
        return None
    image = images[entry["image_id"]]
    one = ids | {"bbox": [float(value) for value in box]}
    one["iscrowd"] = max(_flag(entry, "iscrowd"), _flag(entry, "ignore"))
    segmentation = None if boxes_only else entry.get("segmentation")
    mask = _mask(segmentation, image["height"], image["width"])
    if mask is not None:
        one["segmentation"] = mask
    area = entry.get("area")
    one["area"] = area if is_number(area) and area > 0 else _area(one, image)
    return one


def _mask(segmentation: Any, height: int, width: int) -> Any:
    """Take polygons of at least three corners, or a compressed RLE; None if there is neither."""
    if isinstance(segmentation, list):
        polygons = list(filter(has_corners, segmentation))
        for one in polygons:
            if not all(is_number(value) and abs(value) <= _FARTHEST for value in one):
                raise ValueError(
                    f"needs polygons of finite numbers [x, y, x, y, ...] in pixels, got "
                    f"{shown(one)}"
                )
        return polygons or None
    if not isinstance(segmentation, dict):
        return None
    try:
        rle_runs(segmentation, (height, width))
    except ValueError as error:
        raise ValueError(f"has an {error}") from error
    size, counts = segmentation["size"], segmentation["counts"]
    if isinstance(counts, str):
        return {"size": size, "counts": counts}
    code = mask_api.frPyObjects({"size": size, "counts": counts}, height, width)
    return {"size": size, "counts": code["counts"].decode()}


def _flag(entry: Mapping[str, Any], name: str) -> int:
    value = flag(entry.get(name))
    if value is None:
        raise ValueError(f"has {name} {shown(entry[name])}; it must be 0 or 1, as a number")
    return value


def _area(one: dict[str, Any], image: dict[str, Any]) -> float:
    mask = one.get("segmentation")
    if mask is None:
        return float(one["bbox"][2] * one["bbox"][3])
    if isinstance(mask, list):
        mask = mask_api.merge(mask_api.frPyObjects(mask, image["height"], image["width"]))
    return float(mask_api.area(mask))
