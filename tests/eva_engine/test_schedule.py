"""The schedule against the learning rates in the official logs and its closed form."""

import numpy as np
import pytest

from eva_engine.steps.parameter_groups import warmup_cosine

# peak, end, warm-up epochs, epochs, steps per epoch, mean of the last epoch in the official log
LOGGED = {
    "pre-training": (1e-3, 1e-5, 2, 150, 7242, 1.0037180089047582e-05),
    "ImageNet-21K": (1e-4, 1e-6, 15, 60, 3466, 1.0402170980308123e-06),
    "ImageNet-1K, 336 px": (3e-5, 0.0, 2, 10, 2502, 3.827978328007433e-07),
    "ImageNet-1K, 560 px": (3e-5, 0.0, 2, 15, 2502, 1.4566145344469748e-07),
    "EVA-CLIP to ImageNet-1K": (3e-5, 0.0, 2, 20, 2502, 7.608399568101435e-08),
}


@pytest.mark.parametrize("name", LOGGED)
def test_mean_of_the_last_epoch_is_the_logged_one(name):
    peak, end, warmup, epochs, steps, logged = LOGGED[name]
    rates = [
        warmup_cosine(step, peak=peak, end=end, warmup_steps=warmup * steps,
                      total_steps=epochs * steps)
        for step in range((epochs - 1) * steps, epochs * steps)
    ]  # fmt: skip
    assert np.mean(rates) == pytest.approx(logged, rel=1e-12)


@pytest.mark.parametrize("warmup", [0, 1, 2, 7, 40])
def test_closed_form(warmup):
    rates = [
        warmup_cosine(step, peak=0.3, end=0.1, warmup_steps=warmup, total_steps=40)
        for step in range(40)
    ]
    rest = np.arange(40 - warmup)
    cosine = 0.1 + 0.5 * 0.2 * (1 + np.cos(np.pi * rest / max(1, 40 - warmup)))
    expected = np.concatenate([np.linspace(0, 0.3, warmup), cosine])
    np.testing.assert_allclose(rates, expected, rtol=1e-12, atol=1e-15)
