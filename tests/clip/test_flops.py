"""Model FLOPs of EVA-CLIP, by the sizes of its matrices and beside open_clip's published table."""

import pytest
import torch

from eva_contrastive.model.eva_clip import build_eva_clip
from eva_engine.flops import forward_flops, image_input

PUBLISHED = (534e9, 13e9)  # EVA01-g-14 in open_clip's docs/model_profile.csv, a sum counted as one


def tokens(length):
    return torch.zeros(1, length, dtype=torch.int64, device="meta")


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
