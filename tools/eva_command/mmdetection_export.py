"""A run of mmdetection as a run of detectron2, whose export writes it: one detector, two names."""

import inspect
import math
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from eva_backbone import VisionTransformer
from eva_detection.config.files import literal, save_config
from eva_detection.config.recipes import drop_masks, update_each
from eva_detection.config.settings import load_recipe
from eva_mmdetection.inference.predictor import Predictor
from eva_mmdetection.model.detectron2_names import to_detectron2
from eva_openmmlab.config import load_config
from eva_openmmlab.own_data import dicts
from eva_openmmlab.run_folder import require_config_of_run
from eva_runs.recipes import find_recipe
from eva_runs.record import read_threshold, write_threshold

_RECIPE = "coco/cascade_mask_rcnn_vitdet_eva_g_1280"
_PARTS = {"backbone": "EVAViT", "rpn_head": "EVARPNHead", "roi_head": "EVACascadeRoIHead"}


def has_queries(run: Path) -> bool:
    """Test whether a run detects by queries (EoMT, Mask2Former), which detectron2 does not have."""
    return "panoptic_head" in load_config(require_config_of_run(run)).model


def write_detectron2_run(run: Path, folder: Path) -> None:
    """Write config and weights of a detectron2 run that detects what a run of mmdetection does.

    Raises:
        ValueError: If the detector is not the cascade that both frameworks have.
    """
    config = load_config(require_config_of_run(run))
    model = config.model
    parts = {part: (model.get(part) or {}).get("type") for part in _PARTS}
    if parts == _PARTS:
        parts["nms"] = model.test_cfg.rcnn.nms.type
    for part, kind in (_PARTS | {"nms": "nms"}).items():
        if parts[part] != kind:
            raise ValueError(f"{run} has no export: its {part} is {parts[part]}, not {kind}")
    predictor, recipe = Predictor.from_config(run, device="cpu"), find_recipe("detection", _RECIPE)
    cfg = load_recipe(recipe)
    (scale,) = {tuple(step["scale"]) for step in dicts(config.test_dataloader) if "scale" in step}
    update_each(
        cfg.dataloader.test.mapper.augmentations, short_edge_length=min(scale), max_size=max(scale)
    )
    cfg.train.device = "cpu"
    _set_backbone(model, cfg.model)
    _set_proposals(model, cfg.model.proposal_generator)
    _set_heads(model, cfg.model.roi_heads)
    masks = model.roi_head.get("mask_head") is not None
    if not masks:
        drop_masks(cfg.model, cfg.dataloader)
    names = {key: literal(name) for key, name in predictor.categories.items()}
    cfg.own_data = {"categories": names, "boxes_only": not masks, "masks": masks, "tile": None}
    write_threshold(folder, read_threshold(run))
    save_config(cfg, folder / "config.yaml", source=recipe)
    weights = _order_anchors(predictor.model.state_dict(), model.rpn_head.anchor_generator)
    torch.save({"model": to_detectron2(weights)[0]}, folder / "model_final.pth")


def _set_backbone(model: Any, other: DictConfig) -> None:
    vit, pixels, backbone = model.backbone, model.data_preprocessor, other.backbone
    divisor, strides = pixels.get("pad_size_divisor", 0), model.roi_head.bbox_roi_extractor
    same = {key: vit[key] for key in inspect.signature(VisionTransformer).parameters if key in vit}
    backbone.net.update({"patch_size": 16, "rel_pos": "none", **same})
    backbone.update(
        out_channels=vit.get("out_channels") or 256,
        scale_factors=vit.get("scale_factors") or backbone.scale_factors,
        square_pad=divisor if divisor > max(strides.featmap_strides) else 0,
    )
    if not vit.get("extra_levels"):
        backbone.top_block = None
    other.update(pixel_mean=list(pixels.mean), pixel_std=list(pixels.std))


def _set_proposals(model: Any, other: DictConfig) -> None:
    rpn, test = model.rpn_head, model.test_cfg.rpn
    anchors = rpn.anchor_generator
    other.update(
        in_features=_levels(anchors.strides),
        nms_thresh=test.nms.iou_threshold,
        pre_nms_topk=(test.nms_pre,) * 2,
        post_nms_topk=(test.max_per_img,) * 2,
    )
    other.head.update(
        in_channels=rpn.in_channels,
        conv_dims=[-1] * rpn.get("num_convs", 1),
        num_anchors=len(anchors.ratios) * len(anchors.scales),
    )
    other.anchor_generator.update(
        sizes=[[size * scale for scale in anchors.scales] for size in anchors.base_sizes],
        aspect_ratios=list(anchors.ratios),
        strides=list(anchors.strides),
        offset=anchors.get("center_offset", 0.0),
    )


def _set_heads(model: Any, other: DictConfig) -> None:
    roi, test = model.roi_head, model.test_cfg.rcnn
    first, mask = roi.bbox_head[0], roi.get("mask_head")
    strides = list(roi.bbox_roi_extractor.featmap_strides)
    other.num_classes = first.num_classes
    other.box_in_features = other.mask_in_features = _levels(strides)
    for pooler, own in (
        (other.box_pooler, roi.bbox_roi_extractor),
        (other.mask_pooler, roi.get("mask_roi_extractor")),
    ):
        if own:
            pooler.update(
                output_size=own.roi_layer.output_size,
                sampling_ratio=own.roi_layer.sampling_ratio,
                scales=[1 / stride for stride in strides],
                canonical_box_size=own.finest_scale,
                canonical_level=int(math.log2(strides[0])),
            )
    update_each(
        other.box_heads,
        conv_dims=[first.conv_out_channels] * first.num_shared_convs,
        fc_dims=[first.fc_out_channels] * first.num_shared_fcs,
    )
    for head, predictor, own in zip(
        other.box_heads, other.box_predictors, roi.bbox_head, strict=True
    ):
        head.input_shape.channels = own.in_channels
        predictor.input_shape.channels = own.fc_out_channels
        predictor.box2box_transform.weights = [1 / std for std in own.bbox_coder.target_stds]
    update_each(
        other.box_predictors,
        test_score_thresh=test.score_thr,
        test_nms_thresh=test.nms.iou_threshold,
        test_topk_per_image=test.max_per_img,
        use_sigmoid_ce=first.loss_cls.type == "EVAFederatedLoss",
    )
    other.maskness_thresh = test.get("maskness_thr")
    if mask:
        other.mask_head.conv_dims = [mask.conv_out_channels] * (mask.num_convs + 1)
        other.mask_head.input_shape.channels = mask.in_channels


def _levels(strides: Any) -> list[str]:
    return [f"p{int(math.log2(stride))}" for stride in strides]


def _order_anchors(weights: dict[str, Tensor], anchors: Any) -> dict[str, Tensor]:
    """Order what belongs to anchors by size and then ratio; mmdetection's have the ratio first."""
    scales, ratios = len(anchors.scales), len(anchors.ratios)
    if not anchors.get("scale_major", True):
        return weights
    return {
        name: value.unflatten(0, (ratios, scales, -1)).transpose(0, 1).flatten(0, 2)
        if name.startswith(("rpn_head.rpn_cls.", "rpn_head.rpn_reg."))
        else value
        for name, value in weights.items()
    }
