"""One style of drawing and numbers in reports, demos and pictures of evaluations."""

import math

import numpy as np
from numpy.typing import NDArray

READABLE_SIDE = 512  # smaller pictures are enlarged, since labels would cover them
_HUES = (
    (228, 26, 28), (55, 126, 184), (77, 175, 74), (152, 78, 163), (255, 127, 0),
    (0, 158, 150), (166, 86, 40), (247, 80, 170), (120, 140, 20), (70, 80, 220),
)  # fmt: skip


def class_color(index: int) -> tuple[int, int, int]:
    """Return the colour (red, green, blue) of a class, the same in every picture.

    Args:
        index: Number of the class, from 0.
    """
    return _HUES[index % len(_HUES)]


def score_text(score: float) -> str:
    """Write a score between 0 and 1 as everywhere in the toolkit: "0.87"."""
    return f"{score:.2f}"


def enlargement(height: int, width: int) -> int:
    """Return the factor that makes a small picture legible: 1 from `READABLE_SIDE` on.

    Args:
        height: Pixels.
        width: Pixels.
    """
    return max(1, math.ceil(READABLE_SIDE / max(height, width)))


def enlarged(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Make squares of pixels, so that no value is invented.

    Args:
        image: (H, W, C).
        scale: Side of a square.

    Returns:
        (H * scale, W * scale, C); the image itself where the scale is 1.
    """
    return image if scale == 1 else image.repeat(scale, axis=0).repeat(scale, axis=1)
