"""A ViT as timm's: names both ways, and a folder that timm reads as `local-dir:FOLDER`.

timm has two classes that compute what EVA computes: `Eva` (`eva_giant_*`), whose names are the
official ones, and `VisionTransformer` (`eva_large_*`) for one bias of queries, keys and values.
Other plain ViTs become the model of which timm hosts the weights.

Shapes: B images, C channels, K classes or values of a feature.
"""

import json
import operator
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eva_backbone.checkpoints._key_maps import TRUNK_KEY
from eva_backbone.checkpoints.convert import find_trunk
from eva_backbone.checkpoints.families import find_variant
from eva_backbone.checkpoints.from_weights import Trunk, describe, load_pooled
from eva_backbone.checkpoints.library_names import find_timm_form, to_library_names
from eva_backbone.checkpoints.reading import Weights, list_names, noted_sizes
from eva_backbone.checkpoints.registry import HOSTED_FILES
from eva_backbone.resample import resample_pos_embed
from eva_backbone.rotary import Rotary
from eva_backbone.variants import FAMILIES, VARIANTS, Pooling, variant_arguments
from eva_classification.models import PROBE_EPS, load_classifier
from eva_data.saving import write_text
from eva_engine.checkpoints.files import read_config, save_weights
from eva_engine.evaluation.own_data import PUBLISHED, notes_of_training, require_rgb

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
# In the order in which timm prefers them.
_WEIGHTS_OF_TIMM = (WEIGHTS, "pytorch_model.bin", "pytorch_model.pth", "model.pth")

# Largest difference of outputs, as a share of the largest value: sums in another order.
_TOLERANCE = 1e-4
# timm's names: side of the images -> name, the last for all other sides.
_GIANT = {336: "eva_giant_patch14_336", 560: "eva_giant_patch14_560", 0: "eva_giant_patch14_224"}
_GIANT_CLIP = "eva_giant_patch14_clip_224"  # pools by its class token
_LARGE = {336: "eva_large_patch14_336", 0: "eva_large_patch14_196"}
_GIANT_SIZES = (14, 1408, 40, 16, 6144)  # patch size, width, depth, heads, width of the MLP
_LARGE_SIZES = (14, 1024, 24, 16, 4096)
_PERIODS, _PERIODS_TOLERANCE = "rope_embed.periods", 1e-5
_LEFT_OUT = re.compile(
    r"(lm_head|spm|interactions|up|norm[1-4]|projectors|local_cls_norm)\.|mask_token$|decoder"
    r"|level_embed$|.*relative_position(_\w+)?_index$|head\.(?!\d|weight$|bias$)"
)
_CARD = """---
tags: [{task}, timm]
library_name: timm
pipeline_tag: {task}
---
# {title} for timm

Converted from `{source}` by the EVA toolkit: `{architecture}` with the arguments in `config.json`.
Licence of the original weights: {licence}.
Gives {gives}, of {pooled}, for {side} px. Pixels: minus mean {mean}, by deviation {std}.

```python
import timm

model = timm.create_model("local-dir:PATH_OF_THIS_FOLDER", pretrained=True)  # or hf-hub:ORG/NAME
transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
```
"""


