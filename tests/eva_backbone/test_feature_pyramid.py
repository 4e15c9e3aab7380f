"""The simple feature pyramid; its numbers are compared in parity/ and golden/."""

import pytest
import torch

from eva_backbone import SimpleFeaturePyramid

# Names of the official detectors, below backbone.
NORMED = ("weight", "norm.weight", "norm.bias")
NAMES = {
    *(f"simfp_2.{name}" for name in ("0.weight", "0.bias", "1.weight", "1.bias")),
    *(f"simfp_2.{name}" for name in ("3.weight", "3.bias")),
    *(f"simfp_2.{index}.{name}" for index in (4, 5) for name in NORMED),
    *(f"simfp_3.{name}" for name in ("0.weight", "0.bias")),
    *(f"simfp_3.{index}.{name}" for index in (1, 2) for name in NORMED),
    *(f"simfp_4.{index}.{name}" for index in (0, 1) for name in NORMED),
    *(f"simfp_5.{index}.{name}" for index in (1, 2) for name in NORMED),
}


def test_names_levels_and_strides():
    pyramid = SimpleFeaturePyramid(in_channels=16, out_channels=8)
    assert set(pyramid.state_dict()) == NAMES
    assert pyramid.strides == (4, 8, 16, 32)
    levels = pyramid(torch.randn(2, 16, 6, 4))
    sizes = [(24, 16), (12, 8), (6, 4), (3, 2)]
    assert [tuple(level.shape) for level in levels] == [(2, 8, *size) for size in sizes]


def test_some_levels_of_another_patch_size():
    pyramid = SimpleFeaturePyramid(
        in_channels=16, patch_size=8, out_channels=8, scale_factors=(2.0, 0.5)
    )
    assert pyramid.strides == (4, 16)
    assert {name.partition(".")[0] for name in pyramid.state_dict()} == {"simfp_2", "simfp_4"}
    levels = pyramid(torch.randn(1, 16, 4, 4))
    assert [tuple(level.shape[2:]) for level in levels] == [(8, 8), (2, 2)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"patch_size": 14},
            r"14 at scale 4.0 gives stride 3.5, which is not a power of two; .*16",
        ),
        ({"scale_factors": (8.0,)}, "scale factor must be 4, 2, 1 or 0.5, got 8.0"),
        ({"scale_factors": (3.0,)}, "gives stride 5.33333, which is not a power of two"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        SimpleFeaturePyramid(in_channels=16, **options)
