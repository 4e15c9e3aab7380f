"""The annotations of one file in COCO format, each checked and made uniform."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pycocotools.mask as mask_api

from eva_detection.data.coco_rules import (
    THIN,
    fill,
    has_corners,
    is_box,
    is_integer,
    is_number,
    run_lengths,
    shown,
)

_FARTHEST = 10**6  # px; pycocotools steps along the sides of polygons, without looking


def uniform_object(
    entry: Any, images: Mapping[int, dict[str, Any]], categories: Mapping[int, str]
) -> dict[str, Any] | None:
    """Check an annotation and make it uniform.

    Args:
        entry: Entry of the file.
        images: Image id -> entry of the image, with `width` and `height`.
        categories: Known categories by their ids.

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
    mask = _mask(entry.get("segmentation"), image["height"], image["width"])
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
    counts, size = segmentation.get("counts"), segmentation.get("size")
    if size != [height, width] or not isinstance(counts, str | list):
        raise ValueError(
            f"has an RLE of size {shown(size)}; its image is {width} px wide and {height} px "
            f"high, so it needs 'counts' and 'size': [{height}, {width}]"
        )
    check_counts(counts, height * width)
    if isinstance(counts, str):
        return {"size": size, "counts": counts}
    code = mask_api.frPyObjects({"size": size, "counts": counts}, height, width)
    return {"size": size, "counts": code["counts"].decode()}


def check_counts(counts: Any, pixels: int) -> None:
    """Check that the counts of an RLE cover an image.

    Args:
        counts: Counts of a compressed RLE (a string) or an uncompressed one (a list).
        pixels: Pixels of the image.

    Raises:
        ValueError: If they are something else, do not decode, or cover more or less; the message
            goes on after the entry's name.
    """
    try:
        lengths = run_lengths(counts)
    except ValueError as error:
        if not isinstance(counts, str):
            raise ValueError(
                "has an RLE whose counts are not a string or a list of integers"
            ) from None
        raise ValueError(f"has an RLE with broken counts: {error}") from error
    if fill(lengths, pixels):
        return
    if min(lengths, default=0) < 0:
        raise ValueError("has an RLE with a negative count; counts are runs of pixels")
    covered = sum(lengths)
    text = covered if covered < 2**63 else "too many"
    raise ValueError(f"has an RLE of {text} pixels; its image has {pixels}")


def _flag(entry: Mapping[str, Any], name: str) -> int:
    value = entry.get(name)
    if value is not None and (isinstance(value, str) or value not in (0, 1)):
        raise ValueError(f"has {name} {shown(value)}; it must be 0 or 1, as a number")
    return int(value or 0)


def refuse_fractions(
    path: Path, objects: Iterable[dict[str, Any]], images: Mapping[int, dict[str, Any]]
) -> None:
    """Refuse boxes of which no number is above 1: fractions of the sides, as YOLO has them.

    Args:
        path: Path of the file, for the message.
        objects: All objects, made uniform.
        images: Image id -> entry of the image.

    Raises:
        ValueError: If they look like fractions.
    """
    largest, first = 0.0, None
    for one in objects:
        image = images[one["image_id"]]
        if min(image["width"], image["height"]) > 2 * THIN:
            first = first or one
            largest = max(largest, *map(abs, one["bbox"]))
    if first is not None and largest <= 1:
        raise ValueError(
            f"{path}: no number of any bbox is above 1 (the first: {shown(first['bbox'])} in image "
            f"{first['image_id']}): they look like fractions of the image, as YOLO writes them; "
            "convert them to pixels: [x, y, width, height], x and y of the upper left corner"
        )


def _area(one: dict[str, Any], image: dict[str, Any]) -> float:
    mask = one.get("segmentation")
    if mask is None:
        return float(one["bbox"][2] * one["bbox"][3])
    if isinstance(mask, list):
        mask = mask_api.merge(mask_api.frPyObjects(mask, image["height"], image["width"]))
    return float(mask_api.area(mask))