def timm_weights(folder: Path) -> Path | None:
    """Find the weights in a folder that timm reads as `local-dir:`; None for any other path."""
    try:  # the config of a run and of a transformers model has the same name
        config: Any = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        return None
    candidates = (folder / name for name in _WEIGHTS_OF_TIMM if (folder / name).is_file())
    return next(candidates, folder / WEIGHTS)


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
    require_rgb(source)
    config, converted, changes = to_timm(weights, source)
    classes, side = config["num_classes"], config["pretrained_cfg"]["input_size"][-1]
    trunk_weights = trunk_of(weights, source)
    family = FAMILIES[describe(trunk_weights).family]
    preparation = {**PUBLISHED, "mean": family.mean, "std": family.std}
    if "level_embed" in trunk_weights.tensors:  # a segmentor's
        preparation |= {"mean": family.dense_mean, "std": family.dense_std}
    noted = notes_of_training(source, **dict.fromkeys(PUBLISHED), class_names=None)
    names = noted.pop("class_names")
    preparation |= {name: value for name, value in noted.items() if value is not None}
    config["pretrained_cfg"] |= preparation
    if names is not None and len(names) == classes:
        config["label_names"] = names
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    # with the run's notes, so that the file serves our programs as the run's does
    save_weights(converted, folder / WEIGHTS, read_config(source))
    by_token = config["global_pool"] == "token"
    card = _CARD.format(
        title="EVA" if family is FAMILIES["eva"] else "A plain ViT",
        licence=family.licence,
        task="image-classification" if classes and not by_token else "image-feature-extraction",
        source=source.name,
        architecture=config["architecture"],
        gives=f"{classes} values" if classes else "a feature",
        pooled="the class token" if by_token else "the mean of the patches",
        side=side,
        **preparation,
    )
    write_text(folder / CARD, card)
    difference = _compare(folder, without_periods(trunk_weights), side)
    return [
        *changes,
        f"timm's {config['architecture']}; its outputs differ from ours by at most "
        f"{difference:.2g}",
    ]


@torch.no_grad()
def _compare(folder: Path, trunk_weights: Weights, side: int) -> float:
    """Build the model by timm and by this toolkit; return the largest difference of outputs."""
    import timm  # not for what only reads a folder

    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    if trunk_weights.tensors.keys() & {"head.weight", "head.1.weight"}:
        expected = load_classifier(trunk_weights)(images)  # (B, K)
    else:
        pooled, _ = load_pooled(trunk_weights)
        expected = pooled.pool(pooled.vit.forward_features(images))  # (B, C)
    outputs: Tensor = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()(images)
    return require_close(outputs, expected, "timm")


def require_close(outputs: Tensor, expected: Tensor, program: str) -> float:
    """Return the largest difference of outputs; refuse one that is not of another order of sums."""
    largest = expected.abs().max().item()
    difference = (outputs - expected).abs().max().item()
    if not difference <= _TOLERANCE * largest:  # also for NaN
        raise ValueError(
            f"{program}'s outputs differ from ours by {difference:.2g}, of at most {largest:.2g}; "
            "nothing was written"
        )
    return difference


