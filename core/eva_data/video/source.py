"""Chosen frames of a video, whatever decodes it; shapes: N frames, H x W pixels."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction
from typing import Self

import numpy as np
from numpy.typing import NDArray

LONGEST = 50  # longer side by shorter; a strip that is longer would fill the memory


class UnreadableVideoError(OSError):
    """A video that cannot be read; the message names it and says why."""


class VideoSource(ABC):
    """An open video; a context manager that closes it.

    `rate` are the frames a second, on average; `size`, height and width of the upright frames in
    pixels; `rotation`, by which stored frames are turned to stand upright, 0, 90, 180 or 270
    degrees counterclockwise.
    """

    name: str
    rate: Fraction
    size: tuple[int, int]
    rotation: int

    @abstractmethod
    def __len__(self) -> int:
        """Count the frames that the file holds (not those that its header claims)."""

    @abstractmethod
    def frames(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Decode frames, and no more of the file than they need.

        Args:
            indices: Indexes from 0, in the order of display; any order, repeats are decoded once.

        Returns:
            (N, H, W, 3), RGB, upright, in the order of `indices`.
        """

    @abstractmethod
    def times(self, indices: Sequence[int]) -> list[float]:
        """Give the times of frames, in seconds from the first frame's."""

    def close(self) -> None:  # noqa: B027
        """Close the file and free the decoder; what is closed may be closed again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def checked(self, index: int) -> int:
        """Return an index, if there is such a frame; else raise an IndexError."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has no frame {index}: it has {len(self)}, from 0")
        return index


def require_usual_shape(video: VideoSource, name: str) -> None:
    """Refuse frames that are strips: enlarged to a model's size they would fill the memory."""
    height, width = video.size
    if max(video.size) > LONGEST * min(video.size):
        raise UnreadableVideoError(
            f"{name} has frames of {height} x {width} pixels: one side is more than "
            f"{LONGEST} times as long as the other, leave it out"
        )


def open_video(content: str | os.PathLike[str] | bytes, *, name: str | None = None) -> VideoSource:
    """Open a video, a path or its content, in the process that reads it, which may be a worker.

    It has one decoding thread; close it, best by `with`. `name` is for messages.
    """
    from eva_data.video.pyav_source import PyavSource

    return PyavSource(content, name=name)
