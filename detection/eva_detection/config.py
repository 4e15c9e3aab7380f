"""What LazyConfig files need besides detectron2.

Functions rather than loops in the files: every variable of a file becomes part of the config.
`detectron2.model_zoo` is not used: it would import `pkg_resources`, which new setuptools lacks.
"""

import difflib
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from detectron2.config import LazyConfig
from omegaconf import DictConfig

from eva_detection.test_time_augmentation import augmentation_settings

# Sections whose names are read one by one, and names in them that a config may leave out.
_FLAT = ("train", "dataloader", "test")
_DEEPER = (["train", "amp"], ["test", "aug"])
_OPTIONAL_SETTINGS = (
    "train.accumulate",
    "train.amp.precision",
    "train.cudnn_benchmark",
    "train.max_bad_images",
    "train.progress_bar",
    "train.seed",
    "dataloader.evaluator",
)


def stock_config(name: str) -> DictConfig:
    """Load one of the configs that detectron2 ships.

    Args:
        name: Path below detectron2's `configs`, such as `common/models/mask_rcnn_vitdet.py`.

    Returns:
        A new config with everything that the file defines.

    Raises:
        ValueError: If detectron2 has no such config.
    """
    path = files("detectron2") / "model_zoo" / "configs" / name
    if not path.is_file():
        raise ValueError(f"detectron2 ships no config {name!r}")
    return LazyConfig.load(str(path))


def update_each(nodes: Iterable[DictConfig], **values: Any) -> None:
    """Set the same values in several nodes.

    Args:
        nodes: Config nodes, such as `model.roi_heads.box_predictors`.
        **values: Names and values to set.
    """
    for node in nodes:
        node.update(values)


def set_image_size(model: DictConfig, dataloader: DictConfig, size: int) -> None:
    """Set the side of the square canvas in the model and in all transforms that depend on it.

    The size that relative-position tables are made for, `model.backbone.net.img_size`, is left.

    Args:
        model: Config of the detector.
        dataloader: Config with `train` and `test`.
        size: Side in pixels.
    """
    model.backbone.square_pad = size
    train, test = (dataloader[part].mapper.augmentations for part in ("train", "test"))
    for transform in train:
        if "target_height" in transform:
            transform.target_height = transform.target_width = size
        if "crop_size" in transform:
            transform.crop_size = (size, size)
    for transform in test:
        transform.short_edge_length = transform.max_size = size


def drop_masks(model: DictConfig, dataloader: DictConfig) -> None:
    """Make a detector of boxes alone, for data without masks.

    Args:
        model: Config of the detector.
        dataloader: Config with `train`.
    """
    for key in ("mask_in_features", "mask_pooler", "mask_head"):
        model.roi_heads.pop(key)
    dataloader.train.mapper.update(use_instance_mask=False, recompute_boxes=False)


def check_overrides(cfg: DictConfig, overrides: Iterable[str]) -> None:
    """Refuse overrides that would be set and never read.

    Below `model`, `optimizer` and the like a wrong name fails when the object is built; elsewhere
    LazyConfig would take it without a word.

    Args:
        cfg: The config before the overrides.
        overrides: `key=value` strings of the command line.

    Raises:
        ValueError: For an unknown key, with the closest known ones.
    """
    known = {str(key) for key in cfg}
    known |= {f"dataloader.{key}" for key in cfg.dataloader}
    known |= {f"train.{key}" for key in cfg.train} | set(_OPTIONAL_SETTINGS)
    known |= {f"train.amp.{key}" for key in cfg.train.amp}
    known |= {f"test.aug.{key}" for key in augmentation_settings(cfg)}
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        parts = key.split(".")
        read = 3 if parts[:2] in _DEEPER else 2 if parts[0] in _FLAT else 1
        name = ".".join(parts[:read])
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3) or sorted(known)
            raise ValueError(
                f"unknown setting {key!r}: nothing reads it; known: {', '.join(close)}"
            )
