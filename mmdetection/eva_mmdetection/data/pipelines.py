"""Pipelines of a dataset as functions that configs call: a recipe states sizes.

They are detectron2's augmentations of the official runs in mmdetection's transforms. A config
imports them after its `_base_`, by which mmengine knows a config that may import anything.
"""

from collections.abc import Sequence
from typing import Any

Steps = list[dict[str, Any]]


def training(
    side: int,
    *,
    ratios: tuple[float, float] = (0.1, 2.0),
    flip: float = 0.5,
    masks: bool = True,
    bitmaps: bool = False,
    extra: Sequence[dict[str, Any]] = (),
) -> Steps:
    """Draw flip, size and crop: large-scale jitter (ViTDet, arXiv 2203.16527).

    Args:
        side: Height and width of the crop, and of the square that an image is fitted into before
            the ratios multiply its size.
        ratios: Smallest and largest factor of the random size.
        flip: Probability of a mirrored image.
        masks: Whether to read masks; boxes are then those of what is left of the masks.
        bitmaps: Whether to hold masks as pixels, which run-length codes need; else as polygons.
        extra: Further transforms of the crop, such as mmdetection's `Brightness`.
    """
    read = dict(with_mask=True, poly2mask=bitmaps) if masks else {}
    steps: Steps = [dict(type="LoadImageFromFile")]
    steps.append(dict(type="LoadAnnotations", with_bbox=True, **read))
    if flip:
        steps.append(dict(type="RandomFlip", prob=flip))
    steps += [
        dict(
            type="RandomResize",
            scale=(side, side),
            ratio_range=ratios,
            keep_ratio=True,
            backend="pillow",
        ),
        dict(
            type="RandomCrop",
            crop_size=(side, side),
            crop_type="absolute",
            recompute_bbox=masks,
            allow_negative_crop=True,
        ),
    ]
    kept = dict(min_gt_bbox_wh=(1e-5, 1e-5), by_mask=masks, keep_empty=False)
    return [*steps, *extra, dict(type="FilterAnnotations", **kept), dict(type="PackDetInputs")]


def testing(side: int) -> Steps:
    """Fit an image into a square of a side; predictions are at its own size."""
    keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    return [
        dict(type="LoadImageFromFile"),
        dict(type="Resize", scale=(side, side), keep_ratio=True, backend="pillow"),
        dict(type="PackDetInputs", meta_keys=keys),
    ]
