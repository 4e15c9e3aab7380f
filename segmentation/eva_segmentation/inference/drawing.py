"""Pictures with their classes painted over, and label maps as files."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from eva_segmentation.data.classes import Color

_LEAST_SHARE = 0.0005  # of the pixels, for a line in the legend
_LARGEST_IN_PALETTE = 255


def overlay(
    rgb: NDArray[np.uint8],
    classes: NDArray[np.uint8],
    colors: Sequence[Color],
    *,
    opacity: float = 0.5,
) -> NDArray[np.uint8]:
    """Paint the classes over a picture.

    Args:
        rgb: (H, W, 3).
        classes: (H, W) indices.
        colors: Colour of each class.
        opacity: Opacity of the paint, 0 to 1.

    Returns:
        (H, W, 3).
    """
    paint = np.asarray(colors, np.float32)[classes]  # (H, W, 3)
    return np.round(rgb * (1 - opacity) + paint * opacity).astype(np.uint8)


def with_legend(
    picture: NDArray[np.uint8],
    classes: NDArray[np.uint8],
    names: Sequence[str],
    colors: Sequence[Color],
) -> NDArray[np.uint8]:
    """Add a column with colour, name and share of each class in the picture, the largest first.

    Args:
        picture: (H, W, 3).
        classes: (H, W) indices.
        names: Name of each class.
        colors: Colour of each class.

    Returns:
        A wider picture, and a higher one where the column needs it.
    """
    height, width = picture.shape[:2]
    shares = np.bincount(classes.ravel(), minlength=len(names)) / classes.size
    shown = [index for index in np.argsort(-shares) if shares[index] >= _LEAST_SHARE]
    size = int(np.clip(height / 28, 11, 40))
    font = ImageFont.load_default(size)
    texts = [f"{names[index].strip()}  {shares[index]:.1%}" for index in shown]
    line, gap = round(size * 1.6), size // 2
    column = round(max(font.getlength(text) for text in texts)) + line + 3 * gap
    canvas = Image.new("RGB", (width + column, max(height, len(shown) * line + 2 * gap)), "white")
    canvas.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for row, (index, text) in enumerate(zip(shown, texts, strict=True)):
        left, top = width + gap, gap + row * line
        box = (left, top, left + line - gap // 2, top + line - gap // 2)
        draw.rectangle(box, fill=tuple(colors[index]), outline="black")
        middle = (left + line + gap, top + (line - gap // 2) / 2)
        draw.text(middle, text, fill="black", font=font, anchor="lm")
    return np.asarray(canvas)


def label_image(
    classes: NDArray[np.uint8], labels: Sequence[int], colors: Sequence[Color]
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
