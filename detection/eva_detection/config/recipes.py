"""Functions for recipes: every variable of a LazyConfig file becomes part of the config."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from functools import cache, partial
from importlib.resources import files
from typing import Any

from detectron2.config import LazyCall as L, LazyConfig
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import KRCNNConvDeconvUpsampleHead
from fvcore.common.param_scheduler import MultiStepParamScheduler
from omegaconf import DictConfig

from eva_backbone import VisionTransformer, get_vit_lr_decay_rate
from eva_backbone.layer_decay import freeze_same_share
from eva_backbone.variants import dense_pixels, detector_arguments, fine_tuning
from eva_data.bands import Bands
from eva_data.detection.keypoints import KeypointNames

_COLOURS = ("ColorAugSSDTransform", "RandomLighting", "RandomSaturation")
_load = cache(LazyConfig.load)


def stock_config(name: str) -> DictConfig:
    """Load a config that detectron2 ships, such as `common/models/mask_rcnn_vitdet.py`."""
    return deepcopy(_load(str(files("detectron2") / "model_zoo" / "configs" / name)))


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
    if model.backbone.net.get("canvas"):
        model.backbone.net.canvas = size
    elif "square_pad" in model.backbone:
        model.backbone.square_pad = size
    train, test = (dataloader[part].mapper.augmentations for part in ("train", "test"))
    for transform in train:
        if "target_height" in transform:
            transform.target_height = transform.target_width = size
        if "crop_size" in transform:
            transform.crop_size = (size, size)
    for transform in test:
        transform.short_edge_length = transform.max_size = size


def set_backbone(
    model: DictConfig,
    optimizer: DictConfig,
    variant: str,
    *,
    image_size: int | None = None,
    window_size: int | None = None,
    global_attn_indexes: Sequence[int] | None = None,
) -> None:
    """Put any plain ViT into a recipe, with its own pixel values, layer decay and drop path.

    What is not named is as in the recipe, or for the global blocks and the window's tokens as in
    `eva_backbone.variants.detector_arguments`.
    """
    net = model.backbone.net
    arguments = detector_arguments(
        variant, img_size=image_size or net.img_size, window_size=window_size or net.window_size
    )
    if global_attn_indexes is not None:
        arguments["global_attn_indexes"] = tuple(global_attn_indexes)
    factor = arguments["patch_size"] / net.patch_size  # the maps keep their strides
    model.backbone.scale_factors = [scale * factor for scale in model.backbone.scale_factors]
    arguments["activation_checkpointing"] = net.activation_checkpointing
    arguments["canvas"] = net.get("canvas", 0)
    model.backbone.net = L(VisionTransformer)(**arguments)
    freeze_same_share(model.backbone, old_depth=net.depth, depth=arguments["depth"])
    pixels = dense_pixels(variant)
    model.pixel_mean, model.pixel_std = pixels["mean"], pixels["std"]
    optimizer.params.lr_factor_func = partial(
        get_vit_lr_decay_rate,
        lr_decay_rate=fine_tuning(variant).layer_decay,
        num_layers=arguments["depth"],
    )


def set_schedule(
    train: DictConfig, lr_multiplier: DictConfig, *, steps: int, milestones: Sequence[float]
) -> None:
    """Set a schedule of so many steps that falls to a tenth at parts of them, as ViTDet's."""
    train.max_iter = steps
    lr_multiplier.scheduler = L(MultiStepParamScheduler)(
        values=[0.1**number for number in range(1 + len(milestones))],
        milestones=[round(steps * part) for part in milestones],
        num_updates=steps,
    )


def set_bands(model: DictConfig, dataloader: DictConfig, bands: Bands) -> list[str]:
    """Let a detector read and normalise bands; name the augmentations that only know RGB."""
    model.backbone.net.in_channels, model.input_format = bands.count, "RGB"
    if "freeze_patch_embed" in model.backbone:
        model.backbone.freeze_patch_embed = False
    model.pixel_mean = [255 * value for value in bands.mean]
    model.pixel_std = [255 * value for value in bands.std]
    left_out = []
    for node in (dataloader.train, dataloader.test):
        node.mapper.update(bands=bands.as_json(), image_format="RGB")
        steps = [
            (getattr(step["_target_"], "__name__", ""), step) for step in node.mapper.augmentations
        ]
        left_out += [name for name, _ in steps if name in _COLOURS]
        node.mapper.augmentations = [step for name, step in steps if name not in _COLOURS]
    return left_out


def set_keypoints(model: DictConfig, dataloader: DictConfig, points: KeypointNames | None) -> None:
    """Give a detector detectron2's head of these keypoints (Mask R-CNN, section 5), or none."""
    heads, channels = model.roi_heads, model.backbone.out_channels
    if points is None:
        for key in ("keypoint_in_features", "keypoint_pooler", "keypoint_head"):
            heads.pop(key, None)
        dataloader.train.mapper.pop("use_keypoint", None)
        return
    if "keypoint_head" not in heads:
        heads.keypoint_in_features = heads.box_in_features
        heads.keypoint_pooler = {**heads.box_pooler, "output_size": 14}
        heads.keypoint_head = L(KRCNNConvDeconvUpsampleHead)(
            input_shape=ShapeSpec(channels=channels, height=14, width=14),
            conv_dims=[2 * channels] * 8,
            loss_normalizer="visible",
        )
    heads.keypoint_head.num_keypoints = len(points.names)
    dataloader.train.mapper.update(use_keypoint=True, keypoint_hflip_indices=points.flip_indices)


def drop_masks(model: DictConfig, dataloader: DictConfig) -> None:
    """Make a detector of boxes alone, for data without masks."""
    for key in ("mask_in_features", "mask_pooler", "mask_head", "maskness_thresh"):
        model.roi_heads.pop(key, None)
    dataloader.train.mapper.update(use_instance_mask=False, recompute_boxes=False)
