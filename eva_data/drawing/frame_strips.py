"""A video as a picture: some of its frames side by side."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

_GAP = 4  # white pixels between frames


def frame_strip(frames: Sequence[Pixels] | Pixels, n: int = 6, *, height: int = 224) -> Pixels:
    """Put frames side by side: the first, the last, and others at equal distances.

    Args:
        frames: Frames (H, W, 3) RGB of one size, at least one.
        n: Frames of the strip; fewer if there are fewer.
        height: Rows of the strip, to which frames are made smaller; they are never enlarged.

    Returns:
        (h, w, 3).

    Raises:
        ValueError: If there is no frame.
    """
    if not len(frames):
        raise ValueError("a strip needs a frame at least")
    chosen = np.unique(np.linspace(0, len(frames) - 1, max(1, n)).round().astype(int))
    shown = [_fitted(frames[index], height) for index in chosen]
    gap = np.full((len(shown[0]), _GAP, 3), 255, np.uint8)
    parts = [part for one in shown for part in (gap, one)][1:]
    return np.concatenate(parts, axis=1)


def _fitted(frame: Pixels, height: int) -> Pixels:
    if len(frame) <= height:
        return frame
    width = max(1, round(frame.shape[1] * height / len(frame)))
    image = Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
