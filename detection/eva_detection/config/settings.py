"""The config of a run, or of a program that builds a detector: loaded, overridden, checked once."""

import inspect
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data import DatasetMapper
from detectron2.evaluation import LVISEvaluator
from omegaconf import DictConfig, OmegaConf

from eva_backbone.checkpoints.registry import find_backbone
from eva_backbone.lora import LoraSettings
from eva_data.bands import continue_bands, measure_bands
from eva_data.classes import list_names
from eva_data.detection.datasets import CocoDataset
from eva_data.detection.keypoints import KeypointNames
from eva_data.detection.resolve import (
    NO_FEDERATED_LOSS,
    DetectionData,
    check_keypoints,
    resolve,
)
from eva_data.detection.sources import DataRequest
from eva_detection.building import (
    bands_of,
    build,
    error_context,
    image_side,
    resolve_errors,
    target_of,
)
from eva_detection.command_line import TrainingRequest
from eva_detection.config.files import (
    apply_overrides,
    literal,
    load_config_file,
    own_keypoints,
    set_own_keypoints,
)
from eva_detection.config.recipes import (
    box_predictors,
    drop_masks,
    set_backbone,
    set_bands,
    set_image_size,
    update_each,
)
from eva_detection.data.datasets import require_registered
from eva_detection.data.mapper import ImageMapper
from eva_detection.evaluation.evaluators import CustomEvaluator
from eva_detection.training.output_folder import TrainingFolder, config_of_run
from eva_runs.precision import DTYPES
from eva_runs.processes import run_on_main_rank
from eva_runs.recipes import find_recipe


def load_config(
    request: TrainingRequest,
) -> tuple[DictConfig, DetectionData | None, list[str]]:
    """Load the config that a command line asks for, with own data, and check it.

    Returns:
        The config; the own data, with their files; messages for the log.
    """
    file = find_recipe("detection", request.recipe)
    with error_context(f"{file} cannot be read"):  # Python, which may raise anything
        cfg = _load(file, request.weights if request.evaluates else None)
    with resolve_errors():
        reference = images_per_step(cfg)
        data = read_own_data(cfg, request)
        notes = apply_data(cfg, data) if data else []
        apply_request(cfg, request)
        output = Path(cfg.train.output_dir)
        continues = request.resume and TrainingFolder(output).newest
        saved = config_of_run(output) if continues else None
        notes += apply_bands(
            cfg, request, data, saved=load_config_file(saved, trusted=file) if saved else None
        )
        if data:
            data = data.place(output)
            cfg.own_data.update(literal(data.as_json()), masks="mask_head" in cfg.model.roi_heads)
        if request.epochs:
            notes.append(set_epochs(cfg, request, data.parts["train"] if data else None))
        notes += find_misfits(cfg, data) if data else []
        check_config(cfg, trains=not request.evaluates, processes=request.processes, own=bool(data))
        if request.scale_lr:
            notes.append(scale_lr(cfg, reference=reference))
    return cfg, data, notes


def load_recipe(
    config_file: str | os.PathLike[str],
    overrides: Iterable[str] = (),
    *,
    weights: str | os.PathLike[str] | None = None,
) -> DictConfig:
    """Load a config with overrides, for a program that only builds its model.

    A user's own recipe comes with the settings that the run of the `weights` has saved.
    """
    overrides = list(overrides)
    cfg = _load(find_recipe("detection", config_file), weights)
    with resolve_errors():
        apply_overrides(cfg, overrides)
    return cfg


def _load(file: Path, weights: str | os.PathLike[str] | None) -> DictConfig:
    saved = config_of_run(weights) if weights else None
    if saved and str(file.resolve()) in saved.read_text(encoding="utf-8", errors="replace"):
        return load_config_file(saved, trusted=file)
    return load_config_file(file)


def apply_request(cfg: DictConfig, request: TrainingRequest) -> None:
    """Put what a command line asks for into a config, but for the epochs of data."""
    if request.backbone:
        variant, weights = find_backbone(request.backbone)
        set_backbone(cfg.model, cfg.optimizer, variant)
        cfg.backbone = variant  # which a run's own config is restored by
        cfg.train.init_checkpoint = weights
    if request.lora:
        OmegaConf.update(cfg, "lora.rank", request.lora)
    if request.image_size:
        set_image_size(cfg.model, cfg.dataloader, request.image_size)
    apply_overrides(cfg, request.overrides)
    if request.weights is not None:
        cfg.train.init_checkpoint = request.weights
    if request.output:
        cfg.train.output_dir = str(request.output)
    if request.batch:  # of a forward pass of each process, while a step keeps its number of images
        images, processes = images_per_step(cfg), request.processes
        cfg.train.accumulate = request.accumulation_steps(images, processes)
        cfg.dataloader.train.total_batch_size = request.batch * processes


