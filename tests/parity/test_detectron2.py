"""Live parity with detectron2's own ViT and simple feature pyramid."""

from functools import partial

import pytest
import torch
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.vit import SimpleFeaturePyramid, ViT
from torch import nn

DEPTH, WIDTH = 4, 32
TOLERANCE = {"atol": 2e-5, "rtol": 1e-4}


@pytest.fixture(params=["qv", "qkv"])
def pair(request, make_detector):
    """Our backbone and detectron2's with the same weights; the bias in both of its forms."""
    ours = make_detector(depth=DEPTH, global_attn_indexes=(1, 3), qkv_bias=request.param)
    net = ViT(
        img_size=96,
        patch_size=16,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=2,
        mlp_ratio=48 / WIDTH,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=4,
        window_block_indexes=(0, 2),
        pretrain_img_size=64,
    )
    theirs = SimpleFeaturePyramid(
        net,
        in_feature="last_feat",
        out_channels=24,
        scale_factors=(4.0, 2.0, 1.0, 0.5),
        top_block=LastLevelMaxPool(),
        square_pad=0,
    )
    theirs.load_state_dict(_with_qkv_bias(ours.state_dict()), strict=True)
    return ours, theirs.eval()


def _with_qkv_bias(tensors):
    """Our names -> detectron2's; the gradient of a bias that we do not have is zero."""
    mapped = {}
    for name, value in tensors.items():
        if name.endswith(".q_bias"):
            v_bias = tensors[name.replace("q_bias", "v_bias")]
            joined = torch.cat([value, torch.zeros_like(value), v_bias])
            mapped[name.replace("q_bias", "qkv.bias")] = joined
        elif not name.endswith(".v_bias"):
            mapped[name] = value
    return mapped


# as made; larger, not square, no multiple of the window; smaller
@pytest.mark.parametrize("size", [(96, 96), (128, 80), (48, 144)])
def test_forward(pair, size):
    ours, theirs = pair
    images = torch.randn(2, 3, *size)
    expected = theirs(images)
    assert list(expected) == ["p2", "p3", "p4", "p5", "p6"]
    for actual, level in zip(ours(images), expected.values(), strict=True):
        assert level.std() > 0.1
        torch.testing.assert_close(actual, level, **TOLERANCE)


def test_gradients(pair, assert_same_gradients):
    ours, theirs = pair
    images = torch.randn(1, 3, 128, 80)
    weights = [torch.randn_like(level) for level in ours(images)]
    for levels in (ours(images), theirs(images).values()):
        torch.autograd.backward(list(levels), weights)
    mine = {name: p.grad for name, p in ours.named_parameters()}
    assert_same_gradients(
        _with_qkv_bias(mine), {name: p.grad for name, p in theirs.named_parameters()}
    )
