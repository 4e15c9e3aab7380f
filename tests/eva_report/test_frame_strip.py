"""Frames side by side."""

import numpy as np
import pytest

from eva_data.video.frames import ArrayVideo
from eva_report.sheets import HEIGHT, frame_strip, strip_of


def test_frames_are_spread_over_the_video_and_enlarged():
    frames = np.zeros((9, 32, 40, 3), np.uint8) + np.arange(9, dtype=np.uint8)[:, None, None, None]
    strip = np.asarray(strip_of(ArrayVideo(frames)))
    assert strip.shape == (6 * 32, 4 * 6 * 40 + 3 * 4, 3)
    assert strip[0, [0, 250, 500, 750], 0].tolist() == [0, 3, 5, 8]
    assert strip[0, 242].tolist() == [255] * 3  # between two frames
    assert np.asarray(strip_of(ArrayVideo(frames[:1]))).shape == (192, 240, 3)


@pytest.mark.parametrize(("size", "high"), [((1080, 1920), 178), ((240, 320), HEIGHT)])
def test_large_frames_fit(size, high):
    strip = frame_strip(np.zeros((4, *size, 3), np.uint8))
    assert strip.width <= 1280
    assert strip.height == high
