"""Settings of the command line: refused where nothing would read them, then applied."""

from collections.abc import Iterable
from inspect import signature
from typing import Any

from detectron2.config import LazyConfig
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from eva_detection.building import describe
from eva_detection.config.files import name_today
from eva_detection.config.names import OPTIONAL_SETTINGS, check_names

_AUGMENTATION = "eva_detection.inference.test_time_augmentation.EVARCNNWithTTA"


def check_overrides(cfg: DictConfig, overrides: Iterable[str]) -> None:
    """Refuse overrides that would be set and never read.

    Below `model`, `optimizer` and the like `check_config` or the object itself refuses a wrong
    name; elsewhere LazyConfig would accept it silently.

    Args:
        cfg: The config before the overrides.
        overrides: `key=value` strings of the command line.

    Raises:
        ValueError: For an unknown key, with the closest known ones.
    """
    known = {str(key) for key in cfg}
    known |= {f"dataloader.{key}" for key in cfg.get("dataloader", {})}
    known |= {f"train.{key}" for key in cfg.get("train", {})} | set(OPTIONAL_SETTINGS)
    known |= {f"train.amp.{key}" for key in OmegaConf.select(cfg, "train.amp") or {}}
    known |= {f"test.aug.{key}" for key in augmentation_settings(cfg)}
    check_names(known, overrides)


def apply_overrides(cfg: DictConfig, overrides: Iterable[str]) -> None:
    """Apply overrides.

    Args:
        cfg: The config, changed in place.
        overrides: `key=value` strings of the command line.

    Raises:
        ValueError: For the first one that cannot be applied, with the reason.
    """
    for text in overrides:
        key, _, value = text.partition("=")
        now = f"{key}={name_today(value)}" if key.endswith("_target_") else text
        try:
            LazyConfig.apply_overrides(cfg, [now])
        except Exception as error:  # of hydra's parser, OmegaConf, or detectron2 between them
            raise ValueError(
                f"the setting {text!r} cannot be applied: {describe(error)}"
            ) from error


def augmentation_settings(cfg: DictConfig) -> tuple[str, ...]:
    """Name the settings that `test.aug` of a config may have.

    Args:
        cfg: The config, with or without that node.

    Returns:
        The names without the leading `test.aug`.
    """
    arguments = [name for name in signature(augmentation_class(cfg)).parameters if name != "model"]
    return ("enabled", *arguments)


def augmentation_class(cfg: DictConfig) -> Any:
    """Return the class of test-time augmentation that a config names, or the toolkit's."""
    target = OmegaConf.select(cfg, "test.aug._target_") or _AUGMENTATION
    return locate(target) if isinstance(target, str) else target
