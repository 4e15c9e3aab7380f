"""Data in a config: what segmentation and mmdetection read and change there; nothing heavy."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmengine.config import Config

LOADERS = {"train": ("train_dataloader",), "val": ("val_dataloader", "test_dataloader")}


def dicts(node: Any) -> Iterator[Any]:
    """Yield all dicts inside a part of a config, the outermost first."""
    if isinstance(node, dict):
        yield node
    if isinstance(node, dict | list | tuple):
        for value in list(node.values() if isinstance(node, dict) else node):
            yield from dicts(value)


def image_folder(dataset: Any) -> Path:
    """Return the folder of the images of a dataset, by its part of a config."""
    prefixes = dataset.get("data_prefix") or {}
    prefix = prefixes.get("img", prefixes.get("img_path", ""))
    return Path(dataset.get("images") or Path(dataset.get("data_root") or "", prefix))


def as_list(value: Any) -> list[Any]:
    """Return the names in a part of a config that may be one name, some, or none."""
    return [value] if isinstance(value, str) else list(value or [])


def replace_dataset(loader: Any, **settings: Any) -> None:
    """Replace the dataset inside what repeats it, or several that are joined; pipelines stay."""
    dataset = loader.dataset
    while "dataset" in dataset:
        dataset = dataset.dataset
    if "datasets" in dataset:
        loader.dataset = dataset = dataset.datasets[0]
    kept = {key: dataset[key] for key in ("pipeline", "test_mode") if key in dataset}
    dataset.clear()
    dataset.update(kept | settings)


def add_plugin(config: "Config", plugin: str) -> None:
    """Import a plugin, and name it in `custom_imports` for whoever reads the saved config."""
    importlib.import_module(plugin)
    named = as_list((config.get("custom_imports") or {}).get("imports"))
    imports = list(dict.fromkeys([*named, plugin]))
    config.custom_imports = {"imports": imports, "allow_failed_imports": False}
