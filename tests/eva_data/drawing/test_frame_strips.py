"""Strips of frames."""

import numpy as np
import pytest

from eva_data.drawing.frame_strips import frame_strip


def frames(count, height=40, width=60):
    return np.stack([np.full((height, width, 3), index, np.uint8) for index in range(count)])


def test_first_last_and_between():
    strip = frame_strip(frames(101), 5)
    assert strip.shape == (40, 5 * 60 + 4 * 4, 3)
    assert strip[0, ::64, 0].tolist() == [0, 25, 50, 75, 100]
    assert (strip[:, 60:64] == 255).all()


def test_few_frames_and_large_ones():
    assert frame_strip(frames(2), 5).shape == (40, 124, 3)
    assert frame_strip(list(frames(1)), 5).shape == (40, 60, 3)
    assert frame_strip(frames(9), 1).shape == (40, 60, 3)
    assert frame_strip(frames(2, 400, 600), height=200).shape == (200, 604, 3)
    with pytest.raises(ValueError, match="a frame at least"):
        frame_strip([])
