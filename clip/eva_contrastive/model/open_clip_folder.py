"""A folder that open_clip, its tokenizer and what builds on them read as `local-dir:FOLDER`.

It holds the settings of the model and of the pictures, the weights and a model card; the tokenizer
is open_clip's own and needs no file. The folder can be moved, and nothing of this toolkit is needed
to read it.

EVA-CLIP-g becomes open_clip's `EVA01-g-14`, the other sizes its own ViT, see `open_clip_form`.
"""

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eva_backbone.variants import CLIP_MEAN, CLIP_STD
from eva_contrastive.model.open_clip_form import to_trunk, to_vit
from eva_contrastive.model.open_clip_program import CARD, CONFIG, WEIGHTS
from eva_data.files import write_text

# timm's EVA-g: side of the pictures -> its name.
_TRUNKS = {side: f"eva_giant_patch14_{side}" for side in (224, 336, 560)}
_GIANT = (14, 1408, 40, 16, 6144)
# Largest difference of features, as a share of the largest value: sums in another order.
_TOLERANCE = 1e-4
_TEXTS = ("a photo of a dog", "three people who play football in the rain", "7")


def write_folder(weights: Mapping[str, Tensor], folder: Path, source: Path) -> list[str]:
    """Write a CLIP for open_clip, and compare what open_clip builds of it with ours.

    Args:
        weights: Name -> tensor, of any program.
        folder: An empty folder.
        source: File of the weights; a run notes in it how its pictures are normalised.

    Returns:
        Lines of a report.

    Raises:
        ValueError: If this is not a complete CLIP, open_clip is not there or has no model of that
            form, or its features differ.
    """
    if importlib.util.find_spec("open_clip") is None:
        raise ValueError("open_clip is not installed: pip install 'eva-toolkit[clip]'")
    # Here, so that the program's --help comes at once, and other forms need no open_clip.
    from eva_contrastive.model.loading import clip_from, clip_weights
    from eva_engine.checkpoints.files import read_config, save_weights
    from eva_engine.evaluation.own_data import notes_of_training

    named = clip_weights(weights, name=source.name)
    model = clip_from(named, name=source.name)
    trunk = _trunk_of(model)
    config = {
        "model_cfg": _model_config(model, trunk),
        "preprocess_cfg": _preparation(**notes_of_training(source, mean=None, std=None)),
    }
    expected = _features(model, model.image_size, model.context_length)
    del model  # two models of a billion parameters need not be in memory at once
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    # with the run's notes, so that the file serves our programs as the run's does
    converted = to_trunk(named) if trunk else to_vit(named)
    save_weights(converted, folder / WEIGHTS, read_config(source))
    write_text(folder / CARD, _card(config, expected[0].shape[1], source))
    difference = _compare(folder, config["model_cfg"], expected)
    kind = f"the sizes of EVA01-g-14, through timm's {trunk}" if trunk else "open_clip's own ViT"
    return [
        f"{kind}; its features differ from ours by at most {difference:.2g}",
        "load with open_clip.create_model_and_transforms('local-dir:FOLDER')",
    ]


def _trunk_of(model: Any) -> str | None:
    """Return the name of timm's EVA-g with the sizes of the vision tower, if there is one."""
    visual, block = model.visual, model.visual.blocks[0]
    sizes = (visual.patch_size, visual.embed_dim, visual.depth, visual.num_heads)
    plain = block.gamma_1 is None and block.attn.q_bias is not None
    fits = plain and (*sizes, block.mlp.fc1.out_features) == _GIANT
    return _TRUNKS.get(visual.img_size) if fits else None


def _model_config(model: Any, trunk: str | None) -> dict[str, Any]:
    visual, text = model.visual, model.text
    vision: dict[str, Any] = {"image_size": visual.img_size}
    if trunk:
        vision |= {"timm_model_name": trunk, "timm_model_pretrained": False}
        vision |= {"timm_pool": "token", "timm_proj": None}
    else:
        block = visual.blocks[0]
        vision |= {
            "patch_size": visual.patch_size,
            "layers": visual.depth,
            "width": visual.embed_dim,
            "head_width": visual.embed_dim // visual.num_heads,
            # half a channel more, for open_clip rounds down
            "mlp_ratio": (block.mlp.fc1.out_features + 0.5) / visual.embed_dim,
            "no_ln_pre": True,
            "norm_kwargs": {"eps": visual.norm.eps},
        }
        if block.gamma_1 is not None:
            vision["ls_init_value"] = 1.0
    config = {
        "embed_dim": model.embed_dim,
        "vision_cfg": vision,
        "text_cfg": {
            "context_length": text.context_length,
            "vocab_size": text.vocab_size,
            "width": text.width,
            "heads": text.heads,
            "layers": text.depth,
        },
        "custom_text": True,
    }
    if text.logit_bias is not None:
        config["init_logit_bias"] = text.logit_bias.item()
    return config


def _preparation(mean: Sequence[float] | None, std: Sequence[float] | None) -> dict[str, Any]:
    """Describe how pictures become the model's input."""
    return {
        "mean": list(mean or CLIP_MEAN),
        "std": list(std or CLIP_STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }


def _features(model: Any, image_size: int, context_length: int) -> tuple[Tensor, Tensor]:
    from eva_contrastive.model.tokens import tokenize

    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, image_size, image_size, generator=generator)
    with torch.no_grad():
        texts: Tensor = model.encode_text(tokenize(_TEXTS, context_length))
        return model.encode_image(images), texts


def _compare(folder: Path, config: Mapping[str, Any], expected: tuple[Tensor, Tensor]) -> float:
    """Build the folder's model by open_clip; return the largest difference of its features."""
    import open_clip

    peer = open_clip.create_model(f"local-dir:{folder}").eval()
    sizes = (config["vision_cfg"]["image_size"], config["text_cfg"]["context_length"])
    worst = 0.0
    for what, found, ours in zip(
        ("pictures", "texts"), _features(peer, *sizes), expected, strict=True
    ):
        difference = (found - ours).abs().max().item()
        if not difference <= _TOLERANCE * ours.abs().max().item():  # also for NaN
            raise ValueError(
                f"open_clip's features of {what} differ from ours by {difference:.2g}, of at most "
                f"{ours.abs().max().item():.2g}; nothing was written"
            )
        worst = max(worst, difference)
    return worst


def _card(config: Mapping[str, Any], values: int, source: Path) -> str:
    model, preparation = config["model_cfg"], config["preprocess_cfg"]
    vision, text = model["vision_cfg"], model["text_cfg"]
    tower = vision.get("timm_model_name") or (
        f"ViT, patches of {vision['patch_size']} px, width {vision['width']}, "
        f"{vision['layers']} blocks"
    )
    return f"""---
tags:
- clip
library_name: open_clip
pipeline_tag: zero-shot-image-classification
---
# EVA-CLIP for open_clip

Converted from `{source.name}` by the EVA toolkit.

| | |
|---|---|
| vision tower | {tower}, {vision["image_size"]} px |
| text tower | {text["layers"]} blocks, width {text["width"]}, {text["context_length"]} tokens |
| features | {values} values |
| pixels | minus mean {preparation["mean"]}, by deviation {preparation["std"]} |

```python
import open_clip

folder = "local-dir:PATH_OF_THIS_FOLDER"
model, _, preprocess = open_clip.create_model_and_transforms(folder)
tokenizer = open_clip.get_tokenizer(folder)
```

    clip_benchmark eval --model local-dir:PATH_OF_THIS_FOLDER --pretrained "" \\
        --dataset wds/NAME --dataset_root FOLDER --output result.json
"""
