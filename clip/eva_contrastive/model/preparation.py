"""How pictures become a model's input: as asked, as a folder of open_clip says, or as in training.

`open_clip_config.json` has the side of the pictures and `preprocess_cfg`:

    {"model_cfg": {"vision_cfg": {"image_size": 224}},
     "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}
"""

import json
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eva_contrastive.model.open_clip_program import CONFIG, weights_file

logger = logging.getLogger(__name__)

_OURS = {"mode": "RGB", "interpolation": "bicubic", "resize_mode": "shortest"}


class Preparation(NamedTuple):
    """What pictures become; None for what neither a folder nor a file of weights says.

    Attributes:
        image_size: Side in pixels.
        mean: Subtracted from the pixels in [0, 1], for each channel.
        std: Divides them, for each channel.
    """

    image_size: int | None
    mean: Sequence[float] | None
    std: Sequence[float] | None


def find_preparation(
    source: str | os.PathLike[str],
    *,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Preparation:
    """Complete what is asked for by what lies with the weights.

    Args:
        source: As for `eva_contrastive.model.loading.load_eva_clip`.
        image_size: Side of the pictures; None looks for it.
        mean: Mean of the pixels; None looks for it.
        std: Standard deviation of the pixels; None looks for it.

    Returns:
        What is asked for, or else what a folder of open_clip says, or the notes of a training.

    Raises:
        ValueError: If something is not of its kind, or the weights are damaged.
        FileNotFoundError: If there are none.
    """
    from eva_engine.evaluation.own_data import notes_of_training  # loads torch

    folder = Path(source)
    noted = _of_open_clip(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    pixels = notes_of_training(
        weights_file(source),
        mean=noted.get("mean") if mean is None else mean,
        std=noted.get("std") if std is None else std,
    )
    size = noted.get("image_size") if image_size is None else image_size
    return Preparation(size, pixels["mean"], pixels["std"])


def _of_open_clip(file: Path) -> dict[str, Any]:
    """Read `image_size`, `mean` and `std`, those that there are, and mention what is not done."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON ({error}): take it from its source again") from error
    model = _table(_table(content, file, "").get("model_cfg"), file, "model_cfg")
    vision = _table(model.get("vision_cfg"), file, "vision_cfg")
    said = _table(content.get("preprocess_cfg"), file, "preprocess_cfg")
    found: dict[str, Any] = {}
    size = said.get("size") if vision.get("image_size") is None else vision["image_size"]
    if isinstance(size, list) and len(size) == 2 and size[0] == size[1]:
        size = size[0]
    if size is not None:
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(
                f"{file} has the side of the pictures {str(size)[:60]}: it must be one number of "
                "pixels"
            )
        found["image_size"] = size
    for name, least in (("mean", -math.inf), ("std", 0.0)):
        values = said.get(name)
        if values is None:
            continue
        if not _are_three(values) or min(values) <= least:
            above = " above 0" if name == "std" else ""
            raise ValueError(
                f"{file} has {name} {str(values)[:60]} in preprocess_cfg: it must be three "
                f"numbers{above}"
            )
        found[name] = [float(value) for value in values]
    for name, ours in _OURS.items():
        if said.get(name, ours) != ours:
            logger.warning(
                "%s has %s=%s in preprocess_cfg, and pictures are prepared with %s: features "
                "differ from open_clip's", file, name, str(said[name])[:60], ours,
            )  # fmt: skip
    return found


def _table(value: Any, file: Path, name: str) -> dict[str, Any]:
    if value is None and name:
        return {}
    if not isinstance(value, dict):
        where = f"{name} in {file}" if name else f"{file}"
        raise ValueError(f"{where} must be an object of JSON, got {str(value)[:60]}")
    return value


def _are_three(values: Any) -> bool:
    numbers = isinstance(values, list) and len(values) == 3
    return numbers and all(
        isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one)
        for one in values
    )
