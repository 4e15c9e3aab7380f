"""Label maps: painted over their picture, with a legend, and as files."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from eva_data.files import printable
from eva_report.drawing.lettering import font, shortened
from eva_report.drawing.style import enlarged, enlargement

Color = tuple[int, int, int]

_LEAST_SHARE = 0.0005  # of the pixels, for a line in the legend
_LARGEST_IN_PALETTE = 255
_WIDEST_NAME = 600  # pixels in a legend; where the picture is wider, its width
_ROWS = 256  # that are painted at once


def overlay(
    rgb: NDArray[np.uint8],
    classes: NDArray[np.integer[Any]],
    colors: Sequence[Color],
    *,
    opacity: float = 0.5,
    scale: int | None = None,
) -> NDArray[np.uint8]:
    """Paint the classes over a picture.

    Args:
        rgb: (H, W, 3).
        classes: (H, W) indices; those without a colour, such as 255 for "ignore", are not painted.
        colors: Colour of each class.
        opacity: Opacity of the paint, 0 to 1.
        scale: Enlargement; None for that of `eva_report.drawing.style.enlargement`.

    Returns:
        (H * scale, W * scale, 3).
    """
    palette = np.asarray(colors, np.float32)
    painted = np.empty_like(rgb)
    for start in range(0, len(rgb), _ROWS):
        rows, indices = rgb[start : start + _ROWS], classes[start : start + _ROWS]
        known = indices < len(palette)
        paint = palette[np.where(known, indices, 0)]  # (h, W, 3)
        mixed = np.round(rows * np.float32(1 - opacity) + paint * np.float32(opacity))
        painted[start : start + _ROWS] = np.where(known[..., None], mixed, rows)
    return enlarged(painted, enlargement(*rgb.shape[:2]) if scale is None else scale)


def with_legend(
    picture: NDArray[np.uint8],
    classes: NDArray[np.integer[Any]],
    names: Sequence[str],
    colors: Sequence[Color],
) -> NDArray[np.uint8]:
    """Add a column with colour, name and share of each class in the picture, the largest first.

    Args:
        picture: (H', W', 3), perhaps enlarged.
        classes: (H, W) indices; those without a name count as pixels and have no line.
        names: Name of each class.
        colors: Colour of each class.

    Returns:
        A wider picture, and a higher one where the column needs it.
    """
    height, width = picture.shape[:2]
    shares = np.bincount(classes.ravel(), minlength=len(names))[: len(names)] / classes.size
    shown = [index for index in np.argsort(-shares) if shares[index] >= _LEAST_SHARE]
    size = int(np.clip(height / 28, 11, 40))
    letters = font(size)
    widest = max(width, _WIDEST_NAME)
    texts = [
        f"{shortened(printable(names[index]), letters, widest)}  {shares[index]:.1%}"
        for index in shown
    ]
    line, gap = round(size * 1.6), size // 2
    longest = max((letters.getlength(text) for text in texts), default=0)
    column = round(longest) + line + 3 * gap
    canvas = Image.new("RGB", (width + column, max(height, len(shown) * line + 2 * gap)), "white")
    canvas.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for row, (index, text) in enumerate(zip(shown, texts, strict=True)):
        left, top = width + gap, gap + row * line
        box = (left, top, left + line - gap // 2, top + line - gap // 2)
        draw.rectangle(box, fill=tuple(colors[index]), outline="black")
        middle = (left + line + gap, top + (line - gap // 2) / 2)
        draw.text(middle, text, fill="black", font=letters, anchor="lm")
    return np.asarray(canvas)


def label_image(
    classes: NDArray[np.integer[Any]], labels: Sequence[int], colors: Sequence[Color]
) -> Image.Image:
    """Make a label map as the data set has them, coloured by a palette where labels allow it.

    Args:
        classes: (H, W) indices.
        labels: Value of each class.
        colors: Colour of each class.
    """
    values = np.asarray(labels, np.uint16)[classes]
    if max(labels) > _LARGEST_IN_PALETTE:
        return Image.fromarray(values)
    image = Image.fromarray(values.astype(np.uint8))
    palette = np.zeros((_LARGEST_IN_PALETTE + 1, 3), np.uint8)
    palette[list(labels)] = colors
    image.putpalette(palette.tobytes())
    return image
