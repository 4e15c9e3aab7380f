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

from eva_contrastive.model.eva_clip import EvaClip, TextTower, VisionTower

STOCK, PATCH, LENGTH, WORDS = "EVA01-g-14", 14, 77, 49408
_COMPLETE = {"width": 1408, "depth": 40, "heads": 16, "mlp": 6144, "image_size": 224,
             "embed_dim": 1024, "text_width": 768, "text_depth": 12, "text_heads": 12}  # fmt: skip
SIZES = {  # EVA-CLIP-g, its first blocks for a CPU, and sizes for a trial
    "complete": _COMPLETE,
    "slice": _COMPLETE | {"depth": 2, "text_depth": 1},
    "trial": {"width": 32, "depth": 2, "heads": 2, "mlp": 48, "image_size": 56, "embed_dim": 16,
              "text_width": 16, "text_depth": 1, "text_heads": 2},
}  # fmt: skip
_PEER_SIZES: dict[str, Any] = {}  # where the peer is not the stock model

Pairs = tuple[Tensor, Tensor]


def parser_of_towers(description: str | None, *, batch: int) -> argparse.ArgumentParser:
    """Make a command line with the sizes of both towers."""
    parser = new_parser(description, rounds=3, batch=batch)
    parser.add_argument("--size", choices=SIZES, default="slice", help="complete is EVA-CLIP-g")
    add_precision(parser)
    return parser


def build_ours(size: str, *, checkpoints: bool = False, patch_dropout: float = 0.0) -> EvaClip:
    """The toolkit's model."""
    of = argparse.Namespace(**SIZES[size])
    visual = VisionTower(
        output_dim=of.embed_dim, patch_dropout=patch_dropout, img_size=of.image_size,
        patch_size=PATCH, embed_dim=of.width, depth=of.depth, num_heads=of.heads,
        mlp_dim=of.mlp, activation_checkpointing=checkpoints,
    )  # fmt: skip
    text = TextTower(
        output_dim=of.embed_dim, context_length=LENGTH, vocab_size=WORDS,
        width=of.text_width, depth=of.text_depth, num_heads=of.text_heads,
    )  # fmt: skip
    text.set_grad_checkpointing(checkpoints)
    return EvaClip(visual, text)


@timm.models.register_model
def eva_slice(**options: Any) -> nn.Module:
    """Timm's stock entry with other sizes; a name for open_clip's config."""
    model: nn.Module = timm_eva.eva_giant_patch14_224(**_PEER_SIZES | options)
    return model


def build_peer(size: str, *, checkpoints: bool = False, patch_dropout: float = 0.0) -> nn.Module:
    """open_clip's stock model, or one like it with other sizes."""
    of = argparse.Namespace(**SIZES[size])
    config = open_clip.get_model_config(STOCK)
    vision, text = config["vision_cfg"], config["text_cfg"]
    vision["patch_dropout"] = patch_dropout
    if size != "complete":
        _PEER_SIZES.update(
            img_size=of.image_size, embed_dim=of.width, depth=of.depth, num_heads=of.heads,
            mlp_ratio=(of.mlp + 0.5) / of.width,  # timm rounds the product down
        )  # fmt: skip
        vision |= {"timm_model_name": "eva_slice", "image_size": of.image_size}
        text |= {"width": of.text_width, "heads": of.text_heads, "layers": of.text_depth}
    model: Any = open_clip.CustomTextCLIP(of.embed_dim, vision, text, output_dict=True)
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
    side = SIZES[size]["image_size"]
    images = torch.randn(pairs, 3, side, side)
    tokens = torch.randint(1, WORDS - 1, (pairs, LENGTH))
    ends = torch.randint(8, 60, (pairs, 1))
    place = torch.arange(LENGTH)
    tokens = torch.where(place == ends, WORDS - 1, tokens)  # its largest number ends a text
    return images, torch.where(place > ends, 0, tokens)
