"""Our CLIP and open_clip's `EVA01-g-14` with the same sizes and weights, for other programs here.

The peer is open_clip's model through timm.

Letters: B pairs.
"""

import argparse
from typing import Any

import open_clip
import timm
import torch
from measuring import add_precision, new_parser
from timm.models import eva as timm_eva
from torch import Tensor, nn

from eva_contrastive.model.eva_clip import EvaClip, build_eva_clip

STOCK, LENGTH, WORDS = "EVA01-g-14", 77, 49408
SIZES: dict[str, dict[str, Any]] = {  # EVA-CLIP-g, its first blocks for a CPU, and a trial
    "complete": {},
    "slice": {"depth": 2, "text_overrides": {"depth": 1}},
    "trial": {"vision": "eva_debug", "patch_size": 14, "img_size": 56, "depth": 2, "embed_dim": 16,
              "text_overrides": {"width": 16, "depth": 1, "num_heads": 2}},
}  # fmt: skip
_PEER_SIZES: dict[str, Any] = {}  # where the peer is not the stock model

Pairs = tuple[Tensor, Tensor]


def parser_of_towers(description: str | None, *, batch: int) -> argparse.ArgumentParser:
    """Make a command line with the sizes of both towers."""
    parser = new_parser(description, rounds=3, batch=batch)
    parser.add_argument("--size", choices=SIZES, default="slice", help="complete is EVA-CLIP-g")
    add_precision(parser)
    return parser


def image_size(size: str) -> int:
    """Side of the images of a size, in pixels."""
    return int(SIZES[size].get("img_size", 224))


def build_ours(size: str, *, checkpoints: bool = False, patch_dropout: float = 0.0) -> EvaClip:
    """The toolkit's model."""
    options = SIZES[size] | {"patch_dropout": patch_dropout}
    model = build_eva_clip(**options, activation_checkpointing=checkpoints)
    model.text.set_grad_checkpointing(checkpoints)
    return model


@timm.models.register_model
def eva_slice(**options: Any) -> nn.Module:
    """Timm's stock entry with other sizes; a name for open_clip's config."""
    model: nn.Module = timm_eva.eva_giant_patch14_224(**_PEER_SIZES | options)
    return model


def build_peer(size: str, *, checkpoints: bool = False, patch_dropout: float = 0.0) -> nn.Module:
    """open_clip's stock model, or one like it with other sizes."""
    config = open_clip.get_model_config(STOCK)
    vision, text = config["vision_cfg"], config["text_cfg"]
    vision["patch_dropout"] = patch_dropout
    if size != "complete":
        with torch.device("meta"):
            ours: Any = build_ours(size)
        visual, width = ours.visual, ours.visual.embed_dim
        _PEER_SIZES.update(
            img_size=visual.img_size, embed_dim=width, depth=visual.depth,
            num_heads=visual.num_heads,
            # timm rounds the product down
            mlp_ratio=(visual.blocks[0].mlp.fc1.out_features + 0.5) / width,
        )  # fmt: skip
        vision |= {"timm_model_name": "eva_slice", "image_size": visual.img_size}
        text |= {"width": ours.text.width, "heads": ours.text.heads, "layers": ours.text.depth}
        config["embed_dim"] = ours.embed_dim
    model: Any = open_clip.CustomTextCLIP(config["embed_dim"], vision, text, output_dict=True)
    model.set_grad_checkpointing(checkpoints)
    return model


def peer_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our model's weights under open_clip's names."""
    found = {
        name.replace("visual.", "visual.trunk.", name.startswith("visual.")): value
        for name, value in weights.items()
    }
    found["logit_scale"] = found.pop("text.logit_scale").reshape(())
    return found


def make_batch(size: str, pairs: int) -> Pairs:
    """Noise, and texts of 8 to 60 random words."""
    images = torch.randn(pairs, 3, *[image_size(size)] * 2)
    tokens = torch.randint(1, WORDS - 1, (pairs, LENGTH))
    ends = torch.randint(8, 60, (pairs, 1))
    place = torch.arange(LENGTH)
    tokens = torch.where(place == ends, WORDS - 1, tokens)  # its largest number ends a text
    return images, torch.where(place > ends, 0, tokens)
