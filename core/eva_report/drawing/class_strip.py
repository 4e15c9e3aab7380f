"""A picture or frame with what it shows written below it: classes, probabilities as bars."""

import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from eva_report.drawing.lettering import font, shortened

SHOWN = 3  # classes below a picture
_READABLE_WIDTH = 320  # pixels; narrower pictures are enlarged, since names would not fit
_HIGHEST = 2048  # pixels of an enlarged picture
_SMALLEST, _LARGEST = 13, 40  # pixels of a letter
_BACK, _FIRST, _OTHER, _TEXT, _FAINT = "#141414", "#1f5fae", "#3a3a3a", "#ffffff", "#c8c8c8"


def annotate(
    rgb: NDArray[np.uint8],
    predictions: Sequence[tuple[str, float]],
    *,
    heading: str | None = None,
    rows: int = SHOWN,
) -> NDArray[np.uint8]:
    """Write classes with their probabilities below a picture.

    Args:
        rgb: (H, W, 3).
        predictions: Names and probabilities, in falling order of probability.
        heading: What to write above them, such as a time; None leaves no line for it.
        rows: Number of lines for classes, of which some may stay empty.

    Returns:
        (H * s + h, W * s, 3), with s = 1 for pictures of 320 px width and more. One that would be
        too high if it were enlarged stands in the middle of a strip of 320 px.
    """
    height, width = rgb.shape[:2]
    scale = min(math.ceil(_READABLE_WIDTH / width), max(1, _HIGHEST // height))
    enlarged = rgb.repeat(scale, axis=0).repeat(scale, axis=1)
    if (space := _READABLE_WIDTH - enlarged.shape[1]) > 0:
        dark = np.full((len(enlarged), _READABLE_WIDTH, 3), 20, np.uint8)  # as _BACK
        dark[:, space // 2 : space // 2 + enlarged.shape[1]] = enlarged
        enlarged = dark
    strip = _strip(enlarged.shape[1], tuple(predictions[:rows]), heading, rows)
    return np.concatenate([enlarged, strip])


@functools.lru_cache(maxsize=8)  # many frames in turn have the same
def _strip(
    width: int, predictions: tuple[tuple[str, float], ...], heading: str | None, rows: int
) -> NDArray[np.uint8]:
    size = min(max(round(width / 36), _SMALLEST), _LARGEST)
    letters, line, gap = font(size), round(size * 1.6), round(size * 0.5)
    begin = gap // 2 + (line if heading is not None else 0)
    canvas = Image.new("RGB", (width, begin + rows * line + gap - gap // 2), _BACK)
    draw = ImageDraw.Draw(canvas)
    if heading is not None:
        draw.text((gap, gap // 2 + line / 2), heading, fill=_FAINT, font=letters, anchor="lm")
    for row, (name, probability) in enumerate(predictions):
        top = begin + row * line
        reach = gap + round((width - 2 * gap) * min(max(probability, 0.0), 1.0))
        draw.rectangle((gap, top + 1, max(reach, gap + 1), top + line - 2),
                       fill=_OTHER if row else _FIRST)  # fmt: skip
        share = f"{probability:.0%}"
        text = shortened(name, letters, width - 5 * gap - letters.getlength("100%"))
        middle, fill = top + line / 2, _FAINT if row else _TEXT
        draw.text((2 * gap, middle), text, fill=fill, font=letters, anchor="lm")
        draw.text((width - 2 * gap, middle), share, fill=fill, font=letters, anchor="rm")
    return np.asarray(canvas)
