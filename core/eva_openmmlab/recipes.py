"""Any plain ViT in a recipe of mmsegmentation or mmdetection, in place of its own."""

import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config, ConfigDict

from eva_backbone import VisionTransformer
from eva_backbone.checkpoints.registry import find_backbone
from eva_backbone.layer_decay import freeze_same_share
from eva_backbone.variants import (
    dense_arguments,
    dense_pixels,
    detector_arguments,
    fine_tuning,
)

_ADAPTER_PATCH = 16  # pixels of a patch of ViT-Adapter
# what stays of a recipe's own ViT: where its maps and its memory are, not what it is
_KEPT = {"activation_checkpointing", "canvas"}


def set_backbone(cfg: Config, name: str) -> None:
    """Put any plain ViT into a recipe, with its own weights, pixel values and layer decay.

    Windows, sizes of images and what belongs to the pyramid or the adapter stay as in the recipe.

    Raises:
        ValueError: For an unknown name, or a recipe with another kind of backbone.
    """
    variant, weights = find_backbone(name)
    backbone = cfg.model.backbone
    if backbone.type not in ("EVAViT", "EVAViTAdapter", "EoMTBackbone"):
        raise ValueError(f"--backbone {name}: the recipe has {backbone.type}, not a plain ViT")
    arguments = _new_arguments(backbone, variant)
    if backbone.type != "EVAViT" or backbone.get("out_indices"):  # else a pyramid is in between
        _replace_width(cfg.model, backbone.embed_dim, arguments["embed_dim"])
    _scale_to_depth(backbone, arguments["depth"])
    _replace_vit(backbone, arguments)
    cfg.model.data_preprocessor.update(dense_pixels(variant))
    rates = cfg.optim_wrapper.get("paramwise_cfg")
    if rates and "layer_decay" in rates:
        rates.layer_decay = fine_tuning(variant).layer_decay
    cfg.load_from = weights or None


def _new_arguments(backbone: ConfigDict, variant: str) -> dict[str, Any]:
    """Return the arguments of a variant for what the recipe's backbone is used for."""
    window = backbone.get("window_size", 0)
    if window:
        arguments = detector_arguments(variant, img_size=backbone.img_size, window_size=window)
    else:
        arguments = dense_arguments(variant)
        arguments |= {"img_size": backbone.get("img_size", arguments["img_size"])}
        arguments |= {"drop_path_rate": fine_tuning(variant).drop_path_rate}
    if backbone.type == "EVAViTAdapter":
        side = arguments["pretrain_img_size"] // arguments["patch_size"] * _ADAPTER_PATCH
        arguments |= {"patch_size": _ADAPTER_PATCH, "pretrain_img_size": side}
    if backbone.type == "EoMTBackbone":
        arguments["final_norm"] = True  # in front of each prediction, whatever its detectors do
    return arguments


def _scale_to_depth(backbone: ConfigDict, depth: int) -> None:
    """Keep the share of the depth where maps are taken and below which blocks are frozen."""
    old_depth = backbone.get("depth", depth)
    indexes = backbone.get("out_indices")
    if indexes and backbone.type == "EVAViT":
        blocks = [indexes] if isinstance(indexes, int) else indexes
        backbone.out_indices = [round((index + 1) * depth / old_depth) - 1 for index in blocks]
    freeze_same_share(backbone, old_depth=old_depth, depth=depth)


def _replace_vit(backbone: ConfigDict, arguments: Mapping[str, Any]) -> None:
    """Replace the arguments of the recipe's own ViT; maps keep their strides."""
    factor = arguments["patch_size"] / backbone.get("patch_size", 16)
    if backbone.get("scale_factors"):
        backbone.scale_factors = [scale * factor for scale in backbone.scale_factors]
    of_vit = inspect.signature(VisionTransformer.__init__).parameters.keys() - _KEPT
    for key in of_vit | {"interaction_indexes", "pretrained", "init_cfg"}:
        backbone.pop(key, None)
    backbone.update(arguments)


def _replace_width(model: ConfigDict, old: int, new: int) -> None:
    """Let neck and heads on the ViT's own maps have its width."""
    parts = ("neck", "decode_head", "auxiliary_head", "panoptic_head")
    for node in (model.get(part) or {} for part in parts):
        for key in {"embed_dim", "in_channels", "channels"} & node.keys():
            widths = node[key]
            if isinstance(widths, list):
                node[key] = [new if width == old else width for width in widths]
            elif widths == old:
                node[key] = new
