"""Configs in files: a recipe in Python is code, what a run saves of its config is data.

A run saves the name of its recipe, the settings that differ from it, and its own data.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf

from eva_data.detection.keypoints import KeypointNames, read_keypoints
from eva_data.files import read_regular, require_regular_file
from eva_data.saving import write_text
from eva_detection.building import error_context
from eva_detection.config.recipes import drop_masks, set_backbone, set_keypoints
from eva_detection.training.output_folder import SAVED
from eva_runs.recipes import recipe_folder, recipe_name

# Settings that a saved config states though they are the recipe's, which may change.
_STATED = (
    *("train.max_iter", "train.init_checkpoint", "train.output_dir"),
    *("dataloader.train.dataset.names", "dataloader.test.dataset.names"),
)
_KEY = re.compile(r"\w+(\.\w+)*")


def load_config_file(
    file: str | os.PathLike[str], *, trusted: str | os.PathLike[str] | None = None
) -> DictConfig:
    """Load a recipe, or the config that a run has saved, of which nothing runs.

    A saved config names a recipe of the toolkit, or a user's own, which runs if it is `trusted`:
    named by the user.

    Raises:
        OSError: If the file is not there.
        ValueError: If it is damaged, or not what a run saves.
    """
    path = Path(file)
    require_regular_file(path)
    if path.suffix == ".py":
        return _run_recipe(path)
    with error_context(f"{file} is no config of a run: name a recipe in place of it"):
        saved = _read_saved(path)
        settings, own_data = saved.get("settings", {}), saved.get("own_data")
        recipe = _find_trusted(saved["recipe"], trusted)
        cfg = _base_of_settings(recipe, settings.get("backbone"), literal(own_data))
        for key, value in settings.items():
            _check_setting(str(key), value)
            OmegaConf.update(cfg, str(key), literal(value), merge=False)
        if own_data and not cfg.own_data.masks:
            drop_masks(cfg.model, cfg.dataloader)
    return cfg


def own_keypoints(cfg: DictConfig) -> KeypointNames | None:
    """Return the keypoints of the own data of a config; None without any."""
    stated = OmegaConf.to_container(cfg.own_data).get("keypoints")
    return read_keypoints([stated]) if stated else None


def _read_saved(path: Path) -> dict[str, Any]:
    try:
        saved = yaml.safe_load(read_regular(path))
    except yaml.YAMLError as error:
        raise ValueError("it is damaged, or of a run before configs had this form") from error
    if not isinstance(saved, dict) or not isinstance(saved.get("recipe"), str):
        raise ValueError("it names no recipe")
    return saved


def config_to_name(folder: Path) -> str:
    """Return what is named with the weights of a run: its saved config, or a user's own recipe."""
    saved = folder / SAVED
    name = _read_saved(saved)["recipe"] if saved.is_file() else ""
    return name if Path(name).is_absolute() else str(saved)


def _run_recipe(path: Path) -> DictConfig:
    assert path.suffix == ".py"  # detectron2 would run what YAML names
    return LazyConfig.load(str(path))


def _base_of_settings(recipe: Path, backbone: str | None, own_data: Any) -> DictConfig:
    """Return what saved settings are a difference to: a recipe with a backbone and keypoints."""
    cfg = _run_recipe(recipe)
    if backbone is not None:
        set_backbone(cfg.model, cfg.optimizer, str(backbone))
    if own_data is not None:
        cfg.own_data = own_data
        set_keypoints(cfg.model, cfg.dataloader, own_keypoints(cfg))
    return cfg


def _find_trusted(name: str, trusted: str | os.PathLike[str] | None) -> Path:
    """Find the recipe of a saved config: code, which comes from the toolkit or the user."""
    folder = recipe_folder("detection").resolve()
    path = (folder / f"{name}.py").resolve()
    if path.is_relative_to(folder) and path.is_file():
        return path
    if trusted is not None and Path(trusted).resolve() == Path(name):
        return Path(name)
    raise ValueError(
        f"its recipe {name} is none of the toolkit and could run anything; one of your own is "
        f"named with the weights (--config-file {name})"
    )


def _check_setting(key: str, value: Any) -> None:
    """Refuse a setting that is more than data."""
    names_code = not _KEY.fullmatch(key) or "_target_" in key or "proposal_file" in key.lower()
    if names_code or not _is_plain(value):
        raise ValueError(f"it sets {key}={value!r}, which is no plain value and could run anything")


def _is_plain(value: Any, levels: int = 3) -> bool:
    if isinstance(value, list):
        return levels > 0 and all(_is_plain(part, levels - 1) for part in value)
    return value is None or isinstance(value, bool | int | float | str)


def literal(value: Any) -> Any:
    r"""Escape text that comes from data, such as a class `${oc.env:HOME}`, by `\${` for `${`."""
    if isinstance(value, list):
        return [literal(part) for part in value]
    if isinstance(value, dict):
        return {key: literal(part) for key, part in value.items()}
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + r"\${", value)
    return value


def save_config(cfg: DictConfig, file: Path, *, source: Path) -> None:
    """Save how a config differs from its recipe, for `load_config_file`.

    The config is of a `source` that this process has loaded: a recipe, or a saved config.
    """
    name = recipe_name("detection", source)
    if source.suffix != ".py":
        name = _read_saved(source)["recipe"]
    elif name == str(source):
        name = str(source.resolve())
    recipe = _base_of_settings(_find_trusted(name, name), cfg.get("backbone"), cfg.get("own_data"))
    before, after = (dict(_leaves(OmegaConf.to_container(node))) for node in (recipe, cfg))
    settings = {}
    for key, value in after.items():
        if key in _STATED or key not in before or before[key] != value:
            resolved = OmegaConf.select(cfg, key)
            settings[key] = resolved if isinstance(resolved, str) else value
    saved = {"recipe": name, "settings": settings}
    if "own_data" in cfg:
        saved["own_data"] = OmegaConf.to_container(cfg.own_data, resolve=True)
    write_text(file, yaml.safe_dump(saved, sort_keys=False, allow_unicode=True, width=1000))


def _leaves(node: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of a config by their keys, but for own data and what parts are built by."""
    for name, value in node.items() if isinstance(node, dict) else enumerate(node):
        key = f"{above}{name}"
        if isinstance(value, dict | list) and not _is_plain(value):
            yield from _leaves(value, f"{key}.") if key != "own_data" else ()
        elif name != "_target_" and _is_plain(value):
            yield key, value
