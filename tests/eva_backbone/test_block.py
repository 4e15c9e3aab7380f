"""The block: residual branches, layer scale, windows."""

import pytest
import torch

from eva_backbone.attention import Attention
from eva_backbone.block import Block

DIM = 16


def _block(randomise, **options):
    attention = Attention(DIM, num_heads=2, qkv_bias="qv")
    defaults = {"mlp_dim": 24, "window_size": 0, "layer_scale": None, "drop_path_rate": 0.0}
    return randomise(Block(DIM, attention=attention, **defaults | options))


@pytest.mark.parametrize("layer_scale", [None, 0.1])
def test_pre_norm_residuals(randomise, layer_scale):
    block = _block(randomise, layer_scale=layer_scale)
    one = torch.ones(DIM)
    gamma_1, gamma_2 = (one if gamma is None else gamma for gamma in (block.gamma_1, block.gamma_2))
    assert (block.gamma_1 is None) == (layer_scale is None)
    x = torch.randn(2, 6, DIM)
    middle = x + gamma_1 * block.attn(block.norm1(x))
    expected = middle + gamma_2 * block.mlp(block.norm2(middle))
    torch.testing.assert_close(block(x), expected)


def test_layer_scale_starts_at_its_value():
    attention = Attention(DIM, num_heads=2, qkv_bias="qv")
    options = {"mlp_dim": 24, "window_size": 0, "drop_path_rate": 0.0}
    block = Block(DIM, attention=attention, layer_scale=1e-5, **options)
    assert torch.equal(block.gamma_1, torch.full((DIM,), 1e-5))
    assert torch.equal(block.gamma_2, torch.full((DIM,), 1e-5))


def test_windows_do_not_see_each_other(randomise):
    """8 x 8 patches, windows of 4: a change of one patch stays in its window."""
    block = _block(randomise, window_size=4)
    x = torch.randn(1, 64, DIM)
    other = x.clone()
    other[0, 8 * 2 + 5] = torch.randn(DIM)  # row 2, column 5: the upper right window
    changed = (block(x, (8, 8)) - block(other, (8, 8))).abs().amax(-1) > 1e-6
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[:4, 4:] = True
    assert torch.equal(changed.unflatten(1, (8, 8))[0], expected)


def test_one_window_is_global_attention(randomise):
    block = _block(randomise, window_size=6)
    x = torch.randn(2, 36, DIM)
    windowed = block(x, (6, 6))
    block.window_size = 0
    torch.testing.assert_close(windowed, block(x))


@pytest.mark.parametrize("layer_scale", [None, 0.1])
def test_dropped_branches_still_give_every_parameter_a_gradient(randomise, layer_scale):
    """Distributed training rejects a parameter without one. Both branches drop everything here."""
    block = _block(randomise, layer_scale=layer_scale, drop_path_rate=1 - 1e-9).train()
    x = torch.randn(2, 6, DIM, requires_grad=True)
    out = block(x)
    assert torch.equal(out, x)
    out.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() == 0, name


def test_windows_need_the_grid(randomise):
    block = _block(randomise, window_size=4)
    for grid in (None, (8, 7)):
        with pytest.raises(ValueError, match="needs the patch grid of its 64 tokens, got"):
            block(torch.randn(1, 64, DIM), grid)