def apply_bands(
    cfg: DictConfig, request: TrainingRequest, data: DetectionData | None, saved: DictConfig | None
) -> list[str]:
    """Put the bands of a run that continues by a `saved` config, or measured ones, into a config.

    Returns:
        What was done.
    """
    asked = request.band_request()
    bands = continue_bands(bands_of(saved), asked) if saved else None
    if asked and not bands:
        if data is None or "train" not in data.parts:
            raise ValueError(f"--bands {asked.count} is for own data to train on: name --data")
        bands = run_on_main_rank(partial(measure_bands, data.parts["train"].files, asked))
    if not bands:
        return []
    left_out = set_bands(cfg.model, cfg.dataloader, bands)
    lines = [f"bands {bands.describe()}"]
    if left_out:
        lines.append(f"augmentations left out, as they only know RGB: {list_names(left_out)}")
    return lines


def check_config(cfg: DictConfig, *, trains: bool, processes: int = 1, own: bool = False) -> None:
    """Refuse what would fail after hours, or never, and give wrong numbers; `own` are the data."""
    evaluator = target_of(cfg.dataloader.get("evaluator") or {})
    if inspect.isclass(evaluator) and issubclass(evaluator, LVISEvaluator):
        ours = "dataloader.evaluator._target_=eva_detection.evaluation.evaluators.LvisEvaluator"
        raise ValueError(f"detectron2's LVISEvaluator fails at its end with numpy 2: set {ours}")
    for part in () if own else ("train", "test") if trains else ("test",):
        names = OmegaConf.select(cfg, f"dataloader.{part}.dataset.names") or ()
        if part == "train" or "evaluator" in cfg.dataloader:
            require_registered([names] if isinstance(names, str) else names)
    precision, accumulate = precision_of(cfg.train), cfg.train.get("accumulate", 1)
    if precision not in DTYPES or accumulate < 1:
        raise ValueError(
            f"train.amp.precision={precision} must be one of {', '.join(DTYPES)}, "
            f"train.accumulate={accumulate} at least 1"
        )
    if trains and cfg.train.get("device") == "cpu" and precision == "fp16":
        raise ValueError("fp16 training needs a GPU: set train.amp.enabled=False for fp32 on a CPU")
    compresses = trains and processes > 1 and cfg.train.ddp.get("fp16_compression", False)
    if compresses and precision != "fp16":
        raise ValueError(
            "train.ddp.fp16_compression=True needs the loss scale of fp16 training; with "
            f"{precision} gradients below 6e-8 would become 0: set it to False"
        )


def precision_of(train: DictConfig) -> Any:
    """Return the precision of a training: "fp32", "fp16" or "bf16"."""
    return train.amp.get("precision", "fp16") if train.amp.enabled else "fp32"


def lora_of(cfg: DictConfig) -> LoraSettings:
    """Return the adapters of a training, of rank 0 if it has none."""
    return LoraSettings.of(OmegaConf.to_container(cfg.get("lora") or OmegaConf.create()))


def set_epochs(cfg: DictConfig, request: TrainingRequest, train: CocoDataset | None) -> str:
    """Set the iterations of a number of epochs of own data, or of the config's; return a line.

    Milestones that count iterations keep their share of the run.
    """
    node, images = cfg.dataloader.train.dataset, images_per_step(cfg)
    if train is None:
        samples = len(build(node, "dataloader.train.dataset"))
    elif node.get("filter_empty", True):
        samples = len({annotation["image_id"] for annotation in train.instances})
    else:
        samples = len(train.images)
    scheduler = cfg.lr_multiplier.get("scheduler", {})
    before = scheduler.get("num_updates")
    cfg.train.max_iter, line = request.iterations(samples, images)
    if before and scheduler.num_updates != before:
        share = scheduler.num_updates / before
        scheduler.milestones = [int(milestone * share) for milestone in scheduler.milestones]
    return line


def images_per_step(cfg: DictConfig) -> int:
    """Count the images of one optimizer step, over all processes and accumulated batches."""
    images = OmegaConf.select(cfg, "dataloader.train.total_batch_size") or 0
    return int(images * cfg.train.get("accumulate", 1))


