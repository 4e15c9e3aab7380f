"""Configs of mmengine: read, changed by what a user asks, checked for files.

A config is a program, and so are those that it inherits from. Configs such as `mmseg::NAME` come
from the maintained forks, which mmengine knows under the names of the original projects alone.
"""

import argparse
import ast
import contextlib
import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from mmengine import registry
from mmengine.config import Config, DictAction
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.dist import get_world_size
from mmengine.registry import DATASETS, Registry, init_default_scope
from mmengine.runner import Runner

from eva_backbone.checkpoints.reading import read_torch_file
from eva_openmmlab.own_data import dicts, scaled, set_image_size
from eva_openmmlab.recipes import set_backbone
from eva_openmmlab.run_folder import CONFIGURED_BATCH_SIZE, RUN, config_of_run, run_folder
from eva_openmmlab.weights import METADATA
from eva_runs.extras import describe_missing_package
from eva_runs.processes import run_on_main_rank
from eva_runs.recipes import require_python
from eva_runs.request import RunRequest

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
_OF_RUNNER = {
    *inspect.signature(Runner).parameters,  # and what it reads from the config itself
    *("runner_type", "activation_checkpointing", "compile", "efficient_conv_bn_eval"),
    *("find_unused_parameters", "lora", "model_wrapper_cfg", "sync_bn"),
}
_COUNTED = {"warmup_iters", "milestones", "begin", "end", "T_max"}  # iterations of a schedule
_BUILT = ("type", "constructor", "runner_type")  # keys whose values name what is called
_PLAIN = (  # what a saved config consists of
    *(ast.Module, ast.Assign, ast.Store, ast.Load, ast.Constant, ast.Dict, ast.List, ast.Tuple),
    *(ast.UnaryOp, ast.USub, ast.Call, ast.keyword, ast.Name),
)
MODULE2PACKAGE.update(mmseg="onedl-mmsegmentation", mmdet="onedl-mmdetection")


def load_config(path: str | os.PathLike[str], settings: Mapping[str, str] | None = None) -> Config:
    """Read a config, import its plugins, and merge settings (dotted name -> text) into it.

    Raises:
        ValueError: If it cannot be read, or a setting does not belong to it.
    """
    path = Path(path)
    require_python(path)  # mmengine would run whatever Python a YAML file asks for
    is_saved = config_of_run(path) == path
    # mmengine replaces `{{ fileBasename }}` and the like; a saved config is as it was
    replaces = dict.fromkeys(
        ("use_predefined_variables", "use_environment_variables"), not is_saved
    )
    try:
        if is_saved:
            _require_data(path)
        cfg = Config.fromfile(path, **replaces)
        if is_saved:
            _require_registered(cfg)
    except Exception as error:  # a config in Python is a program: it raises anything
        reason = f"{path} cannot be read ({type(error).__name__}: {error})"
        raise ValueError(describe_missing_package(error) or reason) from error
    parser = argparse.ArgumentParser()
    parser.add_argument("--settings", nargs="*", action=DictAction)
    words = [f"{name}={value}" for name, value in (settings or {}).items()]
    for name, value in parser.parse_args(["--settings", *words]).settings.items():
        first = name.partition(".")[0]  # constructors refuse what is wrong behind it
        if first not in cfg and first not in _OF_RUNNER:
            raise ValueError(f"option {name}: {path} has no such setting, nothing reads it")
        try:
            cfg.merge_from_dict({name: value})
        except (KeyError, TypeError) as error:
            raise ValueError(f"option {name}: {error}") from error
    for loader in (cfg[name] for name in LOADERS if cfg.get(name)):
        if loader.get("num_workers") == 0:  # torch refuses what is of workers alone
            loader.persistent_workers = False
            loader.pop("prefetch_factor", None)
    if settings and settings.get("optim_wrapper.type") == "OptimWrapper":
        for name in ("dtype", "loss_scale"):  # of a recipe in mixed precision, which it has not
            if f"optim_wrapper.{name}" not in settings:
                cfg.optim_wrapper.pop(name, None)
    return cfg


