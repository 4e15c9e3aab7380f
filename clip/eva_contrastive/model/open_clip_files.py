"""Folders that open_clip reads as `local-dir:FOLDER`: their weights, and how they prepare images.

`open_clip_config.json` has the side of the images and `preprocess_cfg`:

    {"model_cfg": {"vision_cfg": {"image_size": 224}},
     "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}

Nothing here needs torch or open_clip until it is called.
"""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.variants import CLIP_MEAN, CLIP_STD

logger = logging.getLogger(__name__)

CONFIG = "open_clip_config.json"  # marks a folder that open_clip reads as `local-dir:`
WEIGHTS = "open_clip_model.safetensors"
_WEIGHTS = (  # in the order in which open_clip prefers them
    WEIGHTS,
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
CARD = "README.md"
_OURS = {"mode": "RGB", "interpolation": "bicubic", "resize_mode": "shortest"}


def open_clip_weights(folder: Path) -> Path | None:
    """Find the file that open_clip takes in a folder that it reads; None if this is none."""
    names = _WEIGHTS if (folder / CONFIG).is_file() else ()
    return next((folder / name for name in names if (folder / name).is_file()), None)


def weights_file(source: str | os.PathLike[str]) -> Path:
    """Find the file of weights that a name, a path or a folder of open_clip stands for."""
    return open_clip_weights(Path(source)) or resolve_source(source)


class Preparation(NamedTuple):
    """How images become input; without an `image_size` as the weights show it."""

    image_size: int | None
    mean: Sequence[float]
    std: Sequence[float]


def find_preparation(
    source: str | os.PathLike[str],
    *,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Preparation:
    """Complete what is asked for by a folder of open_clip, the notes of a training, or CLIP's."""
    from eva_engine.evaluation.own_data import notes_of_training  # loads torch

    config = Path(source) / CONFIG
    noted = _read_config(config) if config.is_file() else {}
    pixels = notes_of_training(
        weights_file(source),
        mean=noted.get("mean") if mean is None else mean,
        std=noted.get("std") if std is None else std,
    )
    size = noted.get("image_size") if image_size is None else image_size
    return Preparation(size, pixels["mean"] or CLIP_MEAN, pixels["std"] or CLIP_STD)


def _read_config(file: Path) -> dict[str, Any]:
    """Read `image_size`, `mean` and `std`, and mention what is not done as open_clip does it."""
    config: dict[str, Any] = {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        preprocessing = content.get("preprocess_cfg") or {}
        size = (content.get("model_cfg") or {}).get("vision_cfg", {}).get("image_size")
        size = preprocessing.get("size") if size is None else size
        if size is not None:
            (config["image_size"],) = set(map(int, size)) if isinstance(size, list) else {int(size)}
        for name in ("mean", "std"):
            if preprocessing.get(name) is not None:
                config[name] = [float(value) for value in preprocessing[name]]
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file} is not a configuration of open_clip ({error})") from error
    for name, ours in _OURS.items():
        if preprocessing.get(name, ours) != ours:
            logger.warning(
                "%s has %s=%s in preprocess_cfg, and images are prepared with %s: features "
                "differ from open_clip's",
                file,
                name,
                str(preprocessing[name])[:60],
                ours,
            )
    return config
