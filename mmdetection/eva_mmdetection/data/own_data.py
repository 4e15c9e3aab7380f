"""Any dataset in any recipe: `--data`, `--train-annotations` and the like.

The config itself states files and classes afterwards, so that the config that a run saves is all
that is needed to test, to continue or to predict, also with mmdetection's own tools.
"""

import argparse
import colorsys
import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eva_data.detection import request as data_request
from eva_data.detection.datasets import CocoDataset
from eva_data.detection.request import DataRequest
from eva_data.detection.resolve import resolve
from eva_data.detection.resolved import (
    NO_FEDERATED_LOSS,
    NO_MASK_AP,
    NO_MASK_HEAD,
    DetectionData,
    DetectorTargets,
)
from eva_openmmlab.own_data import LOADERS, add_plugin, dicts, image_side, replace_dataset
from eva_openmmlab.run_folder import run_folder
from eva_report.terminal import SHOWN

if TYPE_CHECKING:
    from mmengine.config import Config

logger = logging.getLogger(__name__)

PLUGIN = "eva_mmdetection.plugin"
DATASET, PANOPTIC = "CocoFileDataset", "PanopticFileDataset"
_WITHOUT_MASKS = {
    "LoadAnnotations": {"with_mask": False},
    "RandomCrop": {"recompute_bbox": False},
    "FilterAnnotations": {"by_mask": False},
}


add_arguments = data_request.add_arguments


def check(arguments: argparse.Namespace) -> DataRequest | None:
    """Look for the data of the flags before anything heavy is imported; None without any."""
    training = hasattr(arguments, "train_annotations")
    request = data_request.read_request(arguments, training=training)
    if request:
        request.check()
    return request


def apply(config: "Config", request: DataRequest) -> "Config":
    """Read the data that `check` has seen, and put them into a copy of a config."""
    config, data = copy.deepcopy(config), resolve(request)
    targets = _choose_targets(config, data)
    folder = Path(config.get("work_dir") or "work_dirs")
    data = data.place(folder)  # what is not a file in COCO format yet
    train, val = data.parts.get("train"), data.parts["val"]
    data.write(continues=train is not None and run_folder(folder).is_used())
    things = val.panoptic.things if val.panoptic else frozenset(targets.categories)
    categories = sorted(targets.categories.items(), key=lambda item: item[0] not in things)
    _set_datasets(config, data, dict(categories))
    if _has_masks(config) and not targets.masks:
        config.model.roi_head.update(mask_head=None, mask_roi_extractor=None)
        config.model.test_cfg.rcnn.pop("maskness_thr", None)
    _set_masks(config.train_dataloader, train, masks=targets.masks)
    _set_metric(config, val, masks=targets.scores_masks, boxes_only=data.boxes_only)
    add_plugin(config, PLUGIN)
    misfits = []
    if train is not None:
        misfits = train.misfits(side=image_side(config), most=_most_objects(config))
    notes = [*targets.notes, *_set_classes(config, len(categories), things=len(things)), *misfits]
    for note in notes:
        is_shown = note in [*data.notes, *misfits] or note.startswith((NO_MASK_HEAD, NO_MASK_AP))
        logger.info("%s", note, extra=SHOWN if is_shown else None)
    return config


def _choose_targets(config: "Config", data: DetectionData) -> DetectorTargets:
    """Choose what the config's model learns of data: classes in the order of the run, masks."""
    saved, stated = config.test_dataloader.dataset, {}
    if saved.get("type") in (DATASET, PANOPTIC):
        stated = dict(zip(saved.metainfo.category_ids, saved.metainfo.classes, strict=True))
    model, segments = config.model, "panoptic_head" in config.model
    targets = data.for_detector(stated, masks=_has_masks(config), segments=segments)
    if "roi_head" not in model and _has_masks(config) and not targets.masks:
        head = model.panoptic_head.type if segments else model.type
        raise ValueError(f"{head} learns masks alone: {targets.reason_against_masks}")
    return targets


def _has_masks(config: "Config") -> bool:
    """Return whether the model learns masks: without `roi_head`, if its recipe reads any."""
    if "roi_head" in config.model:
        return config.model.roi_head.get("mask_head") is not None
    reads = any(step.get("with_mask") for step in dicts(config.train_dataloader))
    return reads or "panoptic_head" in config.model