def _require_data(path: Path) -> None:
    """Refuse a config in the folder of a run that does more than assign literals, as a saved one.

    Raises:
        ValueError: If it would execute what somebody else may have written.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        is_plain = isinstance(node, _PLAIN)
        if isinstance(node, ast.Name):
            is_value = isinstance(node.ctx, ast.Load)
            is_plain = node.id == "dict" if is_value else node.id not in ("dict", "_base_")
        elif isinstance(node, ast.Call):
            is_plain = isinstance(node.func, ast.Name) and not node.args
        if not is_plain:
            raise ValueError(
                f"line {getattr(node, 'lineno', 1)} is no setting that a run has saved: look at "
                "it, and name a copy in another folder as the config"
            )


def _require_registered(cfg: Config) -> None:
    """Refuse a name of any function in Python, which mmengine would call, as a `type`.

    Raises:
        ValueError: If a name with a dot is of nothing that is registered.
    """
    named = (part.get(key) for part in dicts(dict(cfg.items())) for key in _BUILT)
    dotted = {name for name in named if isinstance(name, str) and "." in name}
    for package in {name.partition(".")[0] for name in dotted} & {*MODULE2PACKAGE}:
        import_module(f"{package}.registry")
    queue = [entry for entry in vars(registry).values() if isinstance(entry, Registry)]
    names = set[str]()
    for entry in queue if dotted else ():
        entry.import_from_location()
        names |= entry.module_dict.keys()
        queue += entry.children.values()
    for name in dotted:
        if name.rpartition(".")[2] not in names:
            raise ValueError(f"type={name!r} is nothing that mmengine or a plugin has registered")


def apply_request(cfg: Config, request: RunRequest) -> None:
    """Put what a user asks of a training into a config; its length waits, see `set_length`."""
    cfg.resume = bool(cfg.get("resume")) or request.resume
    if request.backbone:
        set_backbone(cfg, request.backbone)
    if request.lora:
        cfg.lora = {**(cfg.get("lora") or {}), "rank": request.lora}
    if request.image_size:
        set_image_size(cfg, request.image_size)
    if request.precision:
        cfg.optim_wrapper.update(type="AmpOptimWrapper", loss_scale="dynamic")


def parts_of(dataset: Any) -> list[Any]:
    """List the datasets that the config of one names, without what wraps or concatenates them."""
    inner = dataset.get("dataset", dataset.get("datasets"))
    if inner is None:
        return [dataset]
    wrapped = inner if isinstance(inner, list) else [inner]
    return [part for wrapped_dataset in wrapped for part in parts_of(wrapped_dataset)]


def set_data_root(cfg: Config, folder: str | os.PathLike[str]) -> None:
    """Let all loaders, and the metrics that read annotations, read below one folder.

    Raises:
        ValueError: If the config names files by paths of their own, as one with own data does.
    """
    moved: dict[str, str] = {}
    for dataset in _datasets(cfg, LOADERS):
        for own in (dataset.get("ann_file"), dataset.get("images")):
            if own and Path(own).is_absolute():
                raise ValueError(f"--data-root {folder} has no effect on {own}")
        segments = (dataset.get("data_prefix") or {}).get("seg")  # folder of panoptic PNG files
        for file in filter(None, (dataset.get("ann_file"), segments)):
            moved[str(Path(dataset.get("data_root") or "", file))] = str(Path(folder, file))
        dataset.data_root = os.fspath(folder)
    for metric in dicts([cfg.get("val_evaluator"), cfg.get("test_evaluator")]):
        for key in {"ann_file", "seg_prefix"} & metric.keys():
            metric[key] = moved.get(str(Path(metric[key] or "")), metric[key])


def set_length(cfg: Config, request: RunRequest) -> str:
    """Set the batch and the epochs that are asked for; return a line. All processes have joined.

    An iteration of a run that continues keeps its images, also those of a `--batch` that is left
    out now. A forward pass takes no more than the config or `request` say. Warm-ups and milestones
    that count iterations keep their share of the run.
    """
    saved = run_on_main_rank(lambda: _saved_place(cfg)) if cfg.get("resume") else {}
    folder_of_config = Path(cfg.filename or "").resolve().parent
    if folder_of_config != Path(cfg.get("work_dir") or "").resolve():
        cfg.pop(CONFIGURED_BATCH_SIZE, None)  # the config of another run is the recipe of this one
    if saved:
        _continue_batch(cfg, request, saved)
    elif request.batch:
        set_batch(cfg, request)
    return _set_epochs(cfg, request, saved.get("samples_of_a_batch")) if request.epochs else ""


def _continue_batch(cfg: Config, request: RunRequest, saved: Mapping[str, int]) -> None:
    """Set the images of a forward pass of a run that continues, whose iterations keep theirs."""
    configured = cfg.train_dataloader.batch_size
    begun = saved["samples_of_a_batch"] // saved["processes"]
    if CONFIGURED_BATCH_SIZE not in cfg:  # the config of a run has it, and is set already
        older = configured if request.batch else begun  # a checkpoint without it
        cfg.train_dataloader.batch_size = saved.get(CONFIGURED_BATCH_SIZE, older)
        set_batch(cfg, replace(request, batch=begun))
    cfg.train_dataloader.batch_size = request.batch or min(configured, begun)


def _set_epochs(cfg: Config, request: RunRequest, images: int | None) -> str:
    """Set the iterations of the epochs asked for, of so many images or the config's."""
    if "max_iters" not in cfg.train_cfg:  # frameworks' own configs may count epochs
        if "max_epochs" not in cfg.train_cfg:
            reason = f"{cfg.filename} has no train_cfg.max_iters and no max_epochs"
            raise ValueError(f"--epochs {request.epochs}: {reason}")
        _stretch_schedule(cfg, request.epochs / cfg.train_cfg.max_epochs, epochs=True)
        cfg.train_cfg.max_epochs = request.epochs
        return ""
    init_default_scope(cfg.get("default_scope", "mmengine"))
    samples = len(DATASETS.build(cfg.train_dataloader.dataset))
    images = images or cfg.train_dataloader.batch_size * get_world_size()
    multiple = cfg.optim_wrapper.get("accumulative_counts", 1)
    before = cfg.train_cfg.max_iters
    cfg.train_cfg.max_iters, line = request.iterations(samples, images, multiple=multiple)
    _stretch_schedule(cfg, cfg.train_cfg.max_iters / before)
    return line


