"""Any dataset in any recipe: the config itself states files and classes, for every later reader."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from detectron2.config import LazyCall as L
from detectron2.data import DatasetMapper
from omegaconf import DictConfig, OmegaConf

from eva_data.detection.coco import CocoDataset
from eva_data.detection.spec import NO_FEDERATED_LOSS
from eva_detection.building import target_of
from eva_detection.command_line import read_own_data
from eva_detection.config.files import literal
from eva_detection.config.recipes import box_predictors, drop_masks, update_each
from eva_detection.data.custom_data import load_records
from eva_detection.data.mapper import ImageMapper
from eva_detection.evaluation.evaluators import CustomEvaluator


def apply_custom_data(cfg: DictConfig, args: argparse.Namespace) -> list[str]:
    """Put the data of the command line into a config, if there is any; returns what was changed."""
    boxes_only = bool(getattr(args, "boxes_only", False))
    data = read_own_data(args)
    if not data.parts:
        return []
    data.place(Path(cfg.train.output_dir))
    saved = OmegaConf.select(cfg, "dataloader.test.dataset.categories")
    categories, reason, notes = data.for_detector(saved, boxes_only=boxes_only)
    if reason and "mask_head" in cfg.model.roi_heads:
        drop_masks(cfg.model, cfg.dataloader)
        cfg.model.roi_heads.pop("maskness_thresh", None)
        notes.append(f"The detector has no mask head: {reason}")
    _set_data(cfg, data.parts, categories, **({"boxes_only": True} if boxes_only else {}))
    if args.tile is not None and "train" in data.parts:
        cfg.dataloader.train.dataset.tile = [args.tile, args.tile_overlap]
    _set_classes(cfg.model, len(categories), notes)
    if "mask_head" in cfg.model.roi_heads:
        val = data.parts["val"]
        if "train" in data.parts and data.parts["train"].has_rle:
            cfg.dataloader.train.mapper.instance_mask_format = "bitmask"  # takes polygons as well
        if lacking := len(val.without_masks):
            cfg.dataloader.evaluator.tasks = ["bbox"]
            objects = f"{lacking} of {len(val.instances)} objects for evaluation"
            notes.append(f"No mask AP: {objects} have no mask")
    return notes


def find_misfits(cfg: DictConfig, train: CocoDataset) -> list[str]:
    """Say what of training data does not fit the final config."""
    heads = cfg.model.roi_heads
    most = box_predictors(heads)[0].get("test_topk_per_image", 100)
    if heads.get("use_soft_nms", False):
        most = heads.get("max_detections") or 0
    return train.misfits(side=cfg.model.backbone.get("square_pad", 0), most=most)


def _set_data(
    cfg: DictConfig, parts: Mapping[str, CocoDataset], categories: dict[int, str], **without: bool
) -> None:
    loaders, stated = cfg.dataloader, "${dataloader.test.dataset.categories}"
    names = {key: literal(name) for key, name in categories.items()}
    for part, dataset in parts.items():
        node = loaders.train if part == "train" else loaders.test
        node.dataset = L(load_records)(
            annotations=literal(str(dataset.path)),
            images=literal(dataset.folder),
            categories=stated if part == "train" else names,
            filter_empty=part == "train" and node.dataset.get("filter_empty", True),
            **without,
        )
    for node in (loaders.train, loaders.test):
        if target_of(node.mapper) is DatasetMapper:
            node.mapper["_target_"] = ImageMapper
    loaders.evaluator = L(CustomEvaluator)(
        annotations="${dataloader.test.dataset.annotations}",
        categories=stated,
        output_dir="${train.output_dir}/inference",
        **without,
    )


def _set_classes(model: DictConfig, count: int, notes: list[str]) -> None:
    heads = model.roi_heads
    heads.num_classes = count
    predictors = box_predictors(heads)
    for node in [*predictors, *([heads.mask_head] if "mask_head" in heads else [])]:
        if node.get("num_classes") != count:  # else it follows the heads
            node.num_classes = count
    if any(node.get("use_fed_loss", False) for node in predictors):
        update_each(predictors, use_fed_loss=False)
        for node in predictors:
            node.pop("get_fed_loss_cls_weights", None)
        notes.append(NO_FEDERATED_LOSS)
