"""EVA-CLIP in open_clip: names both ways, and a folder that it reads as `local-dir:FOLDER`.

open_clip has two places for an EVA ViT. `EVA01-g-14` holds timm's under `visual.trunk.`, with EVA's
own names. Sizes that timm has no name for fit open_clip's own ViT (OpenAI's names), which computes
the same but has no bias after the patches and after the projection: the first is added to the
positions, the second to the bias of the norm before the projection. Features stay.

Shapes: C channels, D values of a feature, N patches.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor

from eva_backbone.checkpoints.convert import fuse_qkv_bias
from eva_backbone.checkpoints.from_weights import describe
from eva_backbone.checkpoints.reading import Weights
from eva_contrastive.model.eva_clip import EvaClip, tokenize
from eva_contrastive.model.open_clip_files import CARD, CONFIG, WEIGHTS, find_preparation
from eva_data.saving import write_text
from eva_engine.checkpoints.files import read_config, save_weights

_TRUNK = "visual.trunk."
_LOGITS = ("logit_scale", "logit_bias")
# What open_clip's older class keeps beside the vision tower.
_TEXT = re.compile(
    r"(positional_embedding|text_projection|token_embedding\.|ln_final\.|transformer\.)"
)
_PIXELS = "visual.conv1.weight"  # marks open_clip's own ViT
_IN_BLOCK = {  # ours -> open_clip's ViT
    "norm1.": "ln_1.",
    "norm2.": "ln_2.",
    "attn.qkv.weight": "attn.in_proj_weight",
    "attn.qkv.bias": "attn.in_proj_bias",
    "attn.proj.": "attn.out_proj.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
    "gamma_1": "ls_1.gamma",
    "gamma_2": "ls_2.gamma",
}
# timm's EVA-g: side of the images -> its name.
_TRUNKS = {side: f"eva_giant_patch14_{side}" for side in (224, 336, 560)}
_GIANT = (14, 1408, 40, 16, 6144)
# Largest difference of features, as a share of the largest value: sums in another order.
_TOLERANCE = 1e-4
_TEXTS = ("a photo of a dog", "three people who play football in the rain", "7")
_MODEL_CARD = """---
tags:
- clip
library_name: open_clip
pipeline_tag: zero-shot-image-classification
---
# EVA-CLIP for open_clip

Converted from `{source}` by the EVA toolkit; features have {values} values.

```python
import open_clip

folder = "local-dir:PATH_OF_THIS_FOLDER"
model, _, preprocess = open_clip.create_model_and_transforms(folder)
tokenizer = open_clip.get_tokenizer(folder)
```

    clip_benchmark eval --model local-dir:PATH_OF_THIS_FOLDER --pretrained "" \\
        --dataset wds/NAME --dataset_root FOLDER --output result.json
"""


def to_official(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the official names, `visual.*` and `text.*`, to a CLIP of any program.

    Args:
        weights: Name -> tensor: of `EVA01-g-14` or another open_clip model with an EVA ViT, of this
            toolkit, official, or a vision tower alone.

    Returns:
        A new dict; factor and bias of the logits are `text.*` too, without dimensions.

    Raises:
        ValueError: If open_clip's own ViT lacks a part that EVA's has.
    """
    tensors = {name.removeprefix("module."): value for name, value in weights.items()}
    if _PIXELS in tensors:
        tensors = _from_vit(tensors)
    official = {}
    for name, value in tensors.items():
        if name.removeprefix("text.") in _LOGITS:
            scalar = value.reshape(()) if value.numel() == 1 else value
            official[f"text.{name.removeprefix('text.')}"] = scalar
        else:
            official[name.replace(_TRUNK, "visual.") if name.startswith(_TRUNK) else name] = value
    return official


