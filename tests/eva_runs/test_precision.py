"""A warning of bf16 on CPUs without instructions for it."""

import pytest
import torch

from eva_runs import precision


@pytest.mark.parametrize(
    ("half", "device", "warns"), [(18, "cpu", True), (110, "cpu", False), (18, "cuda", False)]
)
def test_slow_bf16_is_warned_of_with_both_rates(monkeypatch, caplog, half, device, warns):
    rates = {torch.bfloat16: half, torch.float32: 113}
    monkeypatch.setattr(precision, "rate_of", rates.__getitem__)
    precision.warn_of_slow_bf16(torch.device(device))
    assert ("18 GF/s" in caplog.text and "113" in caplog.text) == warns


def test_the_probe_measures_and_draws_no_random_number():
    before = torch.get_rng_state()
    assert 0.1 < precision.rate_of(torch.float32) < 1e5
    assert torch.get_rng_state().equal(before)
