"""Windows over a video, and what they say together about each moment."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from eva_data.video.source import VideoSource
from eva_video.inference.predictor import JudgedWindow, Segment, moments, segments, windows_of


class Clock(VideoSource):
    """A video of which only the times are known."""

    def __init__(self, times, rate=10):
        self.name, self.rate, self.size, self.rotation = "clock", Fraction(rate), (4, 4), 0
        self._times = times
        self.asked = 0

    def __len__(self):
        return len(self._times)

    def times(self, indices):
        self.asked += len(indices)
        return [self._times[i] for i in indices]

    def iterate_frames(self, indices):
        raise AssertionError

    def close(self):
        pass


def spans(windows):
    return [(round(one.start, 6), round(one.end, 6), one.first, one.length) for one in windows]


def test_frames_of_variable_rate_belong_to_their_times():
    """A frame stays on the screen until the next one."""
    video = Clock([0, 0.5, 0.6, 4.0, 4.1, 5.9])
    assert spans(windows_of(video, seconds=2, stride=2)) == [
        (0, 2, 0, 3), (2, 4, 2, 1), (4, 6, 3, 3)
    ]  # fmt: skip


def test_every_frame_of_any_video_is_in_a_window():
    chance = np.random.default_rng(0)
    for _ in range(50):
        frames = int(chance.integers(2, 90))
        times = np.concatenate([[0], chance.exponential(0.1, frames - 1).cumsum()]).tolist()
        seconds = float(chance.uniform(0.05, 4))
        stride = max(seconds * float(chance.uniform(0.3, 1)), 0.05)
        windows = list(windows_of(Clock(times), seconds=seconds, stride=stride))
        seen = {k for one in windows for k in range(one.first, one.first + one.length)}
        assert seen == set(range(frames))
        assert all(one.end > one.start and one.length > 0 for one in windows)
        assert all(a.end >= b.start - 1e-6 for a, b in itertools.pairwise(windows))


# Moments and segments


def judged(*windows):
    return [JudgedWindow(a, b, np.array(p, np.float32)) for a, b, p in windows]


def test_moments_equal_an_average_over_all_windows():
    chance = np.random.default_rng(1)
    for _ in range(20):
        length, stride = 2.0, float(chance.uniform(0.3, 2))
        starts = [k * stride for k in range(6)]
        starts.append(starts[-1] + float(chance.uniform(0, stride)))  # the last one is nearer
        windows = judged(*((s, s + length, chance.dirichlet([1, 1, 1])) for s in starts))
        pieces = list(moments(windows))
        assert pieces[0].start == 0
        assert pieces[-1].end == pytest.approx(starts[-1] + length)
        for a, b in itertools.pairwise(pieces):
            assert a.end == b.start
        for piece in pieces:
            middle = (piece.start + piece.end) / 2
            cover = [w.probabilities for w in windows if w.start < middle < w.end]
            np.testing.assert_allclose(piece.probabilities, np.mean(cover, axis=0), rtol=1e-5)


def test_neighbours_with_one_class_are_a_segment():
    pieces = judged((0, 1, [0.9, 0.1]), (1, 3, [0.6, 0.4]), (3, 4, [0.2, 0.8]), (4, 5, [0.7, 0.3]))
    found = list(segments(pieces))
    assert [(one.start, one.end, one.label) for one in found] == [(0, 3, 0), (3, 4, 1), (4, 5, 0)]
    assert [one.probability for one in found] == pytest.approx([0.7, 0.8, 0.7])
    found = list(segments(pieces, least=0.65))
    assert [(one.start, one.end, one.label) for one in found] == [(0, 1, 0), (3, 4, 1), (4, 5, 0)]
    # a class that was not likely enough in between
    gap = judged((0, 1, [0.9, 0.1]), (1, 2, [0.6, 0.4]), (2, 3, [0.8, 0.2]))
    assert [one[:3] for one in segments(gap, least=0.7)] == [(0, 1, 0), (2, 3, 0)]
    assert list(segments([])) == []
    assert list(segments(judged((0, 1, [0.3, 0.3])), least=0.9)) == []
    assert list(segments(judged((0, 1, [0.5])))) == [Segment(0, 1, 0, 0.5)]
