"""All frames of a video, one after another, one in memory at a time (PyAV)."""

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from eva_data.files import require_regular_file
from eva_data.pictures import LIMIT, max_pixels


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
        done = 0
        try:
            require_regular_file(self.file)
            with av.open(os.fspath(self.file), metadata_errors="replace") as container:
                if not container.streams.video:
                    self.error = f"cannot read {self.file} as a video: it has no pictures"
                    return
                stream = container.streams.video[0]
                if stream.codec_context is None:
                    raise ValueError("there is no decoder for it")
                self._check_size(stream.codec_context.width, stream.codec_context.height)
                self.count = stream.frames or None
                rate = stream.average_rate or Fraction(25)
                for frame in container.decode(stream):
                    self._check_size(frame.width, frame.height)
                    rgb = upright(frame.to_ndarray(format="rgb24"), frame.rotation)
                    yield Frame(rgb, frame.pts, frame.time_base or 1 / rate, rate)
                    done += 1
        except (av.FFmpegError, OSError, ValueError) as error:
            self.error = f"cannot read {self.file} as a video after {done} frames: {error}"
            return
        if not done:
            self.error = f"cannot read {self.file} as a video: it has no frames"

    @staticmethod
    def _check_size(width: int, height: int) -> None:
        if width * height > max_pixels():
            raise OSError(
                f"its frames have {width} x {height} pixels, more than {max_pixels():,}; if it is "
                f"meant, set {LIMIT}={width * height}"
            )


def upright(rgb: NDArray[np.uint8], rotation: float) -> NDArray[np.uint8]:
    """Turn a frame as its display matrix says (phones film sideways).

    Args:
        rgb: (H, W, 3).
        rotation: Degrees counterclockwise, a multiple of 90.
    """
    return np.ascontiguousarray(np.rot90(rgb, round(rotation / 90) % 4))
