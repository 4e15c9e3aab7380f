"""Videos and cameras: frames with their times, damaged files, and files that appear complete."""

import os
import signal
from fractions import Fraction

import numpy as np
import pytest

from eva_data.video.streams import CameraReader, Frame, VideoReader, VideoWriter


def test_video_keeps_times_and_pictures(tmp_path, write_video):
    source, target = tmp_path / "in.mkv", tmp_path / "out.mp4"
    write_video(source, 5, [0, 1, 2, 7, 9])
    reader = VideoReader(source)
    with VideoWriter(target) as writer:
        for frame in reader:
            writer.add(frame.rgb[:47, :63], frame)  # odd sides
    assert reader.error is None
    again = VideoReader(target)
    frames = list(again)
    assert (again.error, again.count) == (None, 5)
    times = [frame.pts * frame.time_base for frame in frames]
    assert times == [Fraction(tick, 10) for tick in (0, 1, 2, 7, 9)]
    for index, frame in enumerate(frames):
        assert frame.rgb.shape == (48, 64, 3)
        assert abs(frame.rgb.astype(int) - (10 + 40 * index)).max() <= 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.mp4"]


def test_frames_whose_times_do_not_grow_follow_each_other(tmp_path):
    """Repaired recordings have frames at one time, or at an earlier one; no file may hold these."""
    rate, given = Fraction(10), [0, 100, 100, 50, 102, 500]
    with VideoWriter(tmp_path / "a.mp4") as writer:
        for tick in given:
            rgb = np.full((32, 32, 3), 40, np.uint8)
            writer.add(rgb, Frame(rgb, tick, Fraction(1, 1000), rate))
    times = [frame.pts * frame.time_base for frame in VideoReader(tmp_path / "a.mp4")]
    assert times == [Fraction(tick, 1000) for tick in (0, 100, 101, 102, 103, 500)]


def test_reproducible_files_have_the_same_bytes_each_time(tmp_path):
    """Without the option about a quarter of such clips differ when they are written again."""
    rate, clips = Fraction(25), np.random.default_rng(0).integers(0, 256, (6, 1, 8, 8, 3), np.uint8)
    still = clips.repeat(4, axis=2).repeat(4, axis=3)  # (clips, 1, 32, 32, 3)
    for number, start in enumerate(still):
        moving = [np.roll(start[0], 2 * shift, axis=1) for shift in range(24)]
        written = set()
        for _ in range(5):
            with VideoWriter(tmp_path / "a.mp4", reproducible=True) as writer:
                for tick, rgb in enumerate(moving):
                    writer.add(rgb, Frame(rgb, tick, 1 / rate, rate))
            written.add((tmp_path / "a.mp4").read_bytes())
        assert len(written) == 1, number
    (content,) = written  # x264 notes its settings: what would depend on the machine
    assert b" threads=1 " in content
    assert b" lookahead_threads=1 " in content
    assert b" mbtree=0 " in content or b"mbtree=" not in content


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
