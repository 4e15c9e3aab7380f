"""The config of a run, or of a program that builds a detector: loaded, overridden, checked once."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf

from eva_backbone.checkpoints.registry import find_backbone
from eva_data.detection.datasets import CocoDataset
from eva_data.detection.resolved import DetectionData
from eva_detection.building import build, error_context, resolve_errors, training_precision
from eva_detection.command_line import TrainingRequest
from eva_detection.config.files import literal, load_config_file
from eva_detection.config.own_data import apply_bands, apply_data, find_misfits, read_own_data
from eva_detection.config.recipes import set_backbone, set_image_size
from eva_detection.data.datasets import require_registered
from eva_detection.training.output_folder import TrainingFolder, config_of_run
from eva_runs.precision import DTYPES
from eva_runs.recipes import find_recipe
from eva_runs.request import require_counts

# Settings that a config may leave out, and nodes whose names the object that is built checks.
_OPTIONAL = {
    "": ("test", "lora"),
    "dataloader": ("evaluator",),
    "test": ("aug", "overlap", "slice"),
    "train": ("accumulate", "cudnn_benchmark", "max_bad_images", "progress_bar", "seed"),
    "train.amp": ("precision",),
}
_OPEN = ("dataloader.evaluator", "lora", "test.aug", "train.checkpointer", "train.ddp")


def load_config(request: TrainingRequest) -> tuple[DictConfig, DetectionData | None, list[str]]:
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
        saved = config_of_run(output) if request.resume and TrainingFolder(output).newest else None
        before = load_config_file(saved, trusted=file) if saved else None
        notes += apply_bands(cfg, request.band_request(), data, before)
        if data:
            data = data.place(output)
            cfg.own_data.update(literal(data.as_json()), masks="mask_head" in cfg.model.roi_heads)
        if request.epochs:
            notes.append(set_epochs(cfg, request, data.parts["train"] if data else None))
        notes += find_misfits(cfg, data) if data else []
        check_config(cfg, trains=not request.evaluates, own=bool(data))
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
    names = [word.partition("=")[0] for word in request.overrides]
    if not cfg.train.amp.enabled and any(name.endswith("amp.precision") for name in names):
        raise ValueError("train.amp.precision is read with train.amp.enabled=True alone: set both")
    if request.weights is not None:
        cfg.train.init_checkpoint = request.weights
    if request.output:
        cfg.train.output_dir = str(request.output)
    if request.batch:  # of a forward pass of each process, while a step keeps its number of images
        cfg.train.accumulate = request.accumulation_steps(images_per_step(cfg), request.processes)
        cfg.dataloader.train.total_batch_size = request.batch * request.processes


def apply_overrides(cfg: DictConfig, overrides: Iterable[str]) -> None:
    """Apply settings of the command line; a value must stay of its kind."""
    for override in overrides:
        key = override.partition("=")[0].lstrip("+")
        _check_name(cfg, key)
        with error_context(f"the setting {override!r} cannot be applied"):
            before = OmegaConf.select(cfg, key)
            LazyConfig.apply_overrides(cfg, [override])
            after = OmegaConf.select(cfg, key)
            if key != "test.slice" and not _fits(before, after):  # pixels, or auto
                raise TypeError(f"{after!r} in place of {before!r}")


def _check_name(cfg: DictConfig, key: str) -> None:
    """Refuse a setting that LazyConfig would accept and nothing would read."""
    path = ""
    for name in key.split("."):
        node = OmegaConf.select(cfg, path) if path else cfg
        plain = isinstance(node, DictConfig) and "_target_" not in node
        if path in _OPEN or not (plain or path in _OPTIONAL):
            break
        keys = [*dict.fromkeys(map(str, [*(node or ()), *_OPTIONAL.get(path, ())]))]
        if name not in keys:
            close = difflib.get_close_matches(name, keys, n=3) or sorted(keys)
            raise ValueError(f"unknown setting {key}; close to {name!r}: {', '.join(close)}")
        path = f"{path}.{name}" if path else name


def _fits(before: Any, after: Any) -> bool:
    """Return whether a value is not of another kind: `no` is a text, which counts as true."""
    if isinstance(before, bool | DictConfig):
        return after is None or isinstance(after, type(before))
    return not (isinstance(before, int | float) and isinstance(after, str | bool))


def check_config(cfg: DictConfig, *, trains: bool, own: bool = False) -> None:
    """Refuse what would fail late, or give wrong numbers; with `own` data none are registered."""
    for part in () if own else ("train", "test") if trains else ("test",):
        names = OmegaConf.select(cfg, f"dataloader.{part}.dataset.names") or ()
        if part == "train" or "evaluator" in cfg.dataloader:
            require_registered([names] if isinstance(names, str) else names)
    require_counts(cfg, "train", ("max_iter", "log_period", "accumulate", "checkpointer.period"))
    precision = training_precision(cfg.train)
    if precision not in DTYPES:
        raise ValueError(f"train.amp.precision={precision} must be one of {', '.join(DTYPES)}")
    if trains and cfg.train.get("device") == "cpu" and precision == "fp16":
        raise ValueError("fp16 training needs a GPU: set train.amp.enabled=False for fp32 on a CPU")


def set_epochs(cfg: DictConfig, request: TrainingRequest, train: CocoDataset | None) -> str:
    """Set the iterations of a number of epochs of own data, or of the config's; return a line.

    Milestones that count iterations keep their share of the run.
    """
    node, images = cfg.dataloader.train.dataset, images_per_step(cfg)
    if train is None:
        samples = len(build(node, "dataloader.train.dataset"))
    else:
        samples = train.count_images(with_objects=node.get("filter_empty", True))
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
    return f"--scale-lr: optimizer.lr = {before:g} * {images} / {reference} = {cfg.optimizer.lr:g}"