def to_trunk(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the names of open_clip's `EVA01-g-14`, which loads them strictly, to a CLIP."""
    return {
        _TRUNK + name.removeprefix("visual.") if name.startswith("visual.") else name: value
        for name, value in _logits_outside(weights).items()
    }


def to_vit(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn a CLIP into one with open_clip's own ViT.

    What is not the same tensor under another name is float32. Where there are more values of a
    feature than channels, the bias of the projection has no equal in the norm before it, and the
    features are not the same.
    """
    tensors = fuse_qkv_bias(_logits_outside(weights))
    positions = tensors.pop("visual.pos_embed")[0].float()  # (1 + N, C)
    bias = tensors.pop("visual.patch_embed.proj.bias").float()
    projection = tensors.pop("visual.head.weight").T  # (C, D)
    before, after = tensors.pop("visual.norm.bias"), tensors.pop("visual.head.bias").double()
    moved = torch.linalg.lstsq(projection.double().T, after[:, None], driver="gelsd").solution
    outside = {
        _PIXELS: tensors.pop("visual.patch_embed.proj.weight"),
        "visual.class_embedding": tensors.pop("visual.cls_token").flatten(),
        "visual.positional_embedding": torch.cat([positions[:1], positions[1:] + bias]),
        "visual.ln_post.weight": tensors.pop("visual.norm.weight"),
        "visual.ln_post.bias": (before.double() + moved[:, 0]).float(),
        "visual.proj": projection,
    }
    return outside | {
        _in_block(n, _IN_BLOCK, "transformer.resblocks"): v for n, v in tensors.items()
    }


def _from_vit(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `to_vit`, but for the biases that were moved, which become zero."""
    back = {theirs: ours for ours, theirs in _IN_BLOCK.items()}
    tensors = {
        f"text.{name}" if _TEXT.match(name) else _in_block(name, back, "blocks"): value
        for name, value in weights.items()
    }
    pixels = tensors.pop(_PIXELS)
    try:
        projection = tensors.pop("visual.proj")  # (C, D)
        return {
            "visual.cls_token": tensors.pop("visual.class_embedding").reshape(1, 1, -1),
            "visual.pos_embed": tensors.pop("visual.positional_embedding")[None],
            "visual.patch_embed.proj.weight": pixels,
            "visual.patch_embed.proj.bias": pixels.new_zeros(pixels.shape[:1]),
            "visual.norm.weight": tensors.pop("visual.ln_post.weight"),
            "visual.norm.bias": tensors.pop("visual.ln_post.bias"),
            "visual.head.weight": projection.T,
            "visual.head.bias": projection.new_zeros(projection.shape[-1:]),
            **tensors,
        }
    except KeyError as error:
        raise ValueError(f"open_clip's own ViT lacks {error}: it is not an EVA ViT") from error


def _logits_outside(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Move factor and bias of the logits out of the text tower, without dimensions."""
    outer_names = {f"text.{name}": name for name in _LOGITS}
    return {
        outer_names.get(name, name): value.reshape(()) if name in outer_names else value
        for name, value in weights.items()
    }


def _in_block(name: str, names: Mapping[str, str], blocks: str) -> str:
    """Rename a tensor of a block of the vision tower; others keep their names."""
    match = re.match(r"visual\.(?:blocks|transformer\.resblocks)\.(\d+)\.(.+)", name)
    if match:
        for ours, theirs in names.items():
            if match[2].startswith(ours):
                return f"visual.{blocks}.{match[1]}.{theirs}{match[2].removeprefix(ours)}"
    return name


def write_folder(weights: Mapping[str, Tensor], folder: Path, source: Path) -> list[str]:
    """Write a CLIP for open_clip, and compare what open_clip builds of it with ours.

    Args:
        weights: Name -> tensor, of any program.
        folder: An empty folder.
        source: File of the weights; a run notes in it how its images are normalised.

    Returns:
        Lines of a report.

    Raises:
        ValueError: If this is no complete CLIP, open_clip has no such model, or features differ.
    """
    from eva_contrastive.model.loading import clip_weights, load_eva_clip  # which import this one

    official = clip_weights(Weights(source.name, weights))
    family = describe(official).family
    if family != "eva":
        raise ValueError(
            f"{source.name} has a vision tower of the family {family}, and only EVA-01's are "
            "written for open_clip: --to timm writes the tower, eva clip export both towers"
        )
    model = load_eva_clip(official)
    trunk, values = _trunk_of(model), model.embed_dim
    noted = find_preparation(source)
    preparation = {
        "mean": list(noted.mean),
        "std": list(noted.std),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    config = {"model_cfg": _model_config(model, trunk), "preprocess_cfg": preparation}
    sizes = model.image_size, model.context_length
    expected = _features(model, *sizes)
    del model  # two models of a billion parameters need not be in memory at once
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    # with the run's notes, so that the file serves our programs as the run's does
    converted = to_trunk(official.tensors) if trunk else to_vit(official.tensors)
    save_weights(converted, folder / WEIGHTS, read_config(source))
    write_text(folder / CARD, _MODEL_CARD.format(source=source.name, values=values))
    outputs = _features(open_clip.create_model(f"local-dir:{folder}").eval(), *sizes)
    differences = [(a - b).abs().max().item() for a, b in zip(outputs, expected, strict=True)]
    shares = [d / b.abs().max().item() for d, b in zip(differences, expected, strict=True)]
    if not all(share <= _TOLERANCE for share in shares):  # also for NaN
        raise ValueError(
            f"open_clip's features differ from ours by {max(shares):.2g} of the largest value; "
            "nothing was written (sizes that timm does not have need an embed_dim of at most the "
            "width of the vision tower)"
        )
    kind = f"the sizes of EVA01-g-14, through timm's {trunk}" if trunk else "open_clip's own ViT"
    return [
        f"{kind}; its features differ from ours by at most {max(differences):.2g}",
    ]


def _trunk_of(model: EvaClip) -> str | None:
    """Return the name of timm's EVA-g with the sizes of the vision tower, if there is one."""
    visual: Any = model.visual
    block = visual.blocks[0]
    sizes = (visual.patch_size, visual.embed_dim, visual.depth, visual.num_heads)
    plain = block.gamma_1 is None and block.attn.q_bias is not None
    fits = plain and (*sizes, block.mlp.fc1.out_features) == _GIANT
    return _TRUNKS.get(visual.img_size) if fits else None


def _model_config(model: EvaClip, trunk: str | None) -> dict[str, Any]:
    visual: Any = model.visual
    text_tower, block = model.text, visual.blocks[0]
    if trunk:
        vision: dict[str, Any] = {
            "timm_model_name": trunk,
            "timm_model_pretrained": False,
            "timm_pool": "token",
            "timm_proj": None,
        }
    else:
        vision = {
            "patch_size": visual.patch_size,
            "layers": visual.depth,
            "width": visual.embed_dim,
            "head_width": visual.embed_dim // visual.num_heads,
            # half a channel more, for open_clip rounds down
            "mlp_ratio": (block.mlp.fc1.out_features + 0.5) / visual.embed_dim,
            "no_ln_pre": True,
            "norm_kwargs": {"eps": visual.norm.eps},
            "ls_init_value": None if block.gamma_1 is None else 1.0,
        }
    return {
        "embed_dim": model.embed_dim,
        "vision_cfg": {"image_size": visual.img_size, **vision},
        "text_cfg": {
            "context_length": text_tower.context_length,
            "vocab_size": text_tower.vocab_size,
            "width": text_tower.width,
            "heads": text_tower.heads,
            "layers": text_tower.depth,
        },
        "custom_text": True,
        **(
            {}
            if text_tower.logit_bias is None
            else {"init_logit_bias": text_tower.logit_bias.item()}
        ),
    }


def _features(model: Any, image_size: int, context_length: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, image_size, image_size, generator=generator)
    with torch.no_grad():
        return model.encode_image(images), model.encode_text(tokenize(_TEXTS, context_length))
