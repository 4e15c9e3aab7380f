"""What the vision tower sees of a file: a picture, or frames spread over a video.

Shapes: F frames of a file, S the side of a picture in pixels.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from eva_contrastive.config import MOST_VIDEO_FRAMES, VIDEO_FRAMES
from eva_data.files import VIDEO_SUFFIXES
from eva_data.images import read_image, read_rgb
from eva_data.transforms import ImageTransform
from eva_data.video.source import Backend, VideoSource, open_video, require_usual_shape

_AT_ONCE = 8  # decoded frames in memory
Media = str | os.PathLike[str]


class Seen(NamedTuple):
    """What the tower sees of a file.

    Attributes:
        pixels: (F, 3, S, S), normalised; of a picture, F is 1.
        frames: Indexes of the frames; 0 for a picture.
        times: Their times in seconds from the first frame's.
    """

    pixels: Tensor
    frames: tuple[int, ...]
    times: tuple[float, ...]


def is_video(file: Media) -> bool:
    """Whether a file has the suffix of a video."""
    return Path(file).suffix.lower() in VIDEO_SUFFIXES


def spread(length: int, count: int) -> list[int]:
    """Choose the middle frames of equal parts of a video.

    Args:
        length: Frames of the video.
        count: Number of parts.

    Returns:
        Indexes in order, each once; fewer than `count` of a video with fewer frames.
    """
    return sorted({(2 * part + 1) * length // (2 * count) for part in range(count)})


class MediaReader:
    """Reads what the tower sees; it can be sent to the processes of a loader.

    Args:
        transform: Transform of a PIL picture in RGB.
        frames: Frames of a video.
        backend: Decoder of the videos.

    Raises:
        ValueError: If `frames` is out of range.
    """

    def __init__(
        self, transform: ImageTransform, *, frames: int = VIDEO_FRAMES, backend: Backend = "pyav"
    ) -> None:
        if not 1 <= frames <= MOST_VIDEO_FRAMES:
            raise ValueError(f"frames must be 1 to {MOST_VIDEO_FRAMES}, got {frames}")
        self.transform, self.frames, self.backend = transform, frames, backend

    def picture(self, source: Media | Image.Image | NDArray[np.uint8]) -> Tensor:
        """Read a picture (3, S, S), upright as its EXIF data say.

        Raises:
            UnreadableImageError: An OSError, if it cannot be read.
        """
        if isinstance(source, np.ndarray):
            source = Image.fromarray(read_rgb(source, upright=True))
        return self.transform(read_image(source, upright=True))

    def video(self, source: Media) -> Seen:
        """Read frames that are spread over a video.

        Raises:
            UnreadableVideoError: An OSError, if it cannot be read.
        """
        with open_video(source, backend=self.backend) as video:
            require_usual_shape(video, video.name)
            indexes = spread(len(video), self.frames)
            pixels = torch.stack(list(self._pictures(video, indexes)))
            return Seen(pixels, tuple(indexes), tuple(video.times(indexes)))

    def __call__(self, source: Media) -> Seen:
        """Read a video, by its suffix, or a picture.

        Raises:
            UnreadableImageError: An OSError, if a picture cannot be read.
            UnreadableVideoError: An OSError, if a video cannot be read.
        """
        if is_video(source):
            return self.video(source)
        return Seen(self.picture(source)[None], (0,), (0.0,))

    def _pictures(self, video: VideoSource, indexes: list[int]) -> Iterator[Tensor]:
        for start in range(0, len(indexes), _AT_ONCE):
            for frame in video.frames(indexes[start : start + _AT_ONCE]):
                yield self.transform(Image.fromarray(frame))
