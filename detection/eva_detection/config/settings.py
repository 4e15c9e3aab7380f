"""The config of a run, or of a program that builds a detector: loaded, overridden, checked once."""

import argparse
import difflib
import inspect
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from detectron2.config import LazyCall as L
from detectron2.data import DatasetMapper
from detectron2.evaluation import LVISEvaluator
from omegaconf import DictConfig, OmegaConf

from eva_backbone.lora import LoraSettings
from eva_data.detection.coco import CocoDataset
from eva_data.detection.spec import NO_FEDERATED_LOSS
from eva_detection.building import build, error_context, resolve_errors, target_of
from eva_detection.command_line import read_own_data, require_recipe
from eva_detection.config.files import apply_overrides, literal, load_config_file
from eva_detection.config.recipes import box_predictors, drop_masks, set_image_size, update_each
from eva_detection.data.custom_data import load_records
from eva_detection.data.datasets import require_registered
from eva_detection.data.mapper import ImageMapper
from eva_detection.evaluation.evaluators import CustomEvaluator
from eva_runs.options import accumulation_steps
from eva_runs.recipes import find_recipe, require_start

# Settings that a config may leave out, and nodes whose names the object that is built checks.
_OPTIONAL = {
    "": ("test", "lora"),
    "dataloader": ("evaluator",),
    "lora": tuple(field.name for field in fields(LoraSettings)),
    "test": ("aug", "overlap", "slice"),
    "train": ("accumulate", "cudnn_benchmark", "max_bad_images", "progress_bar", "seed"),
    "train.amp": ("precision",),
}
_OPEN = ("test.aug", "train.checkpointer", "train.ddp")
_OUTPUT = "train.output_dir="


def load_config(args: argparse.Namespace) -> tuple[DictConfig, list[str]]:
    """Load the config of a command line with own data and overrides, and check it."""
    args.config_file = str(require_recipe(args))
    with error_context(f"{args.config_file} cannot be read"):  # Python, which may raise anything
        cfg = load_config_file(args.config_file)
    with resolve_errors():
        check_names(cfg, args.opts)
        reference = images_per_step(cfg) if getattr(args, "scale_lr", False) else 0
        # where own data may be written to
        apply_overrides(
            cfg, [override for override in args.opts if override.lstrip("+").startswith(_OUTPUT)]
        )
        notes = apply_custom_data(cfg, args)
        side = getattr(args, "image_size", None)
        if side:
            set_image_size(cfg.model, cfg.dataloader, side)
        apply_overrides(cfg, args.opts)
        set_batch(cfg, getattr(args, "batch", None), args.num_gpus * args.num_machines)
        own = read_own_data(args).parts.get("train")
        epochs = getattr(args, "epochs", None)
        if epochs:
            notes.append(set_epochs(cfg, epochs, own))
        if own is not None and not args.eval_only:
            notes += find_misfits(cfg, own)
        val = read_own_data(args).parts.get("val")
        if val:
            notes += find_uncounted(cfg, val)
        check_config(cfg, trains=not args.eval_only, processes=args.num_gpus * args.num_machines)
        continues = args.resume and (Path(cfg.train.output_dir) / "last_checkpoint").exists()
        if cfg.train.init_checkpoint and not continues:
            require_start("detection", cfg.train.init_checkpoint)
        if reference:
            notes.append(scale_lr(cfg, reference=reference))
    return cfg, notes


def load_recipe(config_file: str | os.PathLike[str], overrides: Iterable[str] = ()) -> DictConfig:
    """Load a config with overrides, for a program that only builds its model."""
    overrides = list(overrides)
    cfg = load_config_file(find_recipe("detection", config_file))
    with resolve_errors():
        check_names(cfg, overrides)
        apply_overrides(cfg, overrides)
    return cfg


def check_names(cfg: DictConfig, overrides: Iterable[str]) -> None:
    """Refuse overrides that LazyConfig would accept and nothing would read."""
    for override in overrides:
        key, path = override.partition("=")[0].lstrip("+"), ""
        for name in key.split("."):
            node = OmegaConf.select(cfg, path) if path else cfg
            plain = isinstance(node, DictConfig) and "_target_" not in node
            if path in _OPEN or not (plain or path in _OPTIONAL):
                break
            keys = [str(key) for key in [*(node or ()), *_OPTIONAL.get(path, ())]]
            if name not in keys:
                close = difflib.get_close_matches(name, keys, n=3) or sorted(keys)
                raise ValueError(f"unknown setting {key}; close to {name!r}: {', '.join(close)}")
            path = f"{path}.{name}" if path else name


