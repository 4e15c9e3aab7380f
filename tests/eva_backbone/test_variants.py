"""The table of sizes, against the parameter counts that the official logs print."""

import pytest
import torch

import eva_backbone
from eva_backbone import SimpleFeaturePyramid


@pytest.fixture(autouse=True)
def _meta():
    with torch.device("meta"):
        yield


def test_detector(count):
    """ViTDet with EVA-g at 1280 px: ViT and pyramid of the official COCO model."""
    model = eva_backbone.eva_g_patch16(
        img_size=1280,
        pretrain_img_size=224,
        window_size=16,
        global_attn_indexes=range(3, 40, 4),
        rel_pos="vitdet",
        extra_tokens=(),
        final_norm=False,
    )
    assert count(model) == 1_011_754_368
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert shapes["pos_embed"] == (1, 197, 1408)
    assert shapes["blocks.2.attn.rel_pos_h"] == (31, 88)
    assert shapes["blocks.3.attn.rel_pos_w"] == (159, 88)
    assert count(SimpleFeaturePyramid(in_channels=1408)) == 12_278_880