def to_timm(
    weights: Mapping[str, Tensor], source: Path
) -> tuple[dict[str, Any], dict[str, Tensor], list[str]]:
    """Turn the ViT of a file, with its head, into a model of timm.

    Masked-image models and segmentors give the mean of the patches, classifiers their logits,
    towers of CLIP the projected class token.

    Args:
        weights: Name -> tensor, in the official form.
        source: Their file, for messages, and the sizes that a run notes in it.

    Returns:
        timm's config of the model, weights by timm's names, and a line for each kind of change.

    Raises:
        ValueError: If there is no ViT, or timm has none like it.
    """
    whole = trunk_of(weights, source)
    trunk, own = describe_whole(whole), whole.tensors
    prefix = find_trunk(weights, name=source.name)
    outside = [key for key in weights if key.removeprefix(prefix) not in own]
    lines = [f"left out (outside the ViT): {list_names(outside, 3)}"] if outside else []
    lines += note_periods(own, trunk)
    left_out = [key for key in own if _LEFT_OUT.match(key)]
    converted = {k: v for k, v in without_periods(whole).tensors.items() if k not in left_out}
    if "head.1.weight" in own:  # of a linear probe: a batch norm without parameters before it
        converted = {k: v for k, v in converted.items() if not k.startswith("head.")}
        converted |= _without_batch_norm(own)
        lines.append("put the batch norm of the linear probe into its linear layer")
    if "level_embed" in own:  # as in its training, see `load_vit`
        positions = own["pos_embed"]
        converted["pos_embed"] = torch.cat([0 * positions[:, :1], positions[:, 1:]], dim=1)
    if left_out:
        lines.append(f"left out (not in timm's model): {list_names(left_out, 6)}")
    variant = find_variant(own)
    converted = _give_names(converted, variant, trunk)
    architecture, arguments = (
        _architecture(trunk) if variant is None else _hosted_architecture(variant, trunk)
    )
    side = trunk.arguments["img_size"]
    classes = len(converted["head.weight"]) if "head.weight" in converted else 0
    config = {
        "architecture": architecture,
        "num_classes": classes,
        "num_features": trunk.arguments["embed_dim"],
        "global_pool": "token" if _pooling(trunk) == "cls" else "avg",
        **({"model_args": arguments} if arguments else {}),
        "pretrained_cfg": {
            "input_size": [3, side, side],
            "fixed_input_size": trunk.arguments.get("positions") != "none",
            "interpolation": "bicubic",
            "crop_mode": "center",
            "num_classes": classes,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
    return config, converted, lines


def trunk_of(weights: Mapping[str, Tensor], source: Path) -> Weights:
    """Take what belongs to the ViT, its classifier included, without the prefix of its names."""
    prefix = find_trunk(weights, name=source.name)
    trunk_weights = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    if trunk_weights.keys() & {
        "attn_pool.latent",
        "attn_pool.probe",
        "head.probe",
    }:  # and what follows it
        trunk_weights = {
            k: v for k, v in trunk_weights.items() if not re.match(r"(attn_pool|head)\.|proj$", k)
        }
    return Weights(source.name, trunk_weights, **noted_sizes(source))


def without_periods(weights: Weights) -> Weights:
    """Leave out the periods of rotary positions, which other programs compute."""
    tensors = {k: v for k, v in weights.tensors.items() if k != _PERIODS}
    return replace(weights, tensors=tensors)


def note_periods(weights: Mapping[str, Tensor], trunk: Trunk) -> list[str]:
    """Say that periods of a file, such as DINOv3's, which are rounded, are left out."""
    if _PERIODS not in weights:
        return []
    width, heads = trunk.arguments["embed_dim"], trunk.arguments["num_heads"]
    computed = Rotary(width // heads, **trunk.arguments["rotary"]).periods
    largest = (weights[_PERIODS].float() / computed - 1).abs().max().item()
    if largest < _PERIODS_TOLERANCE:
        return []
    return [f"left out the file's rotary periods, rounded by up to {largest:.1g} of each"]


def describe_whole(weights: Weights) -> Trunk:
    """Describe a ViT of images with global attention; refuse any other."""
    problem = "a model of clips" if weights.tensors[TRUNK_KEY].ndim == 5 else ""
    if not problem:
        trunk, variant = describe(weights), find_variant(weights.tensors)
        tokens = variant_arguments(variant).get("extra_tokens", ("cls",)) if variant else ("cls",)
        if "rel_pos" in trunk.arguments:
            problem = "a ViT with relative positions"
        elif "cls" in tokens and "cls_token" not in trunk.names:
            problem = "a detector's ViT, which attends in windows"
        elif "num_heads" not in trunk.arguments:
            problem = "a ViT of sizes that eva_backbone.VARIANTS lacks"
        else:
            return trunk
    raise ValueError(
        f"{weights.name} holds {problem}, which other programs' models do not compute: convert a "
        "pre-trained file, a classifier of images, a CLIP, or a segmentor without relative "
        "positions"
    )


def _pooling(trunk: Trunk) -> Pooling:
    return "mean" if trunk.pools_patches else "cls"


def official_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the official names to weights of timm's `eva_giant_*` or `eva_large_*`; others stay."""
    return {
        re.sub(r"^(blocks\.\d+)\.ls([12])\.gamma$", r"\1.gamma_\2", k): v
        for k, v in weights.items()
    }


def _architecture(trunk: Trunk) -> tuple[str, dict[str, Any]]:
    """Find timm's name, and what differs from it: sizes, pooling and place of the last norm."""
    vit, by_token = trunk.arguments, _pooling(trunk) == "cls"
    large, side = vit["qkv_bias"] == "qkv", vit["img_size"]
    names, sizes = (_LARGE, _LARGE_SIZES) if large else (_GIANT, _GIANT_SIZES)
    name = _GIANT_CLIP if by_token and not large else names.get(side, names[0])
    *usual, mlp_dim = sizes
    parts = zip(("patch_size", "embed_dim", "depth", "num_heads"), usual, strict=True)
    differences = {part: vit[part] for part, theirs in parts if vit[part] != theirs}
    if not name.endswith(f"_{side}"):
        differences["img_size"] = side  # transformers' TimmWrapper reads no input_size
    if (vit["mlp_dim"], vit["embed_dim"]) != (mlp_dim, sizes[1]):
        differences["mlp_ratio"] = (vit["mlp_dim"] + 0.5) / vit["embed_dim"]  # timm rounds down
    if vit["layer_scale"] is not None:
        differences["init_values"] = 1.0
    if by_token:
        return name, differences | ({"global_pool": "token"} if large else {})
    if "fc_norm.weight" in trunk.names:
        return name, differences  # as timm has it for the mean
    if large:
        differences |= {"fc_norm": False} | ({} if vit["final_norm"] else {"final_norm": False})
        return name, differences
    return name, differences | {
        "use_fc_norm": False,
        "use_post_transformer_norm": vit["final_norm"],
    }


def _hosted_architecture(variant: str, trunk: Trunk) -> tuple[str, dict[str, Any]]:
    """Find timm's name for another family's ViT, and its arguments."""
    form = operator.attrgetter("family", "more", "qkv_bias")
    files, ours = HOSTED_FILES.values(), form(VARIANTS[variant])
    hosted = [file for file in files if file.variant == variant]
    hosted += [file for file in files if form(VARIANTS[file.variant]) == ours]
    if not hosted:
        raise ValueError(f"timm has no model like {variant}: its family cannot be written for timm")
    vit, has_fc_norm = trunk.arguments, "fc_norm.weight" in trunk.names
    layers = 2 if vit.get("mlp") == "swiglu" and "rotary" not in vit else 1  # that fc1 counts
    arguments = {
        **{
            name: vit[name]
            for name in ("img_size", "patch_size", "embed_dim", "depth", "num_heads")
        },
        "mlp_ratio": (layers * vit["mlp_dim"] + 0.5) / vit["embed_dim"],  # timm rounds down
        "global_pool": "token" if _pooling(trunk) == "cls" else "avg",
    }
    if "rotary" not in vit:
        arguments |= {"fc_norm": has_fc_norm, "final_norm": has_fc_norm or vit["final_norm"]}
        arguments |= {"act_layer": "gelu_tanh"} if vit.get("mlp") == "gelu_tanh" else {}
    else:
        arguments |= {"use_fc_norm": has_fc_norm, "use_post_transformer_norm": vit["final_norm"]}
        grid = vit["rotary"].get("reference") or vit["img_size"] // vit["patch_size"]
        arguments |= {} if vit["rotary"].get("centred") else {"ref_feat_shape": int(grid)}
    return hosted[0].repository.removeprefix("timm/").partition(".")[0], arguments


def _give_names(
    tensors: Mapping[str, Tensor], variant: str | None, trunk: Trunk
) -> dict[str, Tensor]:
    """Give timm's names; the positions of another family get the size that the model is for."""
    vit, tensors = trunk.arguments, dict(tensors)
    if variant is None:
        if vit["qkv_bias"] != "qkv":
            return tensors
        scales = re.compile(r"\.gamma_([12])$")
        return {scales.sub(r".ls\1.gamma", name): value for name, value in tensors.items()}
    if "pos_embed" in tensors:  # RADIO's are of a larger map
        side = vit["img_size"] // vit["patch_size"]
        method = vit.get("positions", "bicubic")
        tensors["pos_embed"] = resample_pos_embed(tensors["pos_embed"], (side, side), method)
    return to_library_names(tensors, find_timm_form(variant), bias=vit["qkv_bias"])


def _without_batch_norm(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put the batch norm of a linear probe into the linear layer behind it."""
    matrix, bias = weights["head.1.weight"], weights["head.1.bias"]  # (K, C), (K,)
    mean, variance = weights["head.0.running_mean"].double(), weights["head.0.running_var"].double()
    scaled = matrix.double() / (variance + PROBE_EPS).sqrt()
    moved = bias.double() - scaled @ mean
    return {"head.weight": scaled.to(matrix.dtype), "head.bias": moved.to(bias.dtype)}
