"""Deformable attention beside mmcv's module."""

import pytest
import torch

from eva_openmmlab import deformable_attention as ours
from eva_openmmlab.deformable_attention import MultiScaleDeformableAttention, Sampling

SHAPES = ((6, 10), (3, 5), (1, 2))


def _mmcv():
    from mmcv.ops import multi_scale_deform_attn

    return multi_scale_deform_attn


def _inputs(dtype=torch.float64, batch=2, queries=7, heads=3, dim=44, points=4):
    """Random inputs; about a third of the points lies outside the levels."""
    count = sum(height * width for height, width in SHAPES)
    value = torch.randn(batch, count, heads, dim, dtype=dtype)
    locations = 2.2 * torch.rand(batch, queries, heads, len(SHAPES), points, 2, dtype=dtype) - 0.6
    weights = torch.randn(batch, queries, heads, len(SHAPES), points, dtype=dtype)
    return [tensor.requires_grad_() for tensor in (value, locations, weights)]


def test_the_core_runs_in_float32_under_autocast():
    value, locations, weights = (tensor.detach() for tensor in _inputs(torch.float32))
    half = value.bfloat16()
    expected = ours.deformable_attention(half.float(), SHAPES, locations, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = ours.deformable_attention(half, SHAPES, locations, weights)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, expected.bfloat16(), atol=0, rtol=0)


@pytest.mark.filterwarnings("ignore:You'd better set embed_dims:UserWarning")
def test_the_module_is_that_of_mmcv(randomise):
    """Same names, same start, and the same result apart from mmcv's residual."""
    mine = MultiScaleDeformableAttention(
        24, num_heads=3, num_levels=3, num_points=4, value_ratio=0.5
    )
    theirs = _mmcv().MultiScaleDeformableAttention(
        24, num_heads=3, num_levels=3, num_points=4, batch_first=True, value_proj_ratio=0.5
    )
    start = theirs.state_dict()
    for name, value in mine.state_dict().items():
        if "proj.weight" in name:  # random
            bound = (6 / sum(value.shape)) ** 0.5
            assert 0.8 * bound < value.abs().max() <= bound
        else:
            torch.testing.assert_close(value, start[name])
    theirs.load_state_dict(randomise(mine).state_dict(), strict=True)
    query, features, reference = torch.randn(2, 7, 24), torch.randn(2, 77, 24), torch.rand(7, 2)
    expected = theirs.eval()(
        query,
        value=features,
        identity=torch.zeros_like(query),
        reference_points=reference[None, :, None].expand(2, -1, 3, -1),
        spatial_shapes=torch.tensor(SHAPES),
        level_start_index=torch.tensor([0, 60, 75]),
    )
    assert expected.std() > 0.1
    torch.testing.assert_close(mine(query, features, Sampling(reference, SHAPES)), expected)
