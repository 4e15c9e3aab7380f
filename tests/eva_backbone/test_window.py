"""Windows, against detectron2's."""

import pytest
import torch
from detectron2.modeling.backbone import utils as detectron2_windows

from eva_backbone.layers import window_partition, window_unpartition


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 5), (4, 3)])
def test_against_detectron2(size):
    x = torch.randn(2, *size, 3)
    windows, padded = window_partition(x, 4)
    expected, expected_padded = detectron2_windows.window_partition(x, 4)
    assert torch.equal(windows, expected)
    assert padded == expected_padded
    assert torch.equal(window_unpartition(windows, 4, padded, size), x)


def test_padding_is_zero_at_the_bottom_and_right():
    windows, padded = window_partition(torch.ones(1, 5, 6, 1), 4)
    assert padded == (8, 8)
    assert windows.shape == (4, 4, 4, 1)
    assert windows.flatten(1).sum(1).tolist() == [16, 8, 4, 2]
    assert windows[3, :, :, 0].tolist() == [[1, 1, 0, 0], [0] * 4, [0] * 4, [0] * 4]