def _saved_place(cfg: Config) -> Mapping[str, int]:
    """Read the images and processes that a run began with from its newest checkpoint that has them.

    All of a run have the same, so `RunHook` alone looks for damage, when it loads one.
    """
    names = ("processes", "samples_of_a_batch", CONFIGURED_BATCH_SIZE)
    for checkpoint in run_folder(cfg.work_dir).checkpoints:
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            place = read_torch_file(checkpoint, allowed=METADATA, mapped=True)[RUN]
            counts = {name: place[name] for name in names if name in (*names[:2], *place)}
            if all(type(count) is int and count > 0 for count in counts.values()):
                return counts
    return {}


def _stretch_schedule(cfg: Config, factor: float, *, epochs: bool = False) -> None:
    """Stretch what schedules count in iterations, and in `epochs`."""
    schedulers = cfg.get("param_scheduler") or []
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        if epochs or not scheduler.get("by_epoch", True):
            for key in _COUNTED & scheduler.keys():
                scheduler[key] = scaled(scheduler[key], factor)


def set_batch(cfg: Config, request: RunRequest) -> None:
    """Set the images of an iteration of each process, while a step keeps its number of them.

    Whatever counts iterations follows.
    """
    before = cfg.optim_wrapper.get("accumulative_counts", 1)
    cfg.setdefault(CONFIGURED_BATCH_SIZE, cfg.train_dataloader.batch_size)
    count = request.accumulation_steps(cfg.train_dataloader.batch_size * before)
    cfg.train_dataloader.batch_size = request.batch
    cfg.optim_wrapper.accumulative_counts = count
    saving = cfg.get("default_hooks", {}).get("checkpoint", {})
    counting = [] if "max_epochs" in cfg.train_cfg else [cfg.train_cfg]
    counting += [] if saving.get("by_epoch", True) else [saving]
    for node in counting:
        for key in {"max_iters", "val_interval", "val_begin", "interval"} & node.keys():
            node[key] = scaled(node[key], count / before)
    _stretch_schedule(cfg, count / before)


def require_data(cfg: Config, parts: Sequence[str]) -> None:
    """Look for the folders and annotation files that "train", "val" or "test" need.

    Raises:
        FileNotFoundError: Naming what is missing and how to get it.
    """
    for dataset in _datasets(cfg, [f"{part}_dataloader" for part in parts]):
        root = Path(dataset.get("data_root") or "")
        needed = [*(dataset.get("data_prefix") or {}).values(), dataset.get("ann_file") or ""]
        for path in (root / name for name in needed if not (root / name).exists()):
            fix = "name the folder of the dataset with --data-root, or own data (see --help)"
            if "digit_scenes" in str(root):
                fix = f"`eva data make-demo --output {root.parent}` makes it"
            raise FileNotFoundError(f"there is no {path}; {fix}")


def _datasets(cfg: Config, loaders: Sequence[str]) -> list[Any]:
    return [part for name in loaders if cfg.get(name) for part in parts_of(cfg[name].dataset)]
