"""What happens before a camera, judged while it records.

A camera has no end that is known and cannot be read twice: each frame is shown with what the last
complete window gave, and of a window only as many frames wait in memory as a clip can need.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eva_data.video.frames import ArrayVideo
from eva_data.video.streams import Frame
from eva_video.inference.predictor import VideoPredictor
from eva_video.inference.windows import Judged

SECONDS = 2.0  # of a window, if none is asked for
_KEPT = 64  # frames of a window in memory, at most


class Live(NamedTuple):
    """A frame of a camera.

    Attributes:
        frame: The frame; None at the end, for what its last window gave.
        time: Seconds since the first frame.
        judged: A window that is complete now, or None.
    """

    frame: Frame | None
    time: float
    judged: Judged | None


def watch(
    predictor: VideoPredictor, frames: Iterable[Frame], *, seconds: float = SECONDS
) -> Iterator[Live]:
    """Judge windows of the frames of a camera, one after another without gaps.

    Args:
        predictor: The classifier.
        frames: Frames as they come.
        seconds: Length of a window.

    Yields:
        Each frame, and with the first one after a window what that gave.
    """
    kept: list[NDArray[np.uint8]] = []
    begin, time, number, step = 0.0, 0.0, 0, 1
    for index, frame in enumerate(frames):
        time = index / float(frame.rate)
        if frame.pts is not None:
            time = float(frame.pts * frame.time_base)
        judged = None
        if kept and time >= begin + seconds:
            judged = _judge(predictor, kept, begin, time)
            kept, begin, number, step = [], time, 0, 1
        if number % step == 0:
            kept.append(frame.rgb)
        number += 1
        if len(kept) > _KEPT:  # of a long window every second one, then every fourth
            kept, step = kept[::2], 2 * step
        yield Live(frame, time, judged)
    if kept:
        yield Live(None, time, _judge(predictor, kept, begin, time))


def _judge(
    predictor: VideoPredictor, frames: list[NDArray[np.uint8]], begin: float, end: float
) -> Judged:
    rate = Fraction(len(frames)) / Fraction(max(end - begin, 1e-3))
    (judged,) = predictor.windows(ArrayVideo(np.stack(frames), rate=rate, name="the camera"))
    return Judged(begin, end, judged.probabilities)