def _most_objects(config: "Config") -> int:
    """Return how many objects the model finds in an image at most; 0 without a limit."""
    test = config.model.get("test_cfg") or {}
    return test.get("max_per_image") or (test.get("rcnn") or {}).get("max_per_img", 0)


def _set_datasets(config: "Config", data: DetectionData, categories: Mapping[int, str]) -> None:
    """Let the loaders read the data's parts, that of the training in tiles if these are stated."""
    tile = data.tile and [data.tile.size, data.tile.overlap]
    for part, file in data.parts.items():
        options = dict(boxes_only=data.boxes_only, tile=tile if part == "train" else None)
        for name in LOADERS[part]:
            _set_dataset(config[name], file, categories, **options)
            _set_reader(config[name], panoptic=file.panoptic is not None)
    for node in dicts(config.model.train_cfg) if tile else ():
        if "ignore_iof_thr" in node:
            node["ignore_iof_thr"] = 0.5  # of a region in what a border cuts


def _set_dataset(
    loader: Any, file: CocoDataset, categories: Mapping[int, str], **options: Any
) -> None:
    hues = [number / len(categories) for number in range(len(categories))]
    colours = [
        tuple(int(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.8, 0.9)) for hue in hues
    ]  # mmdetection draws by tuples alone
    names, folders = {"classes": list(categories.values())}, {"img": file.folder}
    if file.panoptic:
        of_things = [name for key, name in categories.items() if key in file.panoptic.things]
        names |= {"thing_classes": of_things, "stuff_classes": names["classes"][len(of_things) :]}
        folders["seg"] = str(file.panoptic.folder)
    replace_dataset(
        loader,
        type=PANOPTIC if file.panoptic else DATASET,
        ann_file=str(file.path),
        data_prefix=folders,
        metainfo={**names, "category_ids": list(categories), "palette": colours},
        filter_cfg={"filter_empty_gt": True},  # of training
        **options,
    )


def _set_reader(loader: Any, *, panoptic: bool) -> None:
    """Read segments, or objects with masks, whichever a recipe reads."""
    for step in dicts(loader):
        kinds = ("LoadAnnotations", "LoadPanoptic")[:: 1 if panoptic else -1]
        if step.get("type") == kinds[0]:
            step.clear()
            step.update(type=kinds[1], **({} if panoptic else {"with_mask": True}))


def _set_masks(loader: Any, file: CocoDataset | None, *, masks: bool) -> None:
    """Read masks as the file has them, or leave them out."""
    for step in dicts(loader):
        kind = step.get("type")
        if not masks:
            step.update(_WITHOUT_MASKS.get(kind, {}))
        elif kind == "LoadAnnotations" and file is not None and file.rle_count:
            step.update(poly2mask=True)  # takes polygons as well


def _set_classes(config: "Config", count: int, *, things: int) -> list[str]:
    notes = set()
    for node in dicts(config.model):
        if "num_classes" in node:
            node["num_classes"] = count
        if "num_things_classes" in node:
            node.update(num_things_classes=things, num_stuff_classes=count - things)
        if node.get("type") == "EVAFederatedLoss":
            node.update(num_sampled=0, image_counts=None)
            hooks = config.get("custom_hooks") or []
            config.custom_hooks = [hook for hook in hooks if hook["type"] != "CountClasses"]
            notes.add(NO_FEDERATED_LOSS)
    return [*notes]


def _set_metric(config: "Config", file: CocoDataset, *, masks: bool, boxes_only: bool) -> None:
    for name in LOADERS["val"]:
        _set_masks(config[name], file, masks=masks)
    best = "coco/bbox_mAP"
    config.val_evaluator = dict(
        type="CocoFileMetric",
        ann_file=str(file.path),
        metric=["bbox", "segm"] if masks else ["bbox"],
        classwise=True,
        boxes_only=boxes_only,
    )
    if "panoptic_head" in config.model:
        config.model.test_cfg.panoptic_on = file.panoptic is not None
    if file.panoptic:
        best, folder = "coco_panoptic/PQ", str(file.panoptic.folder)
        config.val_evaluator = dict(
            type="PanopticMetric", ann_file=str(file.path), seg_prefix=folder
        )
    config.test_evaluator = copy.deepcopy(config.val_evaluator)
    saving = (config.get("default_hooks") or {}).get("checkpoint")
    if saving and saving.get("save_best"):
        saving["save_best"] = best