def scale_lr(cfg: DictConfig, *, reference: int) -> str:
    """Apply the linear rule: the learning rate grows with the images of a step."""
    images, before = images_per_step(cfg), cfg.optimizer.lr
    cfg.optimizer.lr = before * images / reference
    return (
        f"--scale-lr: optimizer.lr = {before:g} * {images} / {reference} = {cfg.optimizer.lr:g} "
        f"for {images} images a step"
    )


def read_own_data(cfg: DictConfig, request: TrainingRequest) -> DetectionData | None:
    """Read the own data of a request, or those that a saved config has its detector from."""
    if request.data or "own_data" not in cfg:
        return resolve(request.data) if request.data else None
    parts = ("val",) if request.evaluates else ("train", "val")
    return resolve(DataRequest.from_json(OmegaConf.to_object(cfg.own_data), parts))


def apply_data(cfg: DictConfig, data: DetectionData) -> list[str]:
    """Make the detector of a config one for own data; return what was changed."""
    train, heads, loaders = data.parts.get("train"), cfg.model.roi_heads, cfg.dataloader
    saved, has_masks = OmegaConf.select(cfg, "own_data.categories"), "mask_head" in heads
    targets = data.for_detector(saved, masks=has_masks)
    points, notes = _choose_keypoints(cfg, data), targets.notes
    cfg.own_data = {"categories": {k: literal(name) for k, name in targets.categories.items()}}
    if points:
        cfg.own_data.keypoints = literal(points.as_json())
        notes += [points.describe_flip()] if train is not None else []
        if points.sigmas:
            count, sigma = len(points.names), points.sigmas[0]
            notes.append(
                f"OKS is measured with a sigma of {sigma:g} for {count} keypoints; "
                "dataloader.evaluator.kpt_oks_sigmas=[...] states others"
            )
    set_own_keypoints(cfg)
    for node in (loaders.train, loaders.test):
        node.dataset.pop("names", None)
        if target_of(node.mapper) is DatasetMapper:
            node.mapper["_target_"] = ImageMapper
    limit = (loaders.get("evaluator") or {}).get("max_dets_per_image")
    loaders.evaluator = {"output_dir": "${train.output_dir}/inference"}  # and see `EvaluationSet`
    if limit:
        loaders.evaluator.max_dets_per_image = limit
    if has_masks and not targets.masks:
        drop_masks(cfg.model, loaders)
    elif has_masks:
        if train is not None and train.rle_count:
            loaders.train.mapper.instance_mask_format = "bitmask"  # takes polygons as well
        if not targets.scores_masks:
            loaders.evaluator.tasks = ["bbox"]
    return notes + _set_classes(cfg.model, len(targets.categories))


def _choose_keypoints(cfg: DictConfig, data: DetectionData) -> KeypointNames | None:
    """Choose the keypoints that a detector learns of own data, or has learnt; None for none."""
    if "own_data" not in cfg or "train" in data.parts:
        return data.keypoints_for_detector(required="keypoint_head" in cfg.model.roi_heads)
    points, val = own_keypoints(cfg), data.parts["val"]
    if points and val.keypoints:
        check_keypoints(val, points, of="the detector")
    return points


def find_misfits(cfg: DictConfig, data: DetectionData) -> list[str]:
    """Find what of the data does not fit the final config, each in one line."""
    heads, lines = cfg.model.roi_heads, list[str]()
    if "train" in data.parts:
        most = box_predictors(heads)[0].get("test_topk_per_image", 100)
        if heads.get("use_soft_nms", False):
            most = heads.get("max_detections") or 0
        lines += data.parts["train"].misfits(side=image_side(cfg), most=most)
    most = cfg.dataloader.evaluator.get("max_dets_per_image") or CustomEvaluator.default_max_dets
    crowded = data.parts["val"].misfits_of_scores(most)
    return lines + [f"{line}: raise dataloader.evaluator.max_dets_per_image" for line in crowded]


def _set_classes(model: DictConfig, count: int) -> list[str]:
    heads, predictors = model.roi_heads, box_predictors(model.roi_heads)
    update_each([heads, *predictors], num_classes=count)
    if "mask_head" in heads:
        heads.mask_head.num_classes = count
    if not any(node.get("use_fed_loss", False) for node in predictors):
        return []
    update_each(predictors, use_fed_loss=False)
    return [NO_FEDERATED_LOSS]
