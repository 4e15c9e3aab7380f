"""ClippedAdamW: AdamW after clipping the global norm, under a loss scaler too."""

import math

import pytest
import torch
from torch import nn

from eva_detection.optimizer import ClippedAdamW

ADAMW = {"lr": 0.1, "weight_decay": 0.05, "betas": (0.9, 0.999)}


def _groups(seed=0):
    """Two parameters of two groups, with gradients of global norm 5."""
    torch.manual_seed(seed)
    first, second = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(2, 2))
    first.grad = torch.tensor([3.0, 0.0, 0.0])
    second.grad = torch.tensor([[0.0, 4.0], [0.0, 0.0]])
    return [{"params": [first]}, {"params": [second], "lr": 0.01}]


def _parameters(optimizer):
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _assert_equal(optimizer, other):
    for mine, theirs in zip(_parameters(optimizer), _parameters(other), strict=True):
        torch.testing.assert_close(mine, theirs, atol=0, rtol=0)


def test_equals_adamw_when_the_norm_is_below():
    clipped = ClippedAdamW(_groups(), max_grad_norm=5.1, **ADAMW)
    plain = torch.optim.AdamW(_groups(), **ADAMW)
    before = _parameters(plain)[0].detach().clone()
    for optimizer in (clipped, plain):
        optimizer.step()
    _assert_equal(clipped, plain)
    assert not torch.equal(_parameters(plain)[0], before)
    assert clipped.last_grad_norm.item() == pytest.approx(5.0)


def test_clips_the_norm_over_all_groups():
    clipped = ClippedAdamW(_groups(), max_grad_norm=0.5, **ADAMW)
    clipped.step()
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in _parameters(clipped)))
    assert norm == pytest.approx(0.5, rel=1e-4)
    assert clipped.last_grad_norm.item() == pytest.approx(5.0)
    first, second = _parameters(clipped)
    assert first.grad[0].item() / second.grad[0, 1].item() == pytest.approx(3 / 4)


def test_gradients_that_are_not_finite_change_nothing():
    clipped = ClippedAdamW(_groups(), max_grad_norm=1.0, **ADAMW)
    before = [parameter.detach().clone() for parameter in _parameters(clipped)]
    _parameters(clipped)[0].grad[1] = float("nan")
    with pytest.raises(RuntimeError, match="non-finite"):
        clipped.step()
    for parameter, kept in zip(_parameters(clipped), before, strict=True):
        assert torch.equal(parameter, kept)
