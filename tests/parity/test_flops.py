"""Attention in counts of operators: fvcore's, detectron2's, mmengine's and PyTorch's own."""

import importlib
from functools import partial

import fvcore.nn
import pytest
import torch
from detectron2.modeling.backbone.vit import ViT
from detectron2.utils.analysis import flop_count_operators
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from eva_backbone.recording import OPERATORS
from eva_backbone.rel_pos import axis_embeddings, decomposed_attention
from eva_detection.model.backbone import count_attention

ATTENTION = "scaled_dot_product_attention"
# depth 4, width 32, two heads; windows of 4 x 4 in blocks 0 and 2, the map has 8 x 6 patches
VIT = {"img_size": 96, "patch_size": 16, "embed_dim": 32, "depth": 4, "num_heads": 2}
WINDOWS = {"window_size": 4, "pretrain_img_size": 64}
IMAGES = (1, 3, 128, 96)
pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")


class _Map(nn.Module):
    def __init__(self, vit):
        super().__init__()
        self.vit = vit

    def forward(self, images):
        return self.vit.forward_feature_map(images)


def _fvcore(model, *inputs):
    return fvcore.nn.FlopCountAnalysis(model, inputs).unsupported_ops_warnings(False)


@pytest.fixture
def ours(make_vit):
    more = {"extra_tokens": (), "final_norm": False, "global_attn_indexes": (1, 3), "mlp_dim": 48}
    return _Map(make_vit(**VIT | WINDOWS | more, rel_pos="vitdet"))


def test_the_same_numbers_as_detectron2s_vit(ours):
    count_attention()
    theirs = ViT(
        **VIT | WINDOWS,
        mlp_ratio=48 / 32,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_block_indexes=(0, 2),
    ).eval()
    images = torch.randn(IMAGES)
    found, expected = (_fvcore(model, images) for model in (ours, theirs))
    assert found.total() == expected.total()
    assert found.by_operator()[ATTENTION] == expected.by_operator()["matmul"]
    # two blocks in 4 windows of 16 tokens, two over 48: scores and sums of two heads of 16
    assert found.by_operator()[ATTENTION] == 2 * 2 * 2 * 16 * (4 * 16**2 + 48**2)
    # PyTorch's counter sees what a CPU computes; it counts additions too, and no norms
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ours(images)
    matrices = found.total() - found.by_operator()["layer_norm"]
    assert counter.get_total_flops() / 2 == pytest.approx(matrices, rel=1e-4)


@pytest.mark.parametrize("settings", [{}, {"rel_pos": "table"}])
def test_class_tokens_count(settings, make_vit):
    model = _Map(make_vit(**VIT, mlp_dim=48, **settings))
    found = _fvcore(model, torch.randn(IMAGES)).set_op_handle(**OPERATORS)
    assert found.by_operator()[ATTENTION] == 4 * 2 * 2 * 16 * 49**2


def test_a_longer_head_than_its_values():
    """Appended channels do not count, whether they need to be filled up or not."""

    class Attention(nn.Module):
        def forward(self, q, k, v, table):
            rel = axis_embeddings(table, 4, "vitdet")
            return decomposed_attention(q, k, v, rel, rel)

    for dim in (8, 7, 16):
        inputs = (*torch.randn(3, 2, 3, 16, dim), torch.randn(7, dim))
        found = _fvcore(Attention(), *inputs).set_op_handle(**OPERATORS)
        assert found.by_operator()[ATTENTION] == 2 * 2 * 3 * 16 * 16 * dim


def test_detectron2s_counter_of_a_detector(make_detector):
    """`analyze_model.py --tasks flop` calls this; the backbone's module has registered it."""
    importlib.import_module("eva_detection.model.backbone")
    detector = make_detector(depth=4, global_attn_indexes=(1, 3))
    counts = flop_count_operators(_Listed(detector), [torch.randn(IMAGES)])
    assert counts[ATTENTION] > 0


class _Listed(nn.Module):
    def __init__(self, detector):
        super().__init__()
        self.detector = detector

    def forward(self, batch):
        return list(self.detector(batch[0]))


def test_mmengines_counter(ours):
    analysis = pytest.importorskip("mmengine.analysis")
    images = torch.randn(IMAGES)
    found = analysis.FlopAnalyzer(ours, (images,)).unsupported_ops_warnings(False)
    found.set_op_handle(**OPERATORS)
    count_attention()
    assert found.by_operator()[ATTENTION] == _fvcore(ours, images).by_operator()[ATTENTION]
