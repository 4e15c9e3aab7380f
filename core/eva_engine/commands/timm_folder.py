"""A folder that timm reads as `local-dir:FOLDER`, and as `hf-hub:ORG/NAME` once it is uploaded.

It holds timm's `config.json` (architecture and its arguments, classes and their names, how pictures
are prepared), the weights and a model card. It can be moved, and nothing of this toolkit is needed
to read it.

Shapes: B pictures, C channels, K classes or values of a feature.
"""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eva_backbone.checkpoints.convert import trunk_prefix
from eva_backbone.checkpoints.from_weights import vit_from
from eva_backbone.checkpoints.pooled import pool_tokens
from eva_backbone.layers import LAYER_NORM_EPS
from eva_backbone.variants import IMAGENET_MEAN, IMAGENET_STD
from eva_data.files import write_text
from eva_engine.checkpoints.files import read_config, save_weights
from eva_engine.commands.timm_form import PROBE_EPS, TimmModel, to_timm
from eva_engine.commands.timm_names import CARD, CONFIG, WEIGHTS
from eva_engine.evaluation.own_data import PUBLISHED, notes_of_training

# Largest difference of outputs, as a share of the largest value: sums in another order.
_TOLERANCE = 1e-4


def write_folder(weights: Mapping[str, Tensor], folder: Path, source: Path) -> list[str]:
    """Write a model for timm, and compare what timm builds of it with ours.

    Args:
        weights: Name -> tensor, in the official form.
        folder: An empty folder.
        source: File of the weights; a run notes in it how its pictures are prepared.

    Returns:
        Lines of a report.

    Raises:
        ValueError: If timm is not there or has no such model, or its outputs differ.
    """
    if importlib.util.find_spec("timm") is None:
        raise ValueError("timm is not installed: pip install timm")
    model = to_timm(weights, name=source.name)
    notes = notes_of_training(source, crop_pct=None, mean=None, std=None, class_names=None)
    config = _config(model, notes, segmentor=_is_dense(weights))
    expected = _outputs(weights, model, source.name)
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    # with the run's notes, so that the file serves our programs as the run's does
    save_weights(model.weights, folder / WEIGHTS, read_config(source))
    write_text(folder / CARD, _card(model, config["pretrained_cfg"], source))
    difference = _compare(folder, model.image_size, expected)
    return [
        *model.changes,
        f"timm's {model.architecture}; its outputs differ from ours by at most {difference:.2g}",
        "load with timm.create_model('local-dir:FOLDER', pretrained=True)",
    ]


def _is_dense(weights: Mapping[str, Tensor]) -> bool:
    return any(name.endswith("level_embed") for name in weights)


def _config(model: TimmModel, notes: Mapping[str, Any], *, segmentor: bool) -> dict[str, Any]:
    """Make timm's `config.json`."""
    usual = dict(PUBLISHED)
    if segmentor:
        usual |= {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    found = {name: notes[name] if notes[name] is not None else usual[name] for name in usual}
    config: dict[str, Any] = {
        "architecture": model.architecture,
        "num_classes": model.classes,
        "num_features": len(model.weights["patch_embed.proj.bias"]),
        "global_pool": "token" if model.pooling == "cls" else "avg",
    }
    names = notes["class_names"]
    if names is not None and len(names) == model.classes:
        config["label_names"] = names
    if model.arguments:
        config["model_args"] = model.arguments
    config["pretrained_cfg"] = {
        "custom_load": False,
        "input_size": [3, model.image_size, model.image_size],
        "fixed_input_size": True,
        "interpolation": "bicubic",
        "crop_pct": found["crop_pct"],
        "crop_mode": "center",
        "mean": list(found["mean"]),
        "std": list(found["std"]),
        "num_classes": model.classes,
        "pool_size": None,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    return config


def _images(side: int) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _outputs(weights: Mapping[str, Tensor], model: TimmModel, name: str) -> Tensor:
    """Compute by our ViT what timm's model has to give: (B, C) features or (B, K)."""
    prefix = trunk_prefix(weights, f"{name} holds no EVA weights")
    fine_tuned = f"{prefix}fc_norm.weight" in weights  # a final norm beside it is not used
    own = {k: v for k, v in weights.items() if not (fine_tuned and k.startswith(f"{prefix}norm."))}
    vit = vit_from(own, name=name)

    def part(key: str) -> Tensor | None:
        value = weights.get(prefix + key)
        return None if value is None else value.float()

    pooled = pool_tokens(
        vit, vit.forward_features(_images(model.image_size)), pooling=model.pooling, fc_norm=None
    )
    if (scale := part("fc_norm.weight")) is not None:
        pooled = F.layer_norm(pooled, scale.shape, scale, part("fc_norm.bias"), LAYER_NORM_EPS)
    matrix, bias = part("head.weight"), part("head.bias")
    variance = part("head.0.running_var")
    if variance is not None:
        pooled = F.batch_norm(pooled, part("head.0.running_mean"), variance, eps=PROBE_EPS)
        matrix, bias = part("head.1.weight"), part("head.1.bias")
    return pooled if matrix is None else F.linear(pooled, matrix, bias)


@torch.no_grad()
def _compare(folder: Path, side: int, expected: Tensor) -> float:
    """Build the folder's model by timm; return the largest difference of its outputs."""
    import timm

    peer = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    found: Tensor = peer(_images(side))
    largest = expected.abs().max().item()
    difference = (found - expected).abs().max().item()
    if not difference <= _TOLERANCE * largest:  # also for NaN
        raise ValueError(
            f"timm's outputs differ from ours by {difference:.2g}, of at most {largest:.2g}; "
            "nothing was written"
        )
    return difference


def _card(model: TimmModel, preparation: Mapping[str, Any], source: Path) -> str:
    classifier = model.classes and model.pooling == "mean"
    task = "image-classification" if classifier else "image-feature-extraction"
    gives = f"{model.classes} values" if model.classes else "a feature"
    pooled = "the class token" if model.pooling == "cls" else "the mean of the patches"
    return f"""---
tags:
- {task}
- timm
library_name: timm
pipeline_tag: {task}
---
# EVA for timm

Converted from `{source.name}` by the EVA toolkit.

| | |
|---|---|
| architecture | `{model.architecture}`, with the arguments in `config.json` |
| gives | {gives}, of {pooled}, for {model.image_size} px |
| pixels | minus mean {preparation["mean"]}, by deviation {preparation["std"]} |

```python
import timm

model = timm.create_model("local-dir:PATH_OF_THIS_FOLDER", pretrained=True)  # or hf-hub:ORG/NAME
transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
```
"""
