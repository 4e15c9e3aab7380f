"""Chosen frames of a video, whatever decodes it: a file, an array, or a folder of images.

Shapes: N frames, H x W pixels.
"""

import contextlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from eva_data.files import IMAGE_SUFFIXES
from eva_data.images import inspect_image, read_rgb

_RATE = Fraction(25)  # which images do not say
_NAME = re.compile(r"(.*?)(\d+)(\.\w+)")
_FLOW = re.compile(r"flow|(^|_)[xyuv]_$")


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
    def iterate_frames(self, indices: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Decode frames one by one, and no more of the file than they need.

        Others may be read meanwhile, after which it goes on from the keyframe again.

        Args:
            indices: Indexes from 0, in the order of display; any order, repeats are decoded once.

        Yields:
            In rising order an index, and the frame, (H, W, 3), RGB, upright.
        """

    def frames(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Decode frames at once, see `iterate_frames`: (N, H, W, 3) in the order of `indices`."""
        order = np.array(indices, np.int64)
        frames = np.empty((len(order), *self.size, 3), np.uint8)
        for index, rgb in self.iterate_frames(indices):
            frames[order == index] = rgb
        return frames

    def times(self, indices: Sequence[int]) -> list[float]:
        """Give the times of frames, in seconds from the first frame's; here by the rate."""
        return [float(self.checked(index) / self.rate) for index in indices]

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


class ArrayVideo(VideoSource):
    """Frames of an array, (T, H, W, 3) in uint8 and RGB, for what else opens files."""

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

    def iterate_frames(self, indices: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """See `VideoSource`."""
        for index in sorted({self.checked(index) for index in indices}):
            yield index, self._frames[index].copy()


class RawFrames(VideoSource):
    """A folder of numbered images as a video of 25 frames a second.

    `count` is the number of frames, if a list says it; None takes all. An `UnreadableVideoError`
    says what the folder lacks.
    """

    def __init__(self, folder: str | os.PathLike[str], *, count: int | None = None) -> None:
        self._folder = Path(folder)
        self.name, self.rate, self.rotation = str(folder), _RATE, 0
        self._files = self._list(count)
        with self._explained():
            first = self._folder / self._files[0]
            width, height, *_ = inspect_image(first, decode=False)
            self.size = height, width

    def _list(self, count: int | None) -> list[str]:
        series: dict[tuple[str, str], dict[int, str]] = {}
        with self._explained():
            for name in os.listdir(self._folder):  # noqa: PTH208 (thousands of names)
                parts = _NAME.fullmatch(name)
                if parts and parts[3].lower() in IMAGE_SUFFIXES and not name.startswith("."):
                    series.setdefault((parts[1], parts[3]), {})[int(parts[2])] = name
        images = sorted(kind for kind in series if not _FLOW.search(kind[0]))
        if len(images) != 1:
            shown = " and ".join(f"{prefix}*{suffix}" for prefix, suffix in images[:2])
            raise UnreadableVideoError(
                f"{self.name} must hold one series of numbered images, as img_00001.jpg; it has "
                f"{shown or 'none'}"
            )
        files = series[images[0]]
        start = 0 if 0 in files else 1
        end = max(files) + 1 if count is None else start + count
        numbers = sorted(number for number in files if start <= number < end)
        absent = end - start - len(numbers)
        if absent:  # not listed: a time as a number has no end of them
            first = next(number for number in range(start, end) if number not in files)
            raise UnreadableVideoError(
                f"{self.name} lacks {absent} of {end - start} frames, the first of them "
                f"number {first}; it has {min(files)} to {max(files)}"
            )
        return [files[number] for number in numbers]

    def __len__(self) -> int:
        return len(self._files)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UnreadableVideoError(f"{self.name} cannot be read: {error}") from error

    def iterate_frames(self, indices: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """See `VideoSource`."""
        for index in sorted({self.checked(index) for index in indices}):
            with self._explained():
                rgb = read_rgb(self._folder / self._files[index], upright=False)
                if rgb.shape[:2] != self.size:
                    raise OSError(f"{self._files[index]} is {rgb.shape[:2]} and not {self.size} px")
            yield index, rgb


def open_video(content: str | os.PathLike[str] | bytes, *, name: str | None = None) -> VideoSource:
    """Open a video, a path or its content, in the process that reads it, which may be a worker.

    It has one decoding thread; close it, best by `with`. `name` is for messages.
    """
    from eva_data.video.decoding import VideoFile

    return VideoFile(content, name=name)
