"""The one check of a config, for every program, before anything is built."""

import argparse
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from detectron2.evaluation import LVISEvaluator
from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf

from eva_backbone.checkpoints.registry import resolve_source
from eva_detection.config.names import PASSED_ON, refused_argument
from eva_detection.config.settings import (
    check_device,
    check_machine,
    check_sections,
    check_settings,
)
from eva_runs.command_line.slips import SlipError

Use = Literal["training", "evaluation", "model"]
_SECTIONS: dict[Use, tuple[str, ...]] = {
    "training": ("model", "train", "dataloader", "optimizer", "lr_multiplier"),
    "evaluation": ("model", "train", "dataloader"),
    "model": ("model",),
}


def check_config(
    cfg: DictConfig,
    use: Use,
    *,
    args: argparse.Namespace | None = None,
    device: str | None = None,
) -> None:
    """Refuse a config that cannot work.

    Args:
        cfg: The config with its overrides.
        use: "training", "evaluation" (which needs fewer settings) or "model" (a program that
            builds the detector alone).
        args: The command line of detectron2's parser; needed for training and evaluation.
        device: Place of the model, where only that is built; by default `train.device`.

    Raises:
        ValueError: For the first thing that is wrong, in one sentence.
    """
    check_sections(cfg, _SECTIONS[use])
    if use == "model":
        check_device(device or cfg.train.device)
    else:
        assert args is not None
        check_machine(cfg, args)
        processes = args.num_gpus * args.num_machines
        check_settings(cfg, processes=processes, trains=use == "training")
    # all but `train` are built: every name in them must be an argument of a class or function
    check_arguments(cfg, [section for section in _SECTIONS[use] if section != "train"])
    check_classes(cfg)
    if use != "model":
        check_evaluator(cfg)
    if args is not None:
        _check_weights(cfg, resume=args.resume)


def _check_weights(cfg: DictConfig, *, resume: bool) -> None:
    continues = resume and (Path(cfg.train.output_dir) / "last_checkpoint").exists()
    if cfg.train.init_checkpoint and not continues:
        resolve_source(cfg.train.init_checkpoint)


def check_arguments(cfg: DictConfig, sections: Iterable[str]) -> None:
    """Reject settings that a section's target does not accept, before anything is built.

    Args:
        cfg: The config.
        sections: Names such as "model"; sections that the config lacks are skipped.

    Raises:
        ValueError: For an unknown name, with the closest known ones, or an unknown target.
    """
    for section in sections:
        if section in cfg:
            _check_node(cfg[section], section)


def _check_node(node: Any, key: str) -> None:
    if isinstance(node, ListConfig):
        for index, value in enumerate(node):
            _check_node(value, f"{key}.{index}")
    if not isinstance(node, DictConfig):
        return
    if "_target_" in node:
        try:
            target = locate(node._target_) if isinstance(node._target_, str) else node._target_
        except ImportError as error:
            raise ValueError(f"{key}: {' '.join(str(error).split())}") from error
        known = _parameters(target)
        unknown = [str(name) for name in node if name != "_target_" and name not in known]
        if known and unknown:
            raise SlipError(refused_argument(key, unknown[0], of=target.__name__, known=known))
    for name, value in node.items():
        _check_node(value, f"{key}.{name}")


def _parameters(target: Callable[..., Any]) -> list[str]:
    """List the names that a class or function takes; none where any name will do."""
    functions: list[Any] = [target]
    if inspect.isclass(target):
        functions = [vars(base)["__init__"] for base in target.__mro__ if "__init__" in vars(base)]
    names: list[str] = []
    for function in functions:  # **kwargs of a class go to the next in line
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):  # compiled
            return []
        names += [item.name for item in parameters if item.name != "self"]
        place = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
        if place in PASSED_ON:
            return [*names, *_parameters(locate(PASSED_ON[place]))]
        if not any(item.kind is item.VAR_KEYWORD for item in parameters):
            return names
    return []


def check_classes(cfg: DictConfig) -> None:
    """Refuse overrides that contradict own data.

    Args:
        cfg: The config with its overrides.

    Raises:
        ValueError: If model and data differ in the number of classes.
    """
    stated = OmegaConf.select(cfg, "dataloader.test.dataset.categories")
    count = OmegaConf.select(cfg, "model.roi_heads.num_classes")
    if stated and len(stated) != count:
        raise ValueError(
            f"model.roi_heads.num_classes={count}, but the data has {len(stated)} classes: leave "
            "the setting out"
        )


def check_evaluator(cfg: DictConfig) -> None:
    """Refuse an evaluator that fails when everything has been predicted.

    Args:
        cfg: The config with its overrides.

    Raises:
        ValueError: For detectron2's `LVISEvaluator` on a package `lvis` that this numpy breaks.
    """
    name = OmegaConf.select(cfg, "dataloader.evaluator._target_")
    target = locate(name) if isinstance(name, str) else name
    stock = inspect.isclass(target) and issubclass(target, LVISEvaluator)
    if stock and not hasattr(np, "float") and _lvis_uses_np_float():
        raise ValueError(
            "dataloader.evaluator is detectron2's LVISEvaluator, which would fail when everything "
            f"is predicted: the package lvis uses np.float, which numpy {np.__version__} lacks; "
            "set dataloader.evaluator._target_=eva_detection.evaluation.evaluators.LvisEvaluator, "
            "which takes the same arguments and scores by the same rules"
        )


def _lvis_uses_np_float() -> bool:
    found = importlib.util.find_spec("lvis")
    file = Path(found.origin).with_name("eval.py") if found and found.origin else None
    if file is None or not file.is_file():
        return False
    return re.search(r"\bnp\.float\b", file.read_text(encoding="utf-8")) is not None
