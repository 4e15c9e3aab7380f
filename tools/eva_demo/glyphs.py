"""Real handwritten digits, enlarged, rotated, tinted and outlined by a thin contrasting rim.

They are the 8x8 scans of scikit-learn, read by path. Shapes: h, w = those of an enlarged digit.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from eva_demo.splits import DIGIT_RANGES, Split, package_folder

_CELLS = 8  # the scans are 8x8
_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=np.uint8)
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


class Glyph(NamedTuple):
    """An enlarged digit.

    Attributes:
        ink: Array (h, w), opacity of the ink, 0 to 1.
        mask: Array (h, w), True for ink and rim.
    """

    ink: NDArray[np.float32]
    mask: NDArray[np.bool_]

    def cropped(self) -> "Glyph":
        """Cut off what is empty, so that the mask touches all four sides."""
        x0, y0, x1, y1 = box_of_mask(self.mask).astype(int)
        return Glyph(self.ink[y0:y1, x0:x1], self.mask[y0:y1, x0:x1])


class Handwriting:
    """The digits of one split.

    Args:
        split: `train` or `val`.
    """

    def __init__(self, split: Split) -> None:
        scans, labels = load_digit_scans()
        self._scans = np.pad(scans, ((0, 0), (2, 2), (2, 2)))  # so that no stroke is clipped
        indices = np.array(DIGIT_RANGES[split])
        self._indices = tuple(indices[labels[indices] == category] for category in range(10))

    def choose(self, rng: np.random.Generator) -> tuple[int, int]:
        """Draw a digit, 0 to 9, and a row of scikit-learn's digits that shows it."""
        category = int(rng.integers(10))
        return category, self.row(category, rng)

    def row(self, category: int, rng: np.random.Generator) -> int:
        """Draw a row of scikit-learn's digits that shows a digit, 0 to 9."""
        return int(rng.choice(self._indices[category]))

    def glyph(
        self,
        index: int,
        *,
        px: float,
        angle: float,
        side: int | None = None,
        centre: tuple[float, float] | None = None,
    ) -> Glyph:
        """Enlarge a digit; its mask is the ink, closed, and dilated by a pixel for the rim.

        Args:
            index: Row in scikit-learn's digits.
            px: Height of the upright digit in pixels.
            angle: Rotation in degrees, counterclockwise.
            side: Height and width of the square that it is drawn on; by default just enough.
            centre: Centre (x, y) of the digit in the square; by default the square's.

        Returns:
            The digit, with h = w = side.
        """
        scan = self._scans[index]
        side = canvas_side(px) if side is None else side
        x, y = ((side - 1) / 2, (side - 1) / 2) if centre is None else centre
        middle = (scan.shape[0] - 1) / 2
        matrix = cv2.getRotationMatrix2D((middle, middle), angle, px / _CELLS)
        matrix[:, 2] += np.array([x, y]) - middle
        density = cv2.warpAffine(scan, matrix, (side, side), flags=cv2.INTER_CUBIC)
        ink = np.clip((density - 0.35) / 0.2, 0, 1)
        solid = (ink >= 0.5).astype(np.uint8)
        solid = cv2.morphologyEx(solid, cv2.MORPH_CLOSE, _CROSS)
        mask = cv2.dilate(solid, np.ones((3, 3), np.uint8)).astype(bool)
        return Glyph(ink, mask)


class Paint(NamedTuple):
    """Colours of a digit.

    Attributes:
        tint: RGB colour (3,) of the ink, 0 to 255.
        rim: RGB colour (3,) of the rim.
        contrast: Luminance of the ink minus that of the ground, in grey levels.
    """

    tint: NDArray[np.float32]
    rim: NDArray[np.floating[Any]]
    contrast: float

    def apply(self, pixels: NDArray[np.uint8], glyph: Glyph) -> None:
        """Paint a digit on pixels (h, w, 3), in place."""
        opacity = glyph.ink[glyph.mask][:, None]  # (pixels, 1)
        pixels[glyph.mask] = np.round(self.rim + (self.tint - self.rim) * opacity).astype(np.uint8)


def draw_colours(rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw colours for `choose_paint`: (24, 3), 0 to 255."""
    return rng.integers(0, 256, size=(24, 3)).astype(np.float32)


def choose_paint(
    ground: NDArray[np.uint8], *, min_contrast: float, colours: NDArray[np.float32]
) -> Paint:
    """Choose the first colour that stands out from the ground, and a rim.

    Args:
        ground: Pixels (N, 3) or (h, w, 3) below the digit.
        min_contrast: Smallest distance of the ink's luminance to their mean, in grey levels.
        colours: Colours of the ink (n, 3); black or white follows them.
    """
    luminance = float(ground.reshape(-1, 3).mean(axis=0) @ _LUMA)
    extreme = np.full((1, 3), 0 if luminance > 127 else 255, dtype=np.float32)
    colours = np.concatenate([colours, extreme])
    tint = np.asarray(colours[np.argmax(np.abs(colours @ _LUMA - luminance) > min_contrast)])
    contrast = float(tint @ _LUMA) - luminance
    rim = tint * 0.15 if contrast > 0 else 255 - (255 - tint) * 0.15
    return Paint(tint, rim, contrast)


def box_of_mask(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Find the box `x0, y0, x1, y1` (4,) around a mask (H, W) with a True pixel; ends exclusive."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1], dtype=np.float64)


def canvas_side(px: float) -> int:
    """Compute the side of a square that holds a rotated digit of `px` pixels with its rim."""
    return int(px * (_CELLS + 2) / _CELLS * 1.2) + 6


def load_digit_scans() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read scikit-learn's digits from its file, without the two seconds of importing scikit-learn.

    Returns:
        The scans (1797, 8, 8), ink from 0 to 1, and their labels (1797,), 0 to 9.
    """
    path = package_folder("sklearn") / "datasets" / "data" / "digits.csv.gz"
    table = np.loadtxt(path, delimiter=",", dtype=np.float32)  # (1797, 65), the label last
    scans = table[:, :-1].reshape(-1, _CELLS, _CELLS) / np.float32(16)
    return scans.astype(np.float32), table[:, -1].astype(np.int64)
