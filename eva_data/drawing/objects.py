"""Objects drawn on a picture: box, mask, name and score; labels and predictions alike."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class DrawnObject(NamedTuple):
    """An object to draw.

    Attributes:
        box: x0, y0, x1, y1 in pixels of the picture.
        name: Name of its class.
        label: Number of its class, which chooses the colour.
        score: Score, 0 to 1; None for labels.
        mask: (H, W) bool, or a run-length code of COCO; None without one.
    """

    box: Sequence[float]
    name: str
    label: int
    score: float | None = None
    mask: NDArray[np.bool_] | dict[str, Any] | None = None


def draw_objects(
    image: NDArray[np.uint8], objects: Sequence[DrawnObject], *, scale: int | None = None
) -> NDArray[np.uint8]:
    """Draw objects on a picture, the largest first.

    Args:
        image: (H, W, 3) RGB.
        objects: Objects in pixels of the image.
        scale: Enlargement; None for that of `eva_data.drawing.style.enlargement`.

    Returns:
        (H * scale, W * scale, 3) RGB.

    Raises:
        ValueError: If a side is longer than can be drawn.
    """
    raise NotImplementedError
