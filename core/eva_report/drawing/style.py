"""One style of drawing and numbers in reports, demos and pictures of evaluations."""

import math
from colorsys import hls_to_rgb

import numpy as np
from numpy.typing import NDArray

READABLE_SIDE = 512  # smaller pictures are enlarged, since labels would cover them
_HUES = (
    (228, 26, 28), (55, 126, 184), (77, 175, 74), (152, 78, 163), (255, 127, 0),
    (0, 158, 150), (166, 86, 40), (247, 80, 170), (120, 140, 20), (70, 80, 220),
)  # fmt: skip
_GOLDEN = (math.sqrt(5) - 1) / 2  # multiples of it spread over a circle
_TONES = (  # lightness, saturation; their number divides no small Fibonacci number
    (0.45, 0.9), (0.62, 0.75), (0.35, 0.7), (0.72, 0.85), (0.52, 0.5), (0.28, 0.9)
)  # fmt: skip


def class_color(index: int) -> tuple[int, int, int]:
    """Return the colour (red, green, blue) of a class, the same in every picture.

    The first ten differ at a glance; some hundred have a colour of their own.

    Args:
        index: Number of the class, from 0.
    """
    if 0 <= index < len(_HUES):
        return _HUES[index]
    hue = index * _GOLDEN % 1
    light, strength = _TONES[index % len(_TONES)]
    red, green, blue = (round(255 * value) for value in hls_to_rgb(hue, light, strength))
    return red, green, blue


def text_color(background: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return black or white, whichever has more contrast with a colour.

    Args:
        background: Red, green, blue.
    """
    linear = [((value / 255 + 0.055) / 1.055) ** 2.4 for value in background]  # of sRGB
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)  # equal contrast with both


def score_text(score: float) -> str:
    """Write a score between 0 and 1, or a cosine, as everywhere in the toolkit: "0.87"."""
    return f"{round(score, 2) + 0.0:.2f}"  # no "-0.00"


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
