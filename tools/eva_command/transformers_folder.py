"""A folder that transformers' `AutoModel.from_pretrained` reads, of another family's plain ViT.

Shapes: B images, P prefix tokens, N patches, C channels.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eva_backbone.checkpoints.from_weights import Trunk, load_vit
from eva_backbone.checkpoints.library_names import TRANSFORMERS, to_library_names
from eva_backbone.checkpoints.reading import Weights, list_names
from eva_backbone.variants import FAMILIES
from eva_command.timm_folder import (
    CARD,
    CONFIG,
    WEIGHTS,
    describe_whole,
    note_periods,
    require_close,
    trunk_of,
    without_periods,
)
from eva_data.saving import write_text
from eva_engine.checkpoints.files import read_config, save_weights
from eva_engine.evaluation.own_data import require_rgb

_MODELS = {  # family -> model_type, class
    "dinov2": ("dinov2", "Dinov2Model"),
    "dinov2_reg": ("dinov2_with_registers", "Dinov2WithRegistersModel"),
    "dinov3": ("dinov3_vit", "DINOv3ViTModel"),
    "siglip2": ("siglip_vision_model", "SiglipVisionModel"),
}
_LEFT_OUT = re.compile(r"(head|lm_head|fc_norm|projectors|local_cls_norm)\.|mask_token$")
_TEXT = """---
tags: [image-feature-extraction]
library_name: transformers
pipeline_tag: image-feature-extraction
---
# A plain ViT for transformers

Converted from `{source}` by the EVA toolkit: `{kind}`, for {side} px. Pixels: minus mean {mean}, by
deviation {std}. Licence of the original weights: {licence}.

```python
from transformers import AutoModel

model = AutoModel.from_pretrained("PATH_OF_THIS_FOLDER")
```
"""


def write_folder(weights: Mapping[str, Tensor], folder: Path, source: Path) -> list[str]:
    """Write a ViT for transformers to an empty folder, and compare outputs with ours.

    Args:
        weights: Name -> tensor, as `to_eva_names` makes them.
        folder: The folder.
        source: File of the weights.

    Returns:
        Lines of a report.

    Raises:
        ValueError: If transformers has no such model, or its outputs differ.
    """
    require_rgb(source)
    whole = trunk_of(weights, source)
    trunk = describe_whole(whole)
    if trunk.family not in TRANSFORMERS or "norm.weight" not in trunk.names:
        lack = "" if "norm.weight" in trunk.names else " without a norm behind the last block"
        raise ValueError(
            f"{source.name} holds a ViT of the family {trunk.family}{lack}: for transformers, "
            f"trunks of {', '.join(TRANSFORMERS)} with that norm can be written"
        )
    trunk_weights = without_periods(whole).tensors
    left_out = [name for name in trunk_weights if _LEFT_OUT.match(name)]
    trunk_weights = {name: value for name, value in trunk_weights.items() if name not in left_out}
    lines = note_periods(whole.tensors, trunk)
    if left_out:
        lines.append(f"left out (not in transformers' model): {list_names(left_out, 6)}")
    form = TRANSFORMERS[trunk.family]
    converted = to_library_names(trunk_weights, form, bias=trunk.arguments["qkv_bias"])
    write_text(folder / CONFIG, json.dumps(_config(trunk), indent=2) + "\n")
    save_weights(converted, folder / WEIGHTS, read_config(source))
    family, side = FAMILIES[trunk.family], trunk.arguments["img_size"]
    card = _TEXT.format(
        source=source.name,
        kind=_MODELS[trunk.family][1],
        side=side,
        mean=family.mean,
        std=family.std,
        licence=family.licence,
    )
    write_text(folder / CARD, card)
    difference = _compare(folder, Weights(source.name, trunk_weights), side)
    return [
        *lines,
        f"{_MODELS[trunk.family][1]} of transformers; its outputs differ from ours by at most "
        f"{difference:.2g}",
    ]


def _config(trunk: Trunk) -> dict[str, Any]:
    """Make transformers' config of a model."""
    vit, (model_type, name) = trunk.arguments, _MODELS[trunk.family]
    gated, width, hidden = vit.get("mlp") == "swiglu", vit["embed_dim"], vit["mlp_dim"]
    config: dict[str, Any] = {
        "model_type": model_type,
        "architectures": [name],
        "image_size": vit["img_size"],
        "patch_size": vit["patch_size"],
        "hidden_size": width,
        "num_hidden_layers": vit["depth"],
        "num_attention_heads": vit["num_heads"],
        "layer_norm_eps": vit.get("norm_eps", 1e-6),
    }
    if trunk.family == "siglip2":
        return config | {"intermediate_size": hidden, "vision_use_head": False}
    if "num_registers" in vit:
        config["num_register_tokens"] = vit["num_registers"]
    if trunk.family == "dinov3":
        biased = vit["qkv_bias"] != "none"
        more = {"use_gated_mlp": gated, "hidden_act": "silu" if gated else "gelu"}
        return (
            config
            | more
            | {"intermediate_size": hidden}
            | dict.fromkeys(("query_bias", "value_bias"), biased)
        )
    ratio = (hidden * 3 / 2 if gated else hidden) / width  # of a gated MLP it takes two thirds
    return config | {"mlp_ratio": round(ratio), "use_swiglu_ffn": gated}


@torch.no_grad()
def _compare(folder: Path, trunk_weights: Weights, side: int) -> float:
    """Build the model by transformers and by this toolkit; return the difference of outputs."""
    from transformers import AutoModel  # not for what only reads a folder
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    model, info = AutoModel.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, local_files_only=True
    )
    unfit = [name for kind in ("missing_keys", "unexpected_keys") for name in info[kind]]
    if unfit:
        raise ValueError(f"transformers' model does not fit: {list_names(unfit, 4)}")
    outputs: Tensor = model.eval()(images).last_hidden_state  # (B, P + N, C)
    return require_close(outputs, load_vit(trunk_weights)(images), "transformers")
