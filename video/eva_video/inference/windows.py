"""Windows in time over a video, and what they say together about each moment of it.

Everything here is a stream: of a video of any length, only the windows that cover one moment are
in memory.

Shapes: T frames of a clip, K classes.
"""

import bisect
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eva_data.video.source import VideoSource

LEAST = 0.05  # seconds of a window; a shorter one is a typing error, and there would be millions
_TINY = 1e-6  # seconds: times are sums of fractions


class Window(NamedTuple):
    """A part of a video, in seconds from its first frame, and its frames.

    Attributes:
        start: Begin in seconds.
        end: End in seconds.
        first: Index of its first frame.
        length: Number of its frames, at least 1.
    """

    start: float
    end: float
    first: int
    length: int


class Judged(NamedTuple):
    """A stretch of time, and probabilities (K,) of what happens in it."""

    start: float
    end: float
    probabilities: NDArray[np.float32]


class Segment(NamedTuple):
    """A stretch of time in which one class is the first.

    Attributes:
        start: Begin in seconds.
        end: End in seconds.
        label: Index of the class.
        probability: Mean over the stretch.
    """

    start: float
    end: float
    label: int
    probability: float


def duration_of(video: VideoSource) -> float:
    """Return how long a video is, in seconds: the last frame is shown as long as an average one."""
    return video.times([len(video) - 1])[0] + 1 / float(video.rate)


def windows_of(
    video: VideoSource, *, seconds: float | None, stride: float | None = None
) -> Iterator[Window]:
    """Slide a window over a video; the last one ends with the video.

    Args:
        video: The video.
        seconds: Length of a window; None, and any that is longer than the video, takes all of it.
        stride: Distance of the windows; None for half a window.

    Yields:
        The windows in the order of time.

    Raises:
        ValueError: If a length is below `LEAST`, or the windows leave gaps.
    """
    check_windows(seconds, stride)
    total = duration_of(video)
    if seconds is None or seconds >= total - _TINY:
        yield Window(0.0, total, 0, len(video))
        return
    step = stride or seconds / 2
    number = 0
    while (start := number * step) + seconds < total - _TINY:
        yield _window(video, start, start + seconds)
        number += 1
    yield _window(video, total - seconds, total)


def check_windows(seconds: float | None, stride: float | None) -> None:
    """Refuse windows that are none, or that leave gaps.

    Args:
        seconds: Length of a window; None for one window.
        stride: Distance of the windows, or None.

    Raises:
        ValueError: If a length is below `LEAST`, or the windows leave gaps.
    """
    if seconds is None:
        if stride is not None:
            raise ValueError(f"a stride of {stride} seconds has no effect without a window")
        return
    for name, value in (("window", seconds), ("stride", stride)):
        if value is not None and not LEAST <= value < float("inf"):
            raise ValueError(f"the {name} must be at least {LEAST} seconds, got {value}")
    if stride is not None and stride > seconds:
        raise ValueError(
            f"a stride of {stride} seconds leaves gaps between windows of {seconds}: give at most "
            "the length of a window"
        )


def _window(video: VideoSource, start: float, end: float) -> Window:
    places = range(len(video))
    # the frame that is on the screen at a time is the last one that has begun
    first = bisect.bisect_right(places, start + _TINY, key=lambda i: video.times([i])[0]) - 1
    after = bisect.bisect_left(places, end - _TINY, key=lambda i: video.times([i])[0])
    return Window(start, end, max(first, 0), max(after - max(first, 0), 1))


def moments(windows: Iterable[Judged]) -> Iterator[Judged]:
    """Cut time where a window begins or ends, and average the windows that cover each piece.

    Args:
        windows: Windows in the order of their begins.

    Yields:
        Pieces without gaps and overlaps, in order.
    """
    open_now: deque[Judged] = deque()
    at = 0.0
    for window in windows:
        yield from _until(window.start, at, open_now)
        at = window.start
        open_now.append(window)
    yield from _until(float("inf"), at, open_now)


def _until(time: float, at: float, open_now: deque[Judged]) -> Iterator[Judged]:
    """Yield the pieces from `at` to `time`, and drop the windows that end before."""
    while open_now and at < time - _TINY:
        end = min(time, min(window.end for window in open_now))
        if end > at + _TINY:
            yield Judged(at, end, np.mean([one.probabilities for one in open_now], axis=0))
        at = end
        while open_now and open_now[0].end <= at + _TINY:
            open_now.popleft()


def segments(pieces: Iterable[Judged], *, least: float = 0.0) -> Iterator[Segment]:
    """Join neighbouring pieces with the same first class.

    Args:
        pieces: Pieces in the order of time.
        least: Least probability of a piece that belongs to a segment.

    Yields:
        The segments, in order.
    """
    joined: list[Segment] = []
    for piece in pieces:
        label = int(piece.probabilities.argmax())
        value = float(piece.probabilities[label])
        if joined and (value < least or joined[0].label != label):
            yield joined.pop()
        if value < least:
            continue
        if not joined:
            joined.append(Segment(piece.start, piece.end, label, value))
            continue
        before, length = joined[0], piece.end - piece.start
        past = before.end - before.start
        mean = (before.probability * past + value * length) / (past + length)
        joined[0] = before._replace(end=piece.end, probability=mean)
    yield from joined
