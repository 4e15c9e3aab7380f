"""The simple feature pyramid; its numbers are compared in parity/ and golden/."""

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
