"""`EVAViT`: the pyramid's coarse levels, and maps of chosen blocks as mmsegmentation's own ViT."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS, init_default_scope
from mmseg.registry import MODELS as OF_MMSEG

VIT = dict(type="EVAViT", img_size=32, patch_size=8, embed_dim=16, depth=3, num_heads=2, mlp_dim=24)


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope("mmseg")  # another test may have left mmdetection's


def _build(**changes):
    torch.manual_seed(0)
    return MODELS.build(VIT | changes).eval()


@pytest.mark.parametrize(
    "settings", [{}, {"rel_pos": "vitdet", "window_size": 2, "global_attn_indexes": (2,)}]
)
def test_maps_are_those_of_the_blocks(settings):
    model, images = _build(out_indices=(0, -1), **settings), torch.randn(2, 3, 32, 40)
    first, last = model(images)
    assert first.shape == last.shape == (2, 16, 4, 5)
    torch.testing.assert_close(last, model.net.forward_feature_map(images), rtol=0, atol=0)
    tokens, grid = model.net.embed(images)
    tokens = model.net.blocks[0](tokens, grid)[:, -20:]
    torch.testing.assert_close(first, tokens.mT.unflatten(2, grid), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:Default ..avg_non_ignore")
def test_necks_and_heads_for_plain_vits_take_the_maps():
    maps = _build(depth=4, out_indices=(0, 1, 2, 3))(torch.randn(1, 3, 32, 32))
    scales = [4, 2, 1, 0.5]
    for neck in (
        dict(type="MultiLevelNeck", in_channels=[16] * 4, out_channels=16, scales=scales),
        dict(type="Feature2Pyramid", embed_dim=16, rescales=scales, norm_cfg=dict(type="BN")),
    ):
        levels = OF_MMSEG.build(neck).eval()(maps)
        assert [level.shape[-1] for level in levels] == [16, 8, 4, 2]
    norm = dict(norm_cfg=dict(type="BN"), num_classes=3)
    setr = dict(type="SETRUPHead", in_channels=16, in_index=2, channels=8, num_convs=1, up_scale=2)
    assert OF_MMSEG.build(setr | norm).eval()(maps).shape == (1, 3, 8, 8)


def test_each_extra_level_is_a_pooled_one():
    """As `LastLevelMaxPool` in detectron2."""
    with torch.no_grad():
        *maps, p6, p7 = _build(extra_levels=2)(torch.rand(1, 3, 64, 96))
    assert [tuple(one.shape[-2:]) for one in maps] == [(32, 48), (16, 24), (8, 12), (4, 6)]
    assert torch.equal(p6, F.max_pool2d(maps[-1], kernel_size=1, stride=2))
    assert torch.equal(p7, F.max_pool2d(p6, kernel_size=1, stride=2))