def check_config(cfg: DictConfig, *, trains: bool, processes: int = 1) -> None:
    """Refuse what would fail after hours, or never, and give wrong numbers."""
    if not cfg.train.output_dir or "://" in cfg.train.output_dir:
        raise ValueError(f"train.output_dir={cfg.train.output_dir!r} must be a local folder")
    evaluator = target_of(cfg.dataloader.get("evaluator") or {})
    if inspect.isclass(evaluator) and issubclass(evaluator, LVISEvaluator):
        ours = "dataloader.evaluator._target_=eva_detection.evaluation.evaluators.LvisEvaluator"
        raise ValueError(f"detectron2's LVISEvaluator fails at its end with numpy 2: set {ours}")
    for part in ("train", "test") if trains else ("test",):
        names = OmegaConf.select(cfg, f"dataloader.{part}.dataset.names") or ()
        if part == "train" or "evaluator" in cfg.dataloader:
            require_registered([names] if isinstance(names, str) else names)
    if trains and cfg.train.get("device") == "cpu" and precision_of(cfg.train) == "fp16":
        raise ValueError("fp16 training needs a GPU: set train.amp.enabled=False for fp32 on a CPU")
    compresses = trains and processes > 1 and cfg.train.ddp.get("fp16_compression", False)
    if compresses and precision_of(cfg.train) != "fp16":
        raise ValueError(
            "train.ddp.fp16_compression=True needs the loss scale of fp16 training; with "
            f"{precision_of(cfg.train)} gradients below 6e-8 would become 0: set it to False"
        )


def precision_of(train: DictConfig) -> Any:
    """Return the precision of a training: "fp32", "fp16" or "bf16"."""
    return train.amp.get("precision", "fp16") if train.amp.enabled else "fp32"


def lora_of(cfg: DictConfig) -> LoraSettings:
    """Return the adapters of a training, of rank 0 if it has none."""
    return LoraSettings.of(OmegaConf.to_container(cfg.get("lora") or OmegaConf.create()))


def check_schedule(multiplier: Callable[[float], float], max_iter: int) -> None:
    """Refuse a learning-rate schedule that fails in the middle, or is not finite."""
    for step in {*range(0, max_iter, max(1, max_iter // 100)), max_iter - 1}:
        name = f"lr_multiplier at iteration {step} of {max_iter}"
        value = build(step, name, lambda step: multiplier(step / max_iter))
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} is {value!r}")


def set_epochs(cfg: DictConfig, epochs: int, own: CocoDataset | None) -> str:
    """Set the iterations of a number of epochs of own data, or of the config's; return a line.

    Milestones that count iterations keep their share of the run.
    """
    node, images = cfg.dataloader.train.dataset, images_per_step(cfg)
    if own is None:
        samples = len(build(node, "dataloader.train.dataset"))
    else:
        empty = not node.get("filter_empty", True)
        samples = len(
            own.images if empty else {annotation["image_id"] for annotation in own.instances}
        )
    scheduler = cfg.lr_multiplier.get("scheduler", {})
    before = scheduler.get("num_updates")
    cfg.train.max_iter = math.ceil(epochs * samples / images)
    if before and scheduler.num_updates != before:
        share = scheduler.num_updates / before
        scheduler.milestones = [int(milestone * share) for milestone in scheduler.milestones]
    return (
        f"--epochs {epochs}: {epochs} x {samples:,} images, {images} a step, are "
        f"{cfg.train.max_iter:,} iterations"
    )


def images_per_step(cfg: DictConfig) -> int:
    """Count the images of one optimizer step, over all processes and accumulated batches."""
    images = OmegaConf.select(cfg, "dataloader.train.total_batch_size") or 0
    return int(images * cfg.train.get("accumulate", 1))


def set_batch(cfg: DictConfig, batch: int | None, processes: int) -> None:
    """Set the images of a forward pass of each process, while a step keeps its number of them."""
    if batch:
        cfg.train.accumulate = accumulation_steps(images_per_step(cfg), batch * processes)
        cfg.dataloader.train.total_batch_size = batch * processes


def scale_lr(cfg: DictConfig, *, reference: int) -> str:
    """Apply the linear rule: the learning rate grows with the images of a step."""
    images, before = images_per_step(cfg), cfg.optimizer.lr
    cfg.optimizer.lr = before * images / reference
    return (
        f"--scale-lr: optimizer.lr = {before:g} * {images} / {reference} = {cfg.optimizer.lr:g} "
        f"for {images} images a step"
    )


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
        lacking = len(val.without_masks)
        if lacking:
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


def find_uncounted(cfg: DictConfig, val: CocoDataset) -> list[str]:
    """Say how many images have more objects of a class than detections count."""
    evaluator = cfg.dataloader.evaluator
    most = evaluator.get("max_dets_per_image") or CustomEvaluator.default_max_dets
    counts = Counter(
        (annotation["image_id"], annotation["category_id"]) for annotation in val.instances
    )
    crowded = {image for (image, _), count in counts.items() if count > most}
    if not crowded:
        return []
    message = f"{len(crowded)} of {len(val.images)} images for evaluation have more than {most}"
    message += (
        f" objects of a class (up to {max(counts.values())}), and only {most} detections count:"
    )
    return [f"{message} raise dataloader.evaluator.max_dets_per_image"]


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
    limit = (loaders.get("evaluator") or {}).get("max_dets_per_image")
    loaders.evaluator = L(CustomEvaluator)(
        annotations="${dataloader.test.dataset.annotations}",
        categories=stated,
        output_dir="${train.output_dir}/inference",
        **({"max_dets_per_image": limit} if limit else {}),
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
