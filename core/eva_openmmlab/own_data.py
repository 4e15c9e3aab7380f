"""Data in a config: what segmentation and mmdetection read and change there; nothing heavy."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eva_data.bands import Bands

if TYPE_CHECKING:
    from mmengine.config import Config

_SIZED = ("Resize", "RandomResize", "RandomChoiceResize", "RandomCrop", "PadShortSide")
_SIZES = ("scale", "scales", "crop_size", "size")  # arguments of these transforms
_COLOURS = (
    *("PhotoMetricDistortion", "RandomGrayscale", "CLAHE", "AdjustGamma", "RGB2Gray", "HueJitter"),
    *(
        "YOLOXHSVRandomAug",
        "Color",
        "Brightness",
        "Contrast",
        "Sharpness",
        "Albu",
        "Albumentations",
    ),
    *("RandAugment", "AutoAugment", "AutoContrast", "Equalize", "Invert", "Posterize", "Solarize"),
)
_RETAINED = ("pipeline", "test_mode", "indices")  # of a dataset that another one replaces
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


def replace_dataset(loader: Any, **settings: Any) -> None:
    """Replace the dataset inside what repeats it, or several that are joined; pipelines stay."""
    dataset = loader.dataset
    while "dataset" in dataset:
        dataset = dataset.dataset
    if "datasets" in dataset:
        loader.dataset = dataset = dataset.datasets[0]
    retained = {key: dataset[key] for key in _RETAINED if key in dataset}
    dataset.clear()
    dataset.update(retained | settings)


def add_plugin(config: "Config", plugin: str) -> None:
    """Import a plugin, and name it in `custom_imports` for whoever reads the saved config."""
    importlib.import_module(plugin)
    imported = (config.get("custom_imports") or {}).get("imports") or []
    imported = [imported] if isinstance(imported, str) else imported
    imports = list(dict.fromkeys([*imported, plugin]))
    config.custom_imports = {"imports": imports, "allow_failed_imports": False}


def set_bands(cfg: "Config", bands: Bands, preprocessor: str) -> str:
    """Let a config read and normalise images of bands; say which augmentations are left out.

    Those that only know RGB are; `preprocessor` is the type that normalises bands.
    """
    model, left_out = cfg.model.get("module", cfg.model), dict[str, None]()
    for node in dicts([*cfg.values()]):
        if _kind(node) in ("LoadImageFromFile", "LoadPicture"):
            node.clear()
            node.update(type="LoadPicture", bands=bands.as_json())
        for steps in (value for value in node.values() if isinstance(value, list)):
            colours = [step for step in steps if isinstance(step, dict) and _kind(step) in _COLOURS]
            for step in colours:
                steps.remove(step)
                left_out[_kind(step)] = None
    pixels = model.data_preprocessor
    for name in ("mean", "std", "bgr_to_rgb", "rgb_to_bgr"):
        pixels.pop(name, None)
    pixels.update(type=preprocessor, bands=bands.as_json())
    model.backbone.in_channels = bands.count
    if "freeze_patch_embed" in model.backbone:
        model.backbone.freeze_patch_embed = False
    return f"left out, as they only know RGB: {', '.join(left_out)}" if left_out else ""


def image_side(cfg: "Config") -> int:
    """Return the side of the crops in training, or the short side of tests; 0 if unknown."""
    loaders = cfg.get("train_dataloader"), cfg.get("test_dataloader")
    kinds = (("RandomCrop", "crop_size"), ("Resize", "scale"))
    for (kind, key), loader in zip(kinds, loaders, strict=True):
        for step in dicts(loader):
            size = step.get(key) if _kind(step) == kind else None
            if isinstance(size, list | tuple) and all(isinstance(side, int) for side in size):
                return int(min(size))
    return 0


def set_image_size(cfg: "Config", side: int) -> None:
    """Set the side of the images, by which all sizes of pipelines and model grow or shrink.

    `model.backbone.img_size`, which position tables are made for, is left.
    """
    before = image_side(cfg)
    if not before:
        raise ValueError(
            f"--image-size {side}: {cfg.filename} has no RandomCrop or Resize of a size"
        )
    model = cfg.model.get("module", cfg.model)  # of test-time augmentation
    nodes = {id(node): node for node in dicts([*cfg.values()]) if _kind(node) in _SIZED}
    targets = [(node, key) for node in nodes.values() for key in _SIZES]
    targets += [(model.get("data_preprocessor") or {}, "size")]
    targets += [(model.get("test_cfg") or {}, key) for key in ("crop_size", "stride")]
    for node, key in targets:
        if key in node:
            node[key] = scaled(node[key], side / before)
    for node, key in ("data_preprocessor", "pad_size_divisor"), ("backbone", "canvas"):
        if (model.get(node) or {}).get(key) == before:
            model[node][key] = side


def _kind(node: Any) -> str:
    return str(node.get("type")).rpartition(".")[2]


def scaled(value: Any, share: float) -> Any:
    """Multiply all integers in a value; a fraction is one of an image of any size."""
    if isinstance(value, list | tuple):
        return type(value)(scaled(item, share) for item in value)  # a list offers a choice
    return round(value * share) if type(value) is int else value
