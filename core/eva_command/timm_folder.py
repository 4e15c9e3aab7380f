"""An EVA ViT as timm's: names both ways, and a folder that timm reads as `local-dir:FOLDER`.

timm has two classes that compute what EVA computes: `Eva` (`eva_giant_*`), whose names are the
official ones, and `VisionTransformer` (`eva_large_*`) for one bias of queries, keys and values.

Shapes: B images, C channels, K classes or values of a feature.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eva_backbone.checkpoints._key_maps import TRUNK_KEY
from eva_backbone.checkpoints.convert import find_trunk
from eva_backbone.checkpoints.from_weights import Trunk, describe, load_vit
from eva_backbone.checkpoints.pooled import PooledVit
from eva_backbone.checkpoints.reading import Weights, listed
from eva_backbone.layers import LAYER_NORM_EPS
from eva_backbone.variants import IMAGENET_MEAN, IMAGENET_STD, Pooling
from eva_data.files import write_text
from eva_engine.checkpoints.files import read_config, save_weights
from eva_engine.config import require
from eva_engine.evaluation.own_data import PUBLISHED, notes_of_training

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
# In the order in which timm prefers them.
_WEIGHTS_OF_TIMM = (WEIGHTS, "pytorch_model.bin", "pytorch_model.pth", "model.pth")

# Largest difference of outputs, as a share of the largest value: sums in another order.
_TOLERANCE = 1e-4
PROBE_EPS = 1e-6  # of a linear probe's batch norm
# timm's names: side of the images -> name, the last for all other sides.
_GIANT = {336: "eva_giant_patch14_336", 560: "eva_giant_patch14_560", 0: "eva_giant_patch14_224"}
_GIANT_CLIP = "eva_giant_patch14_clip_224"  # pools by its class token
_LARGE = {336: "eva_large_patch14_336", 0: "eva_large_patch14_196"}
_SIZES = {  # patch size, width, depth, heads, width of the MLP
    "giant": (14, 1408, 40, 16, 6144),
    "large": (14, 1024, 24, 16, 4096),
}
_REFUSAL = (
    "{} holds {}, which timm's EVA models do not compute: convert a pre-trained file, a classifier "
    "of images, a CLIP, or a segmentor without relative positions"
)
_NOT_TAKEN = re.compile(
    r"(lm_head|norm|spm|interactions|up|norm[1-4])\.|mask_token$|decoder|level_embed$"
    r"|.*relative_position(_\w+)?_index$"
)


@dataclass(frozen=True, kw_only=True)
class TimmModel:
    """What timm builds and loads."""

    architecture: str  # name in timm
    arguments: dict[str, Any]  # that differ from what that name stands for
    image_size: int  # side in pixels
    pooling: Pooling
    classes: int  # 0 without a head
    weights: dict[str, Tensor]  # by timm's names
    changes: list[str] = field(default_factory=list)  # what was left out or changed, in lines


def timm_weights(folder: Path) -> Path | None:
    """Find the weights in a folder that timm reads as `local-dir:`; None for any other path.

    Raises:
        FileNotFoundError: If the folder has no weights.
    """
    try:  # the config of a run and of a transformers model has the same name
        config: Any = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        return None
    for name in _WEIGHTS_OF_TIMM:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} has timm's {CONFIG}, and no weights such as {WEIGHTS}")


def write_folder(weights: Mapping[str, Tensor], folder: Path, source: Path) -> list[str]:
    """Write a model for timm to an empty folder, and compare what timm builds of it with ours.

    Args:
        weights: Name -> tensor, in the official form.
        folder: The folder.
        source: File of the weights; a run notes in it how its images are prepared.

    Returns:
        Lines of a report.

    Raises:
        ValueError: If timm has no such model, or its outputs differ.
    """
    model = to_timm(weights, name=source.name)
    notes = notes_of_training(source, crop_pct=None, mean=None, std=None, class_names=None)
    segmentor = any(name.endswith("level_embed") for name in weights)
    config = _config(model, notes, segmentor=segmentor)
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


def _config(model: TimmModel, notes: Mapping[str, Any], *, segmentor: bool) -> dict[str, Any]:
    """Make timm's `config.json`."""
    usual = dict(PUBLISHED) | ({"mean": IMAGENET_MEAN, "std": IMAGENET_STD} if segmentor else {})
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
    prefix = find_trunk(weights, name=name)
    fine_tuned = f"{prefix}fc_norm.weight" in weights  # a final norm beside it is not used
    own = {k: v for k, v in weights.items() if not (fine_tuned and k.startswith(f"{prefix}norm."))}
    vit = load_vit(Weights(name, own))

    def part(key: str) -> Tensor | None:
        value = weights.get(prefix + key)
        return None if value is None else value.float()

    pooling = PooledVit(vit, pooling=model.pooling, image_size=model.image_size)
    pooled = pooling.pool(vit.forward_features(_images(model.image_size)))
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
    import timm  # not for what only reads a folder

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
tags: [{task}, timm]
library_name: timm
pipeline_tag: {task}
---
# EVA for timm

Converted from `{source.name}` by the EVA toolkit: `{model.architecture}` with the arguments in
`config.json`. Gives {gives}, of {pooled}, for {model.image_size} px. Pixels: minus mean
{preparation["mean"]}, by deviation {preparation["std"]}.

