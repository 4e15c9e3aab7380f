"""The attention modules: the forms of the bias, BEiT's table, the patch grid."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from eva_backbone.attention import Attention, DecomposedRelPosAttention, TableRelPosAttention
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


def test_against_the_definition(randomise):
    module = randomise(Attention(DIM, num_heads=HEADS, qkv_bias="qv"))
    x = torch.randn(3, 11, DIM)
    torch.testing.assert_close(module(x), _dense(module, x), atol=1e-5, rtol=1e-5)


def test_one_bias_or_two(randomise):
    """A key bias cannot change a softmax, so "qkv" with any key part equals "qv"."""
    two = randomise(Attention(DIM, num_heads=HEADS, qkv_bias="qv"))
    one = randomise(Attention(DIM, num_heads=HEADS, qkv_bias="qkv"))
    state = two.state_dict()
    q_bias, v_bias = state.pop("q_bias"), state.pop("v_bias")
    state["qkv.bias"] = torch.cat([q_bias, torch.randn(DIM), v_bias])
    one.load_state_dict(state, strict=True)
    x = torch.randn(2, 9, DIM)
    torch.testing.assert_close(one(x), two(x), atol=1e-5, rtol=1e-5)


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


def test_the_table_reaches_the_class_token(randomise):
    """Its last three rows: class -> patch, patch -> class, class -> class."""
    module = randomise(TableRelPosAttention(DIM, num_heads=HEADS, qkv_bias="qv", window=2))
    x = torch.randn(1, 5, DIM)
    before = module(x, (2, 2))
    with torch.no_grad():
        module.relative_position_bias_table[-3] += 5.0  # only queries of the class token
    changed = (module(x, (2, 2)) - before).abs().amax(-1)[0] > 1e-4
    assert changed.tolist() == [True, False, False, False, False]


@pytest.mark.parametrize("grid", [(6, 6), (4, 9)])
def test_fused_kernel_serves_the_appended_channels(randomise, grid):
    """No fallback to the materialising "math" kernel: it is switched off here."""
    module = DecomposedRelPosAttention(
        DIM, num_heads=HEADS, qkv_bias="qv", size=(6, 6), interpolation="vitdet"
    )
    randomise(module)
    x = torch.randn(2, grid[0] * grid[1], DIM)
    expected = module(x, grid)
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
        torch.testing.assert_close(module(x, grid), expected)


def test_zero_tables_change_nothing(randomise):
    plain = randomise(Attention(DIM, num_heads=HEADS, qkv_bias="qv"))
    relative = DecomposedRelPosAttention(
        DIM, num_heads=HEADS, qkv_bias="qv", size=(4, 4), interpolation="vitdet"
    )
    assert relative.rel_pos_h.abs().max() == relative.rel_pos_w.abs().max() == 0
    relative.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(2, 16, DIM)
    torch.testing.assert_close(relative(x, (4, 4)), plain(x), atol=1e-5, rtol=1e-5)


def test_rows_and_columns_are_not_exchanged(randomise):
    """On a map whose rows are all alike, only the column table can distinguish tokens."""
    module = DecomposedRelPosAttention(
        DIM, num_heads=HEADS, qkv_bias="qv", size=(3, 5), interpolation="vitdet"
    )
    randomise(module)
    x = torch.randn(1, 1, 5, DIM).expand(1, 3, 5, DIM).flatten(1, 2)
    with torch.no_grad():
        module.rel_pos_h.zero_()
    rows = module(x, (3, 5)).unflatten(1, (3, 5))
    torch.testing.assert_close(rows, rows[:, :1].expand_as(rows), atol=1e-5, rtol=1e-5)
    assert module.rel_pos_h.shape[0] == 5
    assert module.rel_pos_w.shape[0] == 9


def test_errors(randomise):
    with pytest.raises(ValueError, match="embed_dim 16 is not divisible by num_heads 3"):
        Attention(16, num_heads=3, qkv_bias="qv")
    with pytest.raises(ValueError, match="qkv_bias must be 'qv' or 'qkv', got True"):
        Attention(16, num_heads=2, qkv_bias=True)
    module = randomise(TableRelPosAttention(DIM, num_heads=HEADS, qkv_bias="qv", window=2))
    x = torch.randn(1, 5, DIM)
    with pytest.raises(ValueError, match="needs the patch grid"):
        module(x)
    with pytest.raises(ValueError, match=r"2x3 patches and 1 class token.* does not make 5 tokens"):
        module(x, (2, 3))
