"""Values of a config that would fail late or never: each is checked before anything is built."""

import argparse
import inspect
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from fvcore.common.param_scheduler import ParamScheduler
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch.nn.parallel import DistributedDataParallel

from eva_detection.building import describe
from eva_detection.config.names import (
    CHECKPOINTER,
    CHOICES,
    INTEGERS,
    NUMBERS,
    YES_OR_NO,
    check_below,
    check_value,
)

_DDP = {"fp16_compression", *inspect.signature(DistributedDataParallel).parameters} - {"module"}


def check_sections(cfg: DictConfig, names: Iterable[str]) -> None:
    """Refuse a config without a section that is needed.

    Args:
        cfg: The config with its overrides.
        names: Names of the sections.

    Raises:
        ValueError: For the first one.
    """
    for name in names:
        if not isinstance(cfg.get(name), DictConfig):
            raise ValueError(f"{name}={_value(cfg, name)!r}: the config needs a section {name}")


def check_settings(cfg: DictConfig, *, processes: int = 1, trains: bool = True) -> None:
    """Refuse values that cannot work.

    Args:
        cfg: The config with its overrides.
        processes: Number of processes of the run.
        trains: False for an evaluation, which reads fewer settings.

    Raises:
        ValueError: For the first one, with what it may be.
    """
    if "roi_heads" in cfg.model and not isinstance(cfg.model.roi_heads, DictConfig):
        raise ValueError(f"model.roi_heads={cfg.model.roi_heads!r}: the detector needs heads")
    _check_places(cfg)
    if not trains:
        _check_integers(cfg, "dataloader.test.")
        return
    for name in ("train.amp", "train.checkpointer", "train.ddp"):
        if not isinstance(_value(cfg, name), DictConfig):
            raise ValueError(f"{name}={_value(cfg, name)!r} must be a section with settings")
    _check_integers(cfg)
    for name in (*YES_OR_NO, *NUMBERS, *CHOICES):
        check_value(name, _value(cfg, name))
    check_below("train.checkpointer", map(str, cfg.train.checkpointer), CHECKPOINTER)
    check_below("train.ddp", map(str, cfg.train.ddp), _DDP)
    if processes > 1:
        check_compression(cfg.train)
    batch = _value(cfg, "dataloader.train.total_batch_size")
    if batch is not None and batch % processes:
        raise ValueError(
            f"dataloader.train.total_batch_size={batch} must be a positive multiple of the "
            f"{processes} processes"
        )


def _value(cfg: DictConfig, name: str) -> Any:
    try:
        return OmegaConf.select(cfg, name)
    except OmegaConfBaseException as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{name} cannot be resolved: {reason}") from error


def _check_integers(cfg: DictConfig, start: str = "") -> None:
    for name in INTEGERS:
        if name.startswith(start):
            check_value(name, _value(cfg, name))


def check_compression(train: DictConfig) -> None:
    """Refuse gradients sent as fp16 without a loss scale: below 6e-8 they would become 0.

    Args:
        train: The section of the config.

    Raises:
        ValueError: If another precision goes with `ddp.fp16_compression`.
    """
    enabled = train.amp.enabled
    precision = train.amp.get("precision", "fp16") if enabled else "fp32"
    if train.ddp.get("fp16_compression", False) and precision != "fp16":
        raise ValueError(
            "train.ddp.fp16_compression=True sends gradients as fp16, which needs the loss scale "
            f"of fp16 training; with {precision} small gradients would become 0: set "
            "train.ddp.fp16_compression=False"
        )


def _check_places(cfg: DictConfig) -> None:
    for name in ("train.output_dir", "train.init_checkpoint"):
        value = _value(cfg, name)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{name}={value!r} must be a path")
        of_hub = name == "train.init_checkpoint" and str(value).startswith("hf://")
        if value and "://" in value and not of_hub:
            also = " or hf://ORG/REPOSITORY/FILE" if name == "train.init_checkpoint" else ""
            raise ValueError(f"{name}={value!r} must be a local path{also}")
    if not cfg.train.get("output_dir"):
        raise ValueError("train.output_dir is empty: name a folder")


def check_machine(cfg: DictConfig, args: argparse.Namespace) -> None:
    """Refuse devices and numbers of processes that are not there.

    Args:
        cfg: The config with its overrides.
        args: Command line of detectron2's parser.

    Raises:
        ValueError: With what is there.
    """
    for name, least in (("num_gpus", 1), ("num_machines", 1), ("machine_rank", 0)):
        if getattr(args, name) < least:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} {getattr(args, name)} must be at least {least}")
    if args.machine_rank >= args.num_machines:
        raise ValueError(
            f"--machine-rank {args.machine_rank} must be below --num-machines {args.num_machines}"
        )
    if args.num_machines > 1 and args.dist_url == "auto":
        raise ValueError("--dist-url auto is for one machine: give tcp://FIRST_MACHINE:PORT")
    device = _value(cfg, "train.device")
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"train.device={device!r} cannot be used: {reason}") from error
    if place.type == "meta":
        raise ValueError("train.device='meta' holds no values to train")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if place.type == "cuda" and (place.index or 0) >= there:
        raise ValueError(f"train.device={device!r} cannot be used: {there} CUDA devices are there")
    if place.type == "cuda" and args.num_gpus > there:
        raise ValueError(f"--num-gpus {args.num_gpus}, but {there} CUDA devices are there")
    if place.type != "cuda":
        check_device(str(place))


def check_device(device: str) -> None:
    """Refuse a device that is not there, before a model is built.

    Args:
        device: Name such as "cuda", "cuda:1" or "cpu".

    Raises:
        ValueError: If torch does not know or cannot use it, with the reason.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device {device!r} cannot be used here: {reason}") from error


def check_schedule(multiplier: Any, max_iter: int) -> None:
    """Refuse a learning-rate schedule that fails in the middle, or is not finite.

    Args:
        multiplier: What `lr_multiplier` describes.
        max_iter: Iterations of the run.

    Raises:
        ValueError: With the place of the first failure.
    """
    if not isinstance(multiplier, ParamScheduler):
        raise ValueError(f"lr_multiplier is {type(multiplier).__name__} and not a ParamScheduler")
    for step in _places(max_iter):
        try:
            value = multiplier(step / max_iter)
        except Exception as error:
            raise ValueError(
                f"lr_multiplier fails at iteration {step}: {describe(error)}"
            ) from error
        if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
            raise ValueError(f"lr_multiplier is {value!r} at iteration {step}")


def _places(max_iter: int) -> Sequence[int]:
    return sorted({*range(0, max_iter, max(1, max_iter // 100)), max_iter - 1})
