"""Pipelines and folders of a dataset, as functions that configs call: a recipe states sizes.

A config imports them after its `_base_`, by which mmengine knows a config that may import anything.
mmengine leaves functions out of what it reads, so that a saved config is data.
"""

from collections.abc import Iterable
from typing import Any

Steps = list[dict[str, Any]]

LABEL_READERS = ("LoadAnnotations", "LoadCheckedAnnotations", "LoadLabelMap")


def training(
    side: int,
    *,
    aspect: int = 4,
    ratios: tuple[float, float] = (0.5, 2.0),
    cat_max_ratio: float = 0.75,
) -> Steps:
    """Draw size, crop, flip and colours.

    Args:
        side: Height and width of the crop, and the short side that the ratios multiply.
        aspect: Longest long side, in short sides.
        ratios: Smallest and largest factor of the random size.
        cat_max_ratio: Largest share of one class in a crop, where another crop has less.
    """
    return [
        dict(type="LoadPicture"),
        dict(type="LoadCheckedAnnotations"),
        dict(type="RandomResize", scale=(aspect * side, side), ratio_range=ratios, keep_ratio=True),
        dict(type="RandomCrop", crop_size=(side, side), cat_max_ratio=cat_max_ratio),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PhotoMetricDistortion"),
        dict(type="PackSegInputs"),
    ]


def testing(side: int) -> Steps:
    """Test at a short side; scores are at the original size, so labels are read after resizing.

    `LoadImageFromFile`, which mmsegmentation's inferencer wants, is `LoadPicture` here.
    """
    return [
        dict(type="LoadImageFromFile"),
        _resize(side),
        dict(type="ResizeToMultiple", size_divisor=32),
        dict(type="LoadCheckedAnnotations"),
        dict(type="PackSegInputs"),
    ]


def multi_scale(sizes: Iterable[int], *, window: int) -> Steps:
    """Test at several short sides, also mirrored; small images are padded to the sliding window."""
    meta_keys = (
        *("img_path", "seg_map_path", "ori_shape", "img_shape", "pad_shape"),
        *("padding_size", "scale_factor", "flip", "flip_direction", "reduce_zero_label"),
    )
    views = [
        [_resize(size) for size in sizes],
        [dict(type="ResizeToMultiple", size_divisor=32)],
        [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
        [dict(type="PadShortSide", size=window)],
        [dict(type="LoadCheckedAnnotations")],
        [dict(type="PackSegInputs", meta_keys=meta_keys)],
    ]
    return [dict(type="LoadImageFromFile"), dict(type="TestTimeAug", transforms=views)]


def _resize(side: int) -> dict[str, Any]:
    return dict(type="Resize", scale=(4 * side, side), keep_ratio=True)


def annotated(part: str, **dataset: Any) -> dict[str, Any]:
    """State a part of a dataset, a folder inside both `images` and `annotations`."""
    folders = dict(img_path=f"images/{part}", seg_map_path=f"annotations/{part}")
    return dict(data_prefix=folders, **dataset)
