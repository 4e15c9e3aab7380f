"""Resampling, against scipy's splines, detectron2 and plain `F.interpolate`."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling.backbone.utils import get_rel_pos
from scipy.interpolate import RectBivariateSpline, interp1d
from torch._subclasses import FakeTensorMode

from eva_backbone import resample
from eva_backbone.resample import (
    BEIT_RATIO,
    resample_bias_table,
    resample_patch_embed,
    resample_pos_embed,
    resample_rel_pos,
)


def _progression(ratio, count):
    """BEiT's positions, term by term: 1, 1 + q, 1 + q + q^2, ... and mirrored."""
    positions, current = [], 1.0
    for i in range(count):
        positions.append(current)
        current += ratio ** (i + 1)
    return np.array([-p for p in reversed(positions)] + [0.0] + positions)


def _beit_ratio(source, target):
    """BEiT's bisection for the ratio at which the progression reaches the target's edge."""
    left, right = 1.01, 1.5
    while right - left > 1e-6:
        q = (left + right) / 2.0
        reached = (1.0 - q ** (source // 2)) / (1.0 - q)
        if reached > target // 2:
            right = q
        else:
            left = q
    return q


def _integers(length):
    return np.arange(-(length // 2), length // 2 + 1)


# Decomposed relative positions


@pytest.mark.parametrize(
    ("source", "target"), [(159, 191), (11, 19), (27, 47), (31, 15), (7, 9), (127, 159), (5, 63)]
)
def test_beit_against_scipy(source, target):
    table = torch.randn(source, 6)
    spline = interp1d(
        _progression(1.0903078, source // 2),
        table.numpy().astype(np.float64),
        kind="cubic",
        axis=0,
        fill_value="extrapolate",
    )
    expected = torch.from_numpy(spline(_integers(target))).float()
    actual = resample_rel_pos(table, target, "beit")
    # extrapolation beyond a short table makes huge numbers, hence relative to the largest
    scale = expected.abs().max().clamp(min=1)
    torch.testing.assert_close(actual / scale, expected / scale, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("source", "size"), [(11, 10), (159, 96), (27, 10), (31, 16)])
def test_vitdet_against_detectron2(source, size):
    table = torch.randn(source, 8)
    position = torch.arange(size)
    ours = resample_rel_pos(table, 2 * size - 1, "vitdet")
    ours = ours[position[:, None] - position[None, :] + size - 1]
    torch.testing.assert_close(ours, get_rel_pos(size, size, table), atol=1e-6, rtol=1e-6)


# BEiT's bias table


def test_the_ratio_of_beit():
    """The constant of the detector is BEiT's own for 14x14 -> 24x24."""
    assert pytest.approx(1.0903078, abs=1e-12) == BEIT_RATIO
    assert resample._solve_ratio(27 // 2, 47 // 2) == pytest.approx(1.0903078, abs=1e-6)
    assert _progression(1.0903078, 13)[-1] == pytest.approx(23, abs=1e-4)


@pytest.mark.parametrize(
    ("source", "target"), [(14, (24, 24)), (5, (8, 6)), (6, (4, 6)), (7, (3, 9))]
)
def test_bias_table_against_scipy(source, target):
    length = 2 * source - 1
    table = torch.randn(length**2 + 3, 3)
    axes = [
        (_integers(length), _integers(length))
        if side == source
        else (_progression(_beit_ratio(length, 2 * side - 1), length // 2), _integers(2 * side - 1))
        for side in target
    ]
    (y, new_y), (x, new_x) = axes
    heads = []
    for head in table[:-3].numpy().astype(np.float64).T:
        spline = RectBivariateSpline(y, x, head.reshape(length, length), kx=3, ky=3, s=0)
        heads.append(torch.from_numpy(spline(new_y, new_x)).flatten())
    expected = torch.cat([torch.stack(heads, 1).float(), table[-3:]])
    actual = resample_bias_table(table, source, target)
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=1e-5)


# Position embeddings and patch kernels


@pytest.mark.parametrize("grid", [(5, 5), (3, 7), (2, 2), (16, 4)])
def test_pos_embed_is_plain_bicubic(grid):
    pos_embed = torch.randn(1, 1 + 16, 6)
    square = pos_embed[0, 1:].t().reshape(1, 6, 4, 4)
    expected = F.interpolate(square, grid, mode="bicubic", align_corners=False)
    actual = resample_pos_embed(pos_embed, grid)
    assert torch.equal(actual[:, 0], pos_embed[:, 0])
    torch.testing.assert_close(actual[0, 1:].t().reshape(1, 6, *grid), expected, atol=0, rtol=0)


# All of them

RESAMPLERS = {
    "vitdet": ((11, 4), lambda t: resample_rel_pos(t, 19, "vitdet")),
    "beit": ((11, 4), lambda t: resample_rel_pos(t, 19, "beit")),
    "table": ((9**2 + 3, 2), lambda t: resample_bias_table(t, 5, (7, 6))),
    "pos_embed": ((1, 1 + 16, 4), lambda t: resample_pos_embed(t, (6, 5))),
    "patch_embed": ((2, 3, 14, 14), lambda t: resample_patch_embed(t, 16)),
}


@pytest.mark.parametrize("name", ["beit", "table"])
def test_a_tracer_leaves_no_fake_matrix_behind(name):
    shape, function = RESAMPLERS[name]
    resample._beit_matrix.cache_clear()
    resample._bias_matrix.cache_clear()
    with FakeTensorMode():
        function(torch.randn(shape))
    source = torch.randn(shape)
    assert type(function(source)) is torch.Tensor
    assert function(source).isfinite().all()


@pytest.mark.parametrize("name", ["beit", "bias table"])
def test_autocast_does_not_lower_the_precision(name):
    def resampled():
        if name == "beit":
            return resample_rel_pos(table[:31], 47, "beit")
        return resample_bias_table(table[:52], 4, (6, 5))

    table = torch.randn(52, 8)
    expected = resampled()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(resampled(), expected)


# Devices
