"""The frames of a camera; FFmpeg's test pattern stands for one."""

import os
import signal

import pytest

from eva_data.video.streams import CameraReader

PATTERN = "testsrc=size=64x48:rate=10:duration=0.5"


def test_frames_and_their_times():
    reader = CameraReader(PATTERN, kind="lavfi")
    frames = list(reader)
    assert [frame.rgb.shape for frame in frames] == [(48, 64, 3)] * 5
    assert [frame.pts * frame.time_base for frame in frames] == pytest.approx(
        [0, 0.1, 0.2, 0.3, 0.4]
    )
    assert reader.error is None


def test_an_interrupt_ends_it_after_the_frame_at_work():
    before = signal.getsignal(signal.SIGINT)
    frames = []
    for frame in CameraReader(PATTERN, kind="lavfi"):
        frames.append(frame)
        if len(frames) == 2:
            os.kill(os.getpid(), signal.SIGINT)
    assert len(frames) == 2
    assert signal.getsignal(signal.SIGINT) is before


def test_a_camera_that_cannot_be_read_is_a_sentence():
    reader = CameraReader("/dev/video-none")
    assert list(reader) == []
    assert reader.error == "cannot read /dev/video-none as a video: No such file or directory"
