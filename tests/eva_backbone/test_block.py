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
