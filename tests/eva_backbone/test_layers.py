"""The small layers, and stochastic depth as a distribution."""

import math

import pytest
import torch
from detectron2.modeling.backbone import utils as detectron2_windows

from eva_backbone.layers import (
    Mlp,
    StochasticDepth,
    window_partition,
    window_unpartition,
)


def _train(rate):
    return StochasticDepth(rate).train()


def _kept_rows(rate, *, batch, draws):
    """(draws, batch) bool: which samples a layer kept; the branch returns ones."""
    layer, x = _train(rate), torch.zeros(batch, 1)
    return torch.stack([layer(x, torch.ones_like)[:, 0] > 0 for _ in range(draws)])


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 5), (4, 3)])
def test_windows_are_those_of_detectron2(size):
    x = torch.randn(2, *size, 3)
    windows, padded = window_partition(x, 4)
    expected, expected_padded = detectron2_windows.window_partition(x, 4)
    assert torch.equal(windows, expected)
    assert padded == expected_padded
    assert torch.equal(window_unpartition(windows, 4, padded, size), x)


# Stochastic depth. Tolerances are four standard errors under a fixed seed.


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.6])
def test_the_expectation_is_the_full_branch(rate):
    """As per-sample drop path: mean x + branch(x), variance branch(x)^2 rate / (1 - rate)."""
    layer, x, draws = _train(rate), torch.randn(4, 2, dtype=torch.float64), 4000
    outs = torch.stack([layer(x, torch.cos) for _ in range(draws)])
    standard_error = torch.cos(x).abs() * math.sqrt(rate / (1 - rate) / draws)
    assert ((outs.mean(0) - (x + torch.cos(x))).abs() < 4 * standard_error).all()
    variance = torch.cos(x) ** 2 * rate / (1 - rate)
    torch.testing.assert_close(outs.var(0), variance, atol=0, rtol=0.15)


def test_the_kept_count_is_binomial_and_samples_are_independent():
    """Unlike a subset of fixed size, whose count does not vary."""
    batch, rate, draws = 16, 0.3, 4000
    kept = _kept_rows(rate, batch=batch, draws=draws)
    probability = 1 - rate
    variance = batch * probability * rate
    counts = kept.sum(1).double()
    assert abs(counts.mean() - batch * probability) < 4 * math.sqrt(variance / draws)
    assert counts.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / draws))
    observed = torch.bincount(counts.long(), minlength=batch + 1) / draws
    for k in range(batch + 1):
        expected = math.comb(batch, k) * probability**k * rate ** (batch - k)
        error = math.sqrt(expected * (1 - expected) / draws)
        assert abs(observed[k].item() - expected) < 4 * error + 1 / draws
    each = kept.double().mean(0)  # every position of the batch alike
    assert ((each - probability).abs() < 4 * math.sqrt(probability * rate / draws)).all()
    correlation = torch.corrcoef(kept.double().t()) - torch.eye(batch)
    assert correlation.abs().max() < 5 / math.sqrt(draws)  # the largest of 120


def test_gradients_of_zero_arrive_in_the_order_of_others_when_all_are_dropped(randomise):
    """By it ZeRO-2 lays out its buckets, which are added up over processes."""
    branch, orders, x = randomise(Mlp(6, hidden_dim=9)), [], torch.randn(2, 6)
    for rate in (0.1, 1 - 1e-9):
        order = []
        hooks = [
            one.register_post_accumulate_grad_hook(lambda _, name=name, to=order: to.append(name))
            for name, one in branch.named_parameters()
        ]
        branch.zero_grad()
        out = _train(rate)(x, branch)
        out.sum().backward()
        orders.append(order)
        for hook in hooks:
            hook.remove()
    assert orders[0] == orders[1]
    assert len(orders[1]) == 4
    assert torch.equal(out, x)
    assert not any(one.grad.any() for one in branch.parameters())
