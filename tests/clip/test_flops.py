"""Model FLOPs of EVA-CLIP, by the sizes of its matrices and beside open_clip's published table."""

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from eva_contrastive.model.eva_clip import build_eva_clip
from eva_engine.config import VitConfig
from eva_engine.steps.flops import forward_flops, image_input, training_flops

PUBLISHED = (534e9, 13e9)  # EVA01-g-14 in open_clip's docs/model_profile.csv, a sum counted as one


@dataclass(frozen=True, kw_only=True)
class Sizes(VitConfig):
    """What the model is built from here."""

    patch_dropout: float = 0.0
    locked: str = ""


def tokens(length):
    return torch.zeros(1, length, dtype=torch.int64, device="meta")


def build(config, **options):
    options |= {"drop_path_rate": config.drop_path_rate, "patch_dropout": config.patch_dropout}
    model = build_eva_clip(config.variant, "debug", embed_dim=64, img_size=48, **options)
    if config.locked:
        getattr(model, config.locked).requires_grad_(False)
    return model


def of_blocks(count, width, mlp, depth):
    """Multiplications of transformer blocks on `count` tokens."""
    return depth * (count * (4 * width**2 + 2 * width * mlp) + 2 * count**2 * width)


def test_the_published_sizes():
    """Both towers; the last block of the vision tower computes for the class token alone."""
    width, mlp, length = 1408, 6144, 77
    patches = 256 * 3 * 14 * 14 * width
    vision = patches + of_blocks(257, width, mlp, 40) + width * 1024
    text = of_blocks(length, 768, 3072, 12) + 768 * 1024
    assert 2 * vision == pytest.approx(PUBLISHED[0], rel=2e-3)
    assert 2 * text == pytest.approx(PUBLISHED[1], rel=3e-2)  # they are rounded
    # scores, projection and MLP of 256 tokens less
    unread = 256 * (width**2 + 2 * 257 * width + 2 * width * mlp)
    found = forward_flops(build_eva_clip, image_input(224), tokens(length))
    assert found == 2 * (vision - unread + text)
    assert 1 - found / (2 * (vision + text)) == pytest.approx(0.0186, rel=1e-2)


def test_open_clip_computes_the_last_block_for_all_tokens():
    import open_clip

    with torch.device("meta"):
        peer = open_clip.create_model("EVA01-g-14", pretrained=None, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        peer(image_input(224), tokens(77))
    width, mlp = 1408, 6144
    vision = 256 * 3 * 14 * 14 * width + of_blocks(257, width, mlp, 40) + width * 1024
    text = of_blocks(77, 768, 3072, 12) + 768 * 1024
    assert counter.get_total_flops() == 2 * (vision + text)


def test_a_training_step():
    config = Sizes(variant="eva_debug", drop_path_rate=0.5)
    inputs = [image_input(48), tokens(32)]
    forward = forward_flops(partial(build, config), *inputs)
    assert training_flops(build, config, inputs=inputs) == 3 * forward
