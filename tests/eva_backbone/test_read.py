"""Blocks that compute only what somebody reads equal the complete computation."""

import pytest
import torch

from eva_backbone.attention import Attention
from eva_backbone.block import Block
from eva_backbone.layers import take_tokens

DIM = 16
READ = torch.tensor([[4, 0, 2], [1, 1, 5], [5, 3, 0], [2, 1, 0]])  # any order, repeats allowed


def _block(randomise, *, qkv_bias="qv", rate=0.0, **options):
    attention = Attention(DIM, num_heads=2, qkv_bias=qkv_bias)
    defaults = {"attention": attention, "mlp_dim": 24, "window_size": 0, "layer_scale": None}
    return randomise(Block(DIM, drop_path_rate=rate, **defaults | options))


def _values_and_gradients(block, x, read, *, seed):
    """Output at READ and all gradients, with the complete computation for `read=None`."""
    block.zero_grad()
    x = x.clone().requires_grad_()
    torch.manual_seed(seed)
    out = block(x, None, read)
    out = take_tokens(out, READ) if read is None else out
    (out * torch.linspace(-1, 2, out.numel()).view_as(out)).sum().backward()
    return [out.detach(), x.grad, *(parameter.grad for parameter in block.parameters())]


@pytest.mark.parametrize("rate", [0.0, 0.5, 1 - 1e-9])
@pytest.mark.parametrize("options", [{"qkv_bias": "qkv"}, {"layer_scale": 0.1}])
def test_read_equals_the_whole_block(randomise, rate, options):
    """Also with stochastic depth, which draws the same numbers; some, and all samples dropped."""
    block = _block(randomise, rate=rate, **options).train()
    x = torch.randn(4, 6, DIM)
    for seed in range(4):
        whole = _values_and_gradients(block, x, None, seed=seed)
        read = _values_and_gradients(block, x, READ, seed=seed)
        for actual, expected in zip(read, whole, strict=True):
            torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_only_the_last_block_that_runs_reads(make_vit):
    model = make_vit(depth=3)
    tokens, grid = model.embed(torch.randn(4, 3, 28, 42))
    whole = model.forward_tokens(tokens, grid)
    actual = model.forward_tokens(tokens, grid, read=READ)
    torch.testing.assert_close(actual, take_tokens(whole, READ), atol=1e-5, rtol=1e-5)
    middle = take_tokens(model.forward_tokens(tokens, grid, stop=2), READ)
    actual = model.forward_tokens(tokens, grid, stop=2, read=READ)
    torch.testing.assert_close(actual, middle, atol=1e-5, rtol=1e-5)
