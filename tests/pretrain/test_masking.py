"""Block-wise masks as a distribution, what the sampler refuses, and the positions of a mask."""

import random

import numpy as np
import pytest

from eva_pretrain.masked_image_modeling import BlockMasking


def _draw(count, **options):
    random.seed(0)
    masking = BlockMasking(**options)
    return np.stack([masking() for _ in range(count)])


def test_the_distribution_of_the_official_sampler():
    """Its simulation: counts 104.44 +- 1.05, at least 94, 65 % full, 99.4 % with 100 or more;
    a corner is masked in 4 %, the centre in about 74 % of the masks. Tolerances are four standard
    errors of 3000 draws, plus the last digit that was noted down."""
    masks = _draw(3000)
    assert masks.shape == (3000, 16, 16)
    assert masks.dtype == np.bool_
    counts = masks.sum((1, 2))
    assert counts.max() == 105
    assert counts.min() >= 92  # 94 among 6000: a rare one may be lower
    assert counts.mean() == pytest.approx(104.44, abs=4 * 1.05 / 3000**0.5 + 0.005)
    assert counts.std() == pytest.approx(1.05, abs=0.15)  # a heavy tail
    assert (counts == 105).mean() == pytest.approx(0.65, abs=4 * 0.48 / 3000**0.5 + 0.005)
    assert (counts >= 100).mean() == pytest.approx(0.994, abs=4 * 0.077 / 3000**0.5 + 0.0005)
    rate = masks.mean(0)
    for corner in (rate[0, 0], rate[0, -1], rate[-1, 0], rate[-1, -1]):
        assert corner == pytest.approx(0.04, abs=4 * 0.2 / 3000**0.5 + 0.005)
    assert rate[7:9, 7:9].mean() == pytest.approx(0.745, abs=4 * 0.44 / 3000**0.5 + 0.005)
    symmetric = 4 * 0.5 * (2 / 3000) ** 0.5  # of two rates
    assert np.abs(rate - rate.T).max() < symmetric
    assert np.abs(rate - rate[::-1]).max() < symmetric