```python
import timm

model = timm.create_model("local-dir:PATH_OF_THIS_FOLDER", pretrained=True)  # or hf-hub:ORG/NAME
transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
```
"""


def to_timm(weights: Mapping[str, Tensor], *, name: str) -> TimmModel:
    """Turn the ViT of a file, with its head, into a model of timm.

    Masked-image models and segmentors give the mean of the patches, classifiers their logits,
    towers of CLIP the projected class token.

    Args:
        weights: Name -> tensor, in the official form.
        name: Name of the file, for messages.

    Raises:
        ValueError: If there is no ViT, or timm has none like it.
    """
    prefix = find_trunk(weights, name=name)
    require(weights[prefix + TRUNK_KEY].ndim == 4, _REFUSAL.format(name, "a model of clips"))
    trunk = describe(Weights(name, weights))
    for holds, what in (
        ("rel_pos" not in trunk.arguments, "a ViT with relative positions"),
        ("cls_token" in trunk.names, "a detector's ViT, which attends in windows"),
        ("num_heads" in trunk.arguments, "a ViT of sizes that eva_backbone.VARIANTS lacks"),
    ):
        require(holds, _REFUSAL.format(name, what))
    own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    outside = [key for key in weights if not key.startswith(prefix)]
    lines = [f"left out (outside the ViT): {listed(outside, 3)}"] if outside else []
    fused = trunk.arguments["qkv_bias"] == "qkv"
    pooling: Pooling = "mean" if trunk.pools_patches else "cls"
    head = _head(own, lines)
    kept: dict[str, Tensor] = {}
    left_out = []
    for key, value in own.items():
        used = key.startswith("norm.") and "fc_norm.weight" not in own
        if _NOT_TAKEN.match(key) and not used:
            left_out.append(key)
        elif not key.startswith("head."):
            in_timm = re.sub(r"\.gamma_([12])$", r".ls\1.gamma", key) if fused else key
            kept[in_timm] = value
    if "level_embed" in own:  # as in its training, see `load_vit`
        positions = kept["pos_embed"]
        kept["pos_embed"] = torch.cat([0 * positions[:, :1], positions[:, 1:]], dim=1)
    if left_out:
        lines.append(f"left out (not in timm's model): {listed(left_out, 6)}")
    return TimmModel(
        architecture=_architecture(trunk, pooling),
        arguments=_arguments(trunk, pooling),
        image_size=trunk.arguments["img_size"],
        pooling=pooling,
        classes=len(head["head.weight"]) if head else 0,
        weights=kept | head,
        changes=lines,
    )


def official_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the official names to weights of timm's `eva_giant_*` or `eva_large_*`; others stay."""
    return {
        re.sub(r"^(blocks\.\d+)\.ls([12])\.gamma$", r"\1.gamma_\2", k): v
        for k, v in weights.items()
    }


def _architecture(trunk: Trunk, pooling: Pooling) -> str:
    side = trunk.arguments["img_size"]
    if trunk.arguments["qkv_bias"] == "qkv":
        return _LARGE.get(side, _LARGE[0])
    return _GIANT_CLIP if pooling == "cls" else _GIANT.get(side, _GIANT[0])


def _arguments(trunk: Trunk, pooling: Pooling) -> dict[str, Any]:
    """Name what differs from the architecture: sizes, pooling and the place of the last norm."""
    vit = trunk.arguments
    large = vit["qkv_bias"] == "qkv"
    patch, width, depth, heads, mlp = _SIZES["large" if large else "giant"]
    usual = {"patch_size": patch, "embed_dim": width, "depth": depth, "num_heads": heads}
    found = {name: vit[name] for name, theirs in usual.items() if vit[name] != theirs}
    if (vit["mlp_dim"], vit["embed_dim"]) != (mlp, width):
        ratio = vit["mlp_dim"] / vit["embed_dim"]
        exact = int(vit["embed_dim"] * ratio) == vit["mlp_dim"]  # timm rounds down
        found["mlp_ratio"] = ratio if exact else (vit["mlp_dim"] + 0.5) / vit["embed_dim"]
    if vit["layer_scale"] is not None:
        found["init_values"] = 1.0
    if pooling == "cls":
        return found | ({"global_pool": "token"} if large else {})
    if "fc_norm.weight" in trunk.names:
        return found  # as timm has it for the mean
    norm = "norm.weight" in trunk.names
    if large:
        return found | {"fc_norm": False} | ({} if norm else {"final_norm": False})
    return found | {"use_fc_norm": False, "use_post_transformer_norm": norm}


def _head(own: Mapping[str, Tensor], lines: list[str]) -> dict[str, Tensor]:
    """Find the head, one linear layer in timm; says in `lines` what was made of it."""
    if "head.1.weight" in own:  # of a linear probe: a batch norm without parameters before it
        matrix, bias = own["head.1.weight"], own["head.1.bias"]  # (K, C), (K,)
        mean, variance = own["head.0.running_mean"].double(), own["head.0.running_var"].double()
        scaled = matrix.double() / (variance + PROBE_EPS).sqrt()
        lines.append("put the batch norm of the linear probe into its linear layer")
        moved = bias.double() - scaled @ mean
        return {"head.weight": scaled.to(matrix.dtype), "head.bias": moved.to(bias.dtype)}
    if "head.weight" not in own:
        return {}
    matrix = own["head.weight"]
    return {"head.weight": matrix, "head.bias": own.get("head.bias", matrix.new_zeros(len(matrix)))}
