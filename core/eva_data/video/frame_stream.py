"""All frames of a video, one after another, one in memory at a time (PyAV)."""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eva_data.video.containers import explained, open_pictures, to_rgb
from eva_data.video.frame_table import frames_of, rate_of
from eva_data.video.video_source import UnreadableVideoError


class Frame(NamedTuple):
    """A frame of a video.

    Attributes:
        rgb: (H, W, 3), upright.
        pts: Its time in units of `time_base`, None if the file does not say.
        time_base: Unit of time in seconds.
        rate: Frames a second of the video, on average.
    """

    rgb: NDArray[np.uint8]
    pts: int | None
    time_base: Fraction
    rate: Fraction


class VideoReader:
    """Iterates over the frames of a file.

    A file that cannot be read, or only in part, ends the iteration and leaves its reason in
    `error`: earlier frames are valid.

    Args:
        file: The video.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.error: str | None = None
        self.count: int | None = None  # number of frames, where the file says

    def __iter__(self) -> Iterator[Frame]:
        try:
            yield from self._read()
        except UnreadableVideoError as error:
            self.error = str(error)

    def _read(self) -> Iterator[Frame]:
        done = 0
        size = None
        with explained(str(self.file), after=lambda: f" after {done} frames"):
            video = open_pictures(self.file)
            with contextlib.closing(video):
                self.count = video.stream.frames or None
                rate = rate_of(video)
                for frame in frames_of(video):
                    size = size or (frame.height, frame.width)
                    rgb = to_rgb(frame, size)
                    yield Frame(rgb, frame.pts, frame.time_base or 1 / rate, rate)
                    done += 1
