"""A video in one picture: some of its frames side by side, in the order of time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eva_data.video.source import VideoSource

FRAMES = 4
HEIGHT = 192  # pixels
_GAP, _WIDEST = 4, 1280  # pixels


def frame_strip(frames: Sequence[NDArray[Any]] | NDArray[Any]) -> Image.Image:
    """Put frames side by side.

    Args:
        frames: (H, W, 3) RGB, at least one, all of one size; small ones are enlarged.

    Returns:
        The strip, `HEIGHT` pixels high or a little more, and less where it would be too wide.
    """
    height, width = frames[0].shape[:2]
    room = (_WIDEST - (len(frames) - 1) * _GAP) / len(frames)
    if height < HEIGHT:
        scale = max(1, min(-(-HEIGHT // height), int(room / width)))
        size = width * scale, height * scale
    else:
        share = min(HEIGHT / height, room / width)
        size = max(1, round(width * share)), max(1, round(height * share))
    resample = Image.Resampling.NEAREST if height < HEIGHT else Image.Resampling.LANCZOS
    strip = Image.new("RGB", (len(frames) * (size[0] + _GAP) - _GAP, size[1]), "white")
    for place, frame in enumerate(frames):
        strip.paste(Image.fromarray(np.asarray(frame)).resize(size, resample),
                    (place * (size[0] + _GAP), 0))  # fmt: skip
    return strip


def strip_of(video: VideoSource, *, frames: int = FRAMES) -> Image.Image:
    """Show frames that are spread over a video, from the first to the last.

    Args:
        video: The video.
        frames: Number of frames, at most.

    Raises:
        UnreadableVideoError: If one of them cannot be decoded.
    """
    last = len(video) - 1
    count = min(frames, len(video))
    places = [round(part * last / max(1, count - 1)) for part in range(count)]
    return frame_strip(video.frames(places))
