"""The coarse levels that region proposals are made from."""

import torch
import torch.nn.functional as F

from eva_openmmlab.backbone import EVAViT

SIZES = dict(img_size=64, embed_dim=32, depth=2, num_heads=2, mlp_dim=48, out_channels=8)


def test_each_extra_level_is_a_pooled_one():
    """As `LastLevelMaxPool` in detectron2."""
    model = EVAViT(**SIZES, extra_levels=2).eval()
    with torch.no_grad():
        *maps, p6, p7 = model(torch.rand(1, 3, 64, 96))
    assert [tuple(one.shape[-2:]) for one in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert torch.equal(p6, F.max_pool2d(maps[-1], kernel_size=1, stride=2))
    assert torch.equal(p7, F.max_pool2d(p6, kernel_size=1, stride=2))


def test_none_by_default():
    assert len(EVAViT(**SIZES)(torch.rand(1, 3, 64, 64))) == 4
