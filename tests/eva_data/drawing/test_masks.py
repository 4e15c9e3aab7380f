"""Masks in run-length codes, decoded in their box, against pycocotools."""

import numpy as np
import pytest
from pycocotools import mask as rle

from eva_report.drawing.masks import PlacedMask, inner_edge, placed, resized

SHAPES = [(1, 1), (7, 5), (40, 300), (300, 40), (200, 200)]


def masks(height, width):
    generator = np.random.default_rng(height + width)
    yield np.ones((height, width), bool)
    yield generator.random((height, width)) < 0.5
    yield generator.random((height, width)) < 0.02
    block = np.zeros((height, width), bool)
    block[height // 3 :, width // 2 :] = True
    yield block


@pytest.mark.parametrize("shape", SHAPES)
def test_codes_are_decoded_as_pycocotools_does(shape):
    for mask in masks(*shape):
        code = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
        for form in (code, mask):
            part = placed(form, *shape)
            if part is None:
                assert not mask.any()
                continue
            again = np.zeros(shape, bool)
            height, width = part.mask.shape
            again[part.top : part.top + height, part.left : part.left + width] = part.mask
            np.testing.assert_array_equal(again, mask)
            assert rle.toBbox(code).tolist() == [part.left, part.top, width, height]


def test_codes_that_are_not_compressed_and_codes_of_nothing():
    part = placed({"size": [4, 3], "counts": [5, 2, 5]}, 4, 3)
    beyond = placed({"size": [4, 3], "counts": [5, 2, 4, 10**12]}, 4, 3)
    assert (beyond.top, beyond.left, beyond.mask.shape) == (1, 1, (3, 2))
    assert placed({"size": [4, 3], "counts": [-5, 2, 4, -1]}, 4, 3) is None
    assert (part.top, part.left, part.mask.shape) == (1, 1, (2, 1))
    for nothing in ([12], [], b"", "", b"\x80"):
        assert placed({"size": [4, 3], "counts": nothing}, 4, 3) is None


def test_parts_at_other_sizes():
    part = PlacedMask(10, 20, np.array([[True, False], [False, True]]))
    large = resized(part, 3.0)
    assert (large.top, large.left) == (30, 60)
    np.testing.assert_array_equal(large.mask, part.mask.repeat(3, axis=0).repeat(3, axis=1))
    small = resized(part, 0.1)
    assert (small.top, small.left, small.mask.shape) == (1, 2, (1, 1))


def test_the_edge_of_a_mask():
    edge = inner_edge(np.ones((5, 5), bool), 1)
    assert edge.sum() == 16
    assert not edge[1:4, 1:4].any()
    assert inner_edge(np.ones((5, 5), bool), 2).sum() == 24
