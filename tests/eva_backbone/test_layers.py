"""The small layers, and stochastic depth as a distribution."""

import math

import pytest
import torch
from torch import nn

from eva_backbone.layers import ChannelLayerNorm, Linear, Mlp, PatchEmbed, StochasticDepth


def _train(rate):
    return StochasticDepth(rate).train()


def _kept_rows(rate, *, batch, draws):
    """(draws, batch) bool: which samples a layer kept; the branch returns ones."""
    layer, x = _train(rate), torch.zeros(batch, 1)
    return torch.stack([layer(x, torch.ones_like, list)[:, 0] > 0 for _ in range(draws)])


def test_patch_embed_is_a_linear_map_of_each_patch(randomise):
    layer = randomise(PatchEmbed(patch_size=4, embed_dim=6))
    images = torch.randn(2, 3, 8, 12)
    patch = images[1, :, 4:8, 8:12].flatten()
    expected = layer.proj.weight.flatten(1) @ patch + layer.proj.bias
    actual = layer(images)
    assert actual.shape == (2, 6, 2, 3)
    torch.testing.assert_close(actual[1, :, 1, 2], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 30, 28), r"30x28 is not divisible by the patch size 14; resize or pad to 42x28"),
        ((1, 3, 28, 0), r"28x0 is not divisible by the patch size 14; resize or pad to 28x14"),
        ((1, 4, 28, 28), r"shape \(batch, 3, height, width\), got \(1, 4, 28, 28\)"),
        ((3, 28, 28), r"shape \(batch, 3, height, width\), got \(3, 28, 28\)"),
    ],
)
def test_patch_embed_errors(shape, message):
    with pytest.raises(ValueError, match=message):
        PatchEmbed(patch_size=14, embed_dim=4)(torch.zeros(shape))


def test_mlp_uses_the_exact_gelu(randomise):
    layer = randomise(Mlp(6, hidden_dim=9))
    x = torch.randn(4, 6)
    hidden = layer.fc1(x)
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    torch.testing.assert_close(layer(x), layer.fc2(gelu), atol=1e-6, rtol=1e-6)


def test_channel_layer_norm_is_layer_norm_over_channels(randomise):
    layer, reference = randomise(ChannelLayerNorm(6)), nn.LayerNorm(6, eps=1e-6)
    reference.load_state_dict(layer.state_dict(), strict=True)
    x = torch.randn(2, 6, 3, 5)
    expected = reference(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(layer(x), expected, atol=1e-6, rtol=1e-6)


def test_linear_draws_no_random_numbers():
    """A billion of them would be thrown away when EVA-g is built."""
    before = torch.get_rng_state()
    Linear(8, 8)
    assert torch.equal(torch.get_rng_state(), before)


# Stochastic depth. Tolerances are four standard errors under a fixed seed.


def test_eval_and_rate_zero_are_plain_addition():
    x = torch.randn(5, 3)
    for layer in (StochasticDepth(0.5).eval(), _train(0.0)):
        assert torch.equal(layer(x, torch.sin, list), x + torch.sin(x))


def test_kept_rows_are_scaled_and_dropped_rows_untouched():
    x = torch.randn(64, 3)
    out = _train(0.25)(x, torch.sin, list)
    kept = (out != x).any(1)
    assert 0 < kept.sum() < 64
    assert torch.equal(out[~kept], x[~kept])
    torch.testing.assert_close(out[kept], (x + torch.sin(x) / 0.75)[kept])


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.6])
def test_the_expectation_is_the_full_branch(rate):
    """As per-sample drop path: mean x + branch(x), variance branch(x)^2 rate / (1 - rate)."""
    layer, x, draws = _train(rate), torch.randn(4, 2, dtype=torch.float64), 4000
    outs = torch.stack([layer(x, torch.cos, list) for _ in range(draws)])
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


@pytest.mark.parametrize("rate", [0.2, 0.6])
def test_dropped_samples_cost_nothing(rate):
    """The branch sees a share of about 1 - rate of the rows: that much work, and no more."""
    batch, draws, rows = 8, 1500, 0

    def branch(kept):
        nonlocal rows
        rows += len(kept)
        return kept

    layer, x = _train(rate), torch.ones(batch, 2)
    for _ in range(draws):
        layer(x, branch, list)
    error = math.sqrt(rate * (1 - rate) / (batch * draws))
    assert abs(rows / (batch * draws) - (1 - rate)) < 4 * error


def test_no_call_at_all_when_every_sample_is_dropped():
    weight, frozen = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3), requires_grad=False)
    x = torch.randn(2, 3, requires_grad=True)

    def branch(kept):
        raise AssertionError("the branch was computed")

    out = _train(1 - 1e-9)(x, branch, lambda: [weight, frozen])
    out.sum().backward()
    assert torch.equal(out, x)
    assert torch.equal(x.grad, torch.ones(2, 3))
    assert torch.equal(weight.grad, torch.zeros(3))
    assert frozen.grad is None
    weight.grad.add_(1.0)  # an ordinary tensor, not an expanded zero
    assert torch.equal(weight.grad, torch.ones(3))


def test_the_residual_keeps_its_dtype_under_autocast():
    linear, x = nn.Linear(4, 4), torch.randn(32, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x).dtype == torch.bfloat16
        assert _train(0.5)(x, linear, linear.parameters).dtype == torch.float32


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_rates_outside_are_refused(rate):
    with pytest.raises(ValueError, match=rf"drop path rate must be in \[0, 1\), got {rate}"):
        StochasticDepth(rate)
