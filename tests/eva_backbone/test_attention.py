"""The attention modules: the forms of the bias, BEiT's table, the patch grid."""

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model

from eva_backbone.attention import Attention, TableRelPosAttention
from eva_backbone.rel_pos import table_bias_index
from eva_backbone.resample import resample_bias_table

DIM, HEADS = 16, 2


def _dense(module, x, bias=0.0):
    """Attention from its definition, with the complete map and an additive bias."""
    q_bias, v_bias = module.q_bias, module.v_bias
    q, k, v = x.matmul(module.qkv.weight.t()).chunk(3, dim=-1)
    q, v = q + q_bias, v + v_bias
    q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v))
    scores = q @ k.transpose(-1, -2) / (DIM // HEADS) ** 0.5 + bias
    out = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    return out @ module.proj.weight.t() + module.proj.bias


@pytest.mark.parametrize("grid", [(4, 4), (3, 6)])
def test_table_attention_against_the_definition(randomise, grid):
    """At the window that the table is made for, and resampled to another grid."""
    module = randomise(TableRelPosAttention(DIM, num_heads=HEADS, qkv_bias="qv", window=4))
    x = torch.randn(2, 1 + grid[0] * grid[1], DIM)
    table = resample_bias_table(module.relative_position_bias_table, 4, grid)
    bias = table[table_bias_index(grid, slice(0, x.shape[1]), x.device)].permute(2, 0, 1)
    expected = _dense(module, x, bias)
    actual = module(x, grid)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    table = module.relative_position_bias_table
    (mine,) = torch.autograd.grad(actual.square().sum(), table, retain_graph=True)
    (theirs,) = torch.autograd.grad(expected.square().sum(), table)
    scale = theirs.abs().max()
    torch.testing.assert_close(mine / scale, theirs / scale, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dora", [False, True])
def test_adapters_of_peft_change_nothing_at_first(randomise, dora):
    """At a width where a bias in the product and one added to it differ in the last bit."""
    dim = 384
    module = randomise(Attention(dim, num_heads=HEADS, qkv_bias="qv")).requires_grad_(False)
    x = torch.randn(2, 100, dim)
    expected = module(x)
    inject_adapter_in_model(LoraConfig(target_modules=["qkv"], use_dora=dora), module)
    if not dora:
        assert torch.equal(module(x), expected)
    assert (module(x) - expected).norm() < 1e-5 * expected.norm()
