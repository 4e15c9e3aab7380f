"""Functions for recipes: every variable of a LazyConfig file becomes part of the config."""

from collections.abc import Iterable, Sequence
from functools import partial
from importlib.resources import files
from typing import Any

from detectron2.config import LazyConfig
from omegaconf import DictConfig

from eva_backbone import get_vit_lr_decay_rate
from eva_backbone.variants import variant_arguments


def stock_config(name: str) -> DictConfig:
    """Load a config that detectron2 ships, such as `common/models/mask_rcnn_vitdet.py`."""
    return LazyConfig.load(str(files("detectron2") / "model_zoo" / "configs" / name))


def update_each(nodes: Iterable[DictConfig], **values: Any) -> None:
    """Set the same values in several nodes, such as `model.roi_heads.box_predictors`."""
    for node in nodes:
        node.update(values)


def box_predictors(heads: DictConfig) -> list[DictConfig]:
    """Return the box predictors of RoI heads, of a cascade or of one stage."""
    return list(heads.box_predictors) if "box_predictors" in heads else [heads.box_predictor]


def set_image_size(model: DictConfig, dataloader: DictConfig, size: int) -> None:
    """Set the side of the square canvas in the model and in all transforms that depend on it.

    The size that relative-position tables are made for, `model.backbone.net.img_size`, is left.
    """
    if "square_pad" not in model.backbone:
        raise ValueError(
            f"--image-size {size}: the recipe has no model.backbone.square_pad, its size is that "
            "of its augmentations"
        )
    model.backbone.square_pad = size
    train, test = (dataloader[part].mapper.augmentations for part in ("train", "test"))
    for transform in train:
        if "target_height" in transform:
            transform.target_height = transform.target_width = size
        if "crop_size" in transform:
            transform.crop_size = (size, size)
    for transform in test:
        transform.short_edge_length = transform.max_size = size


def set_vit(
    model: DictConfig,
    optimizer: DictConfig,
    variant: str,
    *,
    global_attn_indexes: Sequence[int],
    drop_path_rate: float,
    lr_decay_rate: float,
) -> None:
    """Set another ViT of the family, such as "eva_l_patch16", at the input sizes of the model's.

    `lr_decay_rate` is the factor of the learning rate from one layer to the one below it.
    """
    arguments = variant_arguments(variant)
    del arguments["img_size"]
    model.backbone.net.update(
        arguments | dict(global_attn_indexes=global_attn_indexes, drop_path_rate=drop_path_rate)
    )
    optimizer.params.lr_factor_func = partial(
        get_vit_lr_decay_rate, lr_decay_rate=lr_decay_rate, num_layers=arguments["depth"]
    )


def drop_masks(model: DictConfig, dataloader: DictConfig) -> None:
    """Make a detector of boxes alone, for data without masks."""
    for key in ("mask_in_features", "mask_pooler", "mask_head", "maskness_thresh"):
        model.roi_heads.pop(key, None)
    dataloader.train.mapper.update(use_instance_mask=False, recompute_boxes=False)
