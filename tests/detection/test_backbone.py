"""EVAViTDet: official names, golden outputs, detectron2's own pyramid, and how it is built."""

from functools import partial
from pathlib import Path

import pytest
import torch
from detectron2.modeling.backbone import vit as stock
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from safetensors.torch import load_file
from torch import nn

from eva_backbone import VisionTransformer
from eva_detection.model.backbone import EVAViTDet

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
NET = {
    "img_size": 96,
    "patch_size": 16,
    "embed_dim": 32,
    "depth": 4,
    "num_heads": 2,
    "mlp_dim": 80,
    "pretrain_img_size": 64,
    "extra_tokens": (),
    "final_norm": False,
    "window_size": 4,
    "global_attn_indexes": (3,),
    "rel_pos": "vitdet",
}
LEVELS = ["p2", "p3", "p4", "p5", "p6"]


def _backbone(*, net=(), top_block=True, **options):
    return EVAViTDet(
        net=VisionTransformer(**NET | dict(net)),
        out_channels=24,
        top_block=LastLevelMaxPool() if top_block else None,
        **options,
    )


@pytest.mark.parametrize(
    ("name", "rel_pos"),
    [
        ("norelpos", "none"),
        ("relpos", "vitdet"),
        ("relpos_160", "vitdet"),
        ("relpos_interp_beit", "beit"),
        ("relpos_interp_beit_160", "beit"),
    ],
)
def test_golden_pyramid(name, rel_pos):
    tensors = load_file(GOLDEN / f"detection_{name}.safetensors")
    state = {k.removeprefix("state."): t for k, t in tensors.items() if k.startswith("state.")}
    backbone = _backbone(net={"rel_pos": rel_pos}).eval()
    backbone.load_state_dict(state, strict=True)
    levels = backbone(tensors["input.image"])
    assert list(levels) == LEVELS
    for level, actual in levels.items():
        expected = tensors[f"output.{level}"]
        assert expected.std() > 1e-2
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def _stock_state(tensors):
    """Our names to detectron2's: q_bias and v_bias with a key bias of zero between them."""
    mapped = {}
    for name, value in tensors.items():
        if name.endswith(".q_bias"):
            parts = [value, torch.zeros_like(value), tensors[name.replace("q_bias", "v_bias")]]
            mapped[name.replace("q_bias", "qkv.bias")] = torch.cat(parts)
        elif not name.endswith(".v_bias"):
            mapped[name] = value
    return mapped


def _stock_backbone():
    net = stock.ViT(
        img_size=96,
        patch_size=16,
        embed_dim=32,
        depth=4,
        num_heads=2,
        mlp_ratio=80 / 32,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=4,
        window_block_indexes=(0, 1, 2),
        pretrain_img_size=64,
    )
    return stock.SimpleFeaturePyramid(
        net,
        in_feature="last_feat",
        out_channels=24,
        scale_factors=(4.0, 2.0, 1.0, 0.5),
        top_block=LastLevelMaxPool(),
        square_pad=128,
    )


@pytest.mark.parametrize("size", [(96, 96), (128, 160)])
def test_parity_with_stock_pyramid(randomise, size):
    ours, theirs = randomise(_backbone(square_pad=128)), _stock_backbone()
    theirs.load_state_dict(_stock_state(ours.state_dict()), strict=True)
    images = torch.randn(2, 3, *size)
    mine, expected = ours(images), theirs(images)
    assert list(mine) == list(expected)
    for level, value in expected.items():
        assert value.std() > 0.1
        torch.testing.assert_close(mine[level], value, atol=2e-5, rtol=1e-4)

    weights = {level: torch.randn_like(value) for level, value in expected.items()}
    for levels in (mine, expected):
        sum((levels[level] * weight).sum() for level, weight in weights.items()).backward()
    gradients = _stock_state({name: p.grad for name, p in ours.named_parameters()})
    assert gradients.keys() == dict(theirs.named_parameters()).keys()
    for name, parameter in theirs.named_parameters():
        scale = parameter.grad.abs().max()
        assert scale > 1e-3, name
        torch.testing.assert_close(
            gradients[name] / scale, parameter.grad / scale, atol=2e-5, rtol=1e-4
        )
