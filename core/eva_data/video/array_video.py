"""A video that is in memory already, as an array of frames."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from eva_data.video.video_source import VideoSource


class ArrayVideo(VideoSource):
    """Frames of an array, for what else opens files.

    Args:
        frames: (T, H, W, 3), uint8, RGB, T at least 1.
        rate: Frames a second.
        name: Name in messages.

    Raises:
        ValueError: If the array has another shape or number format.
    """

    def __init__(
        self, frames: NDArray[np.uint8], *, rate: Fraction | float = 25, name: str = "the array"
    ) -> None:
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not frames.size:
            raise ValueError(
                f"a video in memory must be an array (frames, height, width, 3) of uint8, got "
                f"{frames.shape} of {frames.dtype}"
            )
        self.name, self.rate, self.rotation = name, Fraction(rate), 0
        self.size = frames.shape[1], frames.shape[2]
        self._frames = frames

    def __len__(self) -> int:
        return len(self._frames)

    def frames(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Return frames, see `VideoSource`."""
        if wrong := [index for index in indices if not 0 <= index < len(self)]:
            raise IndexError(f"{self.name} has no frame {wrong[0]}: it has {len(self)}")
        return self._frames[list(indices)]

    def times(self, indices: Sequence[int]) -> list[float]:
        """Return the times of frames, see `VideoSource`."""
        return [index / float(self.rate) for index in indices]

    def close(self) -> None:
        """Do nothing: there is nothing to close."""
