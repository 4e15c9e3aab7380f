"""What LazyConfig files need besides detectron2.

Functions rather than loops in the files: every variable of a file becomes part of the config.
`detectron2.model_zoo` is not used: it would import `pkg_resources`, which new setuptools lacks.
"""

import difflib
import inspect
from collections.abc import Callable, Iterable
from importlib.resources import files
from typing import Any

import torch
from detectron2.config import LazyConfig
from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf

from eva_detection.config.files import load_config_file
from eva_detection.inference.test_time_augmentation import augmentation_settings

# Sections whose names are read one by one, and names in them that a config may leave out.
_FLAT = ("train", "dataloader", "test")
_DEEPER = (["train", "amp"], ["test", "aug"])
_OPTIONAL_SETTINGS = (
    "train.accumulate",
    "train.amp.precision",
    "train.cudnn_benchmark",
    "train.max_bad_images",
    "train.progress_bar",
    "train.seed",
    "dataloader.evaluator",
)


def stock_config(name: str) -> DictConfig:
    """Load one of the configs that detectron2 ships.

    Args:
        name: Path below detectron2's `configs`, such as `common/models/mask_rcnn_vitdet.py`.

    Returns:
        A new config with everything that the file defines.

    Raises:
        ValueError: If detectron2 has no such config.
    """
    path = files("detectron2") / "model_zoo" / "configs" / name
    if not path.is_file():
        raise ValueError(f"detectron2 ships no config {name!r}")
    return LazyConfig.load(str(path))


def update_each(nodes: Iterable[DictConfig], **values: Any) -> None:
    """Set the same values in several nodes.

    Args:
        nodes: Config nodes, such as `model.roi_heads.box_predictors`.
        **values: Names and values to set.
    """
    for node in nodes:
        node.update(values)


def set_image_size(model: DictConfig, dataloader: DictConfig, size: int) -> None:
    """Set the side of the square canvas in the model and in all transforms that depend on it.

    The size that relative-position tables are made for, `model.backbone.net.img_size`, is left.

    Args:
        model: Config of the detector.
        dataloader: Config with `train` and `test`.
        size: Side in pixels.
    """
    model.backbone.square_pad = size
    train, test = (dataloader[part].mapper.augmentations for part in ("train", "test"))
    for transform in train:
        if "target_height" in transform:
            transform.target_height = transform.target_width = size
        if "crop_size" in transform:
            transform.crop_size = (size, size)
    for transform in test:
        transform.short_edge_length = transform.max_size = size


def drop_masks(model: DictConfig, dataloader: DictConfig) -> None:
    """Make a detector of boxes alone, for data without masks.

    Args:
        model: Config of the detector.
        dataloader: Config with `train`.
    """
    for key in ("mask_in_features", "mask_pooler", "mask_head"):
        model.roi_heads.pop(key)
    dataloader.train.mapper.update(use_instance_mask=False, recompute_boxes=False)


def check_overrides(cfg: DictConfig, overrides: Iterable[str]) -> None:
    """Refuse overrides that would be set and never read.

    Below `model`, `optimizer` and the like `check_arguments` or the object itself refuses a wrong
    name; elsewhere LazyConfig would take it without a word.

    Args:
        cfg: The config before the overrides.
        overrides: `key=value` strings of the command line.

    Raises:
        ValueError: For an unknown key, with the closest known ones.
    """
    known = {str(key) for key in cfg}
    known |= {f"dataloader.{key}" for key in cfg.get("dataloader", {})}
    known |= {f"train.{key}" for key in cfg.get("train", {})} | set(_OPTIONAL_SETTINGS)
    known |= {f"train.amp.{key}" for key in OmegaConf.select(cfg, "train.amp") or {}}
    known |= {f"test.aug.{key}" for key in augmentation_settings(cfg)}
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        parts = key.split(".")
        read = 3 if parts[:2] in _DEEPER else 2 if parts[0] in _FLAT else 1
        name = ".".join(parts[:read])
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3) or sorted(known)
            raise ValueError(
                f"unknown setting {key!r}: nothing reads it; known: {', '.join(close)}"
            )


def load_recipe(config_file: str, overrides: Iterable[str] = ()) -> DictConfig:
    """Load a config with overrides, for a command that only builds its model.

    Args:
        config_file: The recipe.
        overrides: `key=value` strings of the command line.

    Raises:
        ValueError: For a name that nothing reads, with the closest known ones.
    """
    overrides = list(overrides)
    cfg = load_config_file(config_file)
    check_overrides(cfg, overrides)
    cfg = LazyConfig.apply_overrides(cfg, overrides)
    check_arguments(cfg, ["model"])
    return cfg


def check_arguments(cfg: DictConfig, sections: Iterable[str]) -> None:
    """Refuse names that what is built from a section does not take, before anything is built.

    Args:
        cfg: The config.
        sections: Such as "model"; those that the config lacks are skipped.

    Raises:
        ValueError: For an unknown name, with the closest known ones, or a target that is not there.
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
            close = difflib.get_close_matches(unknown[0], known, n=3) or known
            raise ValueError(
                f"unknown setting {key}.{unknown[0]}: {target.__name__} takes no {unknown[0]!r}; "
                f"known: {', '.join(close)}"
            )
    for name, value in node.items():
        _check_node(value, f"{key}.{name}")


def _parameters(target: Callable[..., Any]) -> list[str]:
    """Names that a class or function takes; none where any name will do."""
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
        if not any(item.kind is item.VAR_KEYWORD for item in parameters):
            return names
    return []


def check_device(device: str) -> None:
    """Refuse a device that is not there, before a model is built.

    Args:
        device: Such as "cuda", "cuda:1" or "cpu".

    Raises:
        ValueError: If torch does not know or cannot use it, with the reason.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device {device!r} cannot be used here: {reason}") from error
