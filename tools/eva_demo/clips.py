"""Clips of one moving handwritten digit on a photograph; only the motion distinguishes them.

A state is (x, y, logarithm of the size, angle). In each clip one of the four changes, up or down:
eight motions. The others stand still at a value that a moving one has at a random time, and each is
drawn by itself; so a single frame, taken at a random time, is distributed alike in all eight.
The camera pans a little, in any direction.

Letters in shape comments: T frames, S = height and width of a frame.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from eva_demo.glyphs import Handwriting, choose_paint, draw_colours
from eva_demo.photographs import Photographs
from eva_demo.splits import SPLITS, Split, check_split

# Raised whenever the same seed gives other clips than before, so that old data sets are noticed.
CLIP_VERSION = 1

# Motion -> what changes and its direction. Screen coordinates: y grows downwards; angles
# grow counterclockwise. In alphabetical order, as class folders are sorted.
MOTIONS: Mapping[str, tuple[str, int]] = {
    "down": ("y", 1),
    "grow": ("size", 1),
    "left": ("x", -1),
    "right": ("x", 1),
    "shrink": ("size", -1),
    "turn_left": ("angle", 1),
    "turn_right": ("angle", -1),
    "up": ("y", -1),
}


@dataclass(frozen=True)
class _Range:
    """Where a coordinate may be, and how far it goes in a clip (smallest, largest)."""

    low: float
    high: float
    travel: tuple[float, float]


# Places and sizes in sides of the frame; sizes are logarithms, angles degrees.
_RANGES: Mapping[str, _Range] = {
    "x": _Range(0.28, 0.72, (0.25, 0.4)),
    "y": _Range(0.28, 0.72, (0.25, 0.4)),
    "size": _Range(float(np.log(0.32)), float(np.log(0.7)), (0.5, 0.7)),
    "angle": _Range(-70, 70, (60, 100)),
}
_PAN = 0.06  # most that the camera moves in a clip, in sides of the frame
_MIN_CONTRAST = 60.0
_MIN_SIZE = 24  # pixels


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames with what is in them.

    Attributes:
        frames: Array (T, S, S, 3), RGB.
        motion: A key of `MOTIONS`.
        category: Digit, 0 to 9.
        digit_index: Row in scikit-learn's digits.
        background: Name of the photograph, with the side of a texture.
        path: For each of `x`, `y`, `size` (pixels) and `angle` (degrees, counterclockwise) its
            first and last value.
    """

    frames: NDArray[np.uint8]
    motion: str
    category: int
    digit_index: int
    background: str
    path: Mapping[str, tuple[float, float]]


@dataclass(eq=False)
class ClipGenerator:
    """The clips of one split; clip `i` depends on (split, seed, i) and the settings only.

    Clip `i` shows motion `i % 8`.

    Args:
        split: `train` or `val`; decides which digits and photographs are used.
        size: Height and width of a frame in pixels.
        length: Fewest and most frames of a clip, both inclusive.
        seed: Seed of the split.

    Raises:
        ValueError: If a setting is out of range.
    """

    split: Split
    _: KW_ONLY
    size: int = 64
    length: tuple[int, int] = (16, 24)
    seed: int = 0

    def __post_init__(self) -> None:
        check_split(self.split)
        if self.size < _MIN_SIZE:
            raise ValueError(f"size={self.size}: digits need frames of at least {_MIN_SIZE} px")
        if not 2 <= self.length[0] <= self.length[1]:
            raise ValueError(f"length={self.length} must be (fewest, most), at least 2 frames")
        self._margin = int(np.ceil(_PAN * self.size)) + 1
        self._handwriting = Handwriting(self.split)
        self._photographs = Photographs(self.split, size=self.size + 2 * self._margin)

    def clip(self, index: int) -> Clip:
        """Make one clip.

        Args:
            index: Number of the clip, from 0.

        Raises:
            ValueError: If the index is negative.
        """
        if index < 0:
            raise ValueError(f"index {index} is negative; clips are numbered from 0")
        rng = np.random.default_rng((self.seed, SPLITS.index(self.split), index, CLIP_VERSION))
        motion = list(MOTIONS)[index % len(MOTIONS)]
        time = np.linspace(0, 1, int(rng.integers(self.length[0], self.length[1] + 1)))
        x, y, size, angle = draw_path(motion, time, rng=rng)  # (4, T)
        places, px = np.stack([x, y], 1) * self.size - 0.5, np.exp(size) * self.size
        category, digit = self._handwriting.choose(rng)
        photo, frames = self._filmed(time, rng=rng)
        glyphs = [
            self._handwriting.glyph(
                digit, px=height, angle=turned, side=self.size, centre=(place[0], place[1])
            )
            for place, height, turned in zip(places, px.tolist(), angle.tolist(), strict=True)
        ]
        masks = np.stack([glyph.mask for glyph in glyphs])  # (T, S, S)
        paint = choose_paint(frames[masks], min_contrast=_MIN_CONTRAST, colours=draw_colours(rng))
        for frame, glyph in zip(frames, glyphs, strict=True):
            paint.apply(frame, glyph)
        path = {"x": places[:, 0], "y": places[:, 1], "size": px, "angle": angle}
        ends = {name: (float(values[0]), float(values[-1])) for name, values in path.items()}
        return Clip(frames, motion, category, digit, photo, ends)

    def _filmed(
        self, time: NDArray[np.floating[Any]], *, rng: np.random.Generator
    ) -> tuple[str, NDArray[np.uint8]]:
        """Pan over a photograph: its name, and frames (T, S, S, 3)."""
        photo, ground = self._photographs.crop(rng)
        heading, way = rng.uniform(0, 2 * np.pi), rng.uniform(0, _PAN * self.size)
        shift = np.array([np.cos(heading), np.sin(heading)]) * way
        middle = (ground.shape[0] - 1) / 2
        size = (self.size, self.size)
        frames = [
            cv2.getRectSubPix(ground, size, (middle + dx, middle + dy))
            for dx, dy in (time[:, None] - 0.5) * shift
        ]
        return photo.name, np.stack(frames)


def draw_path(
    motion: str, time: NDArray[np.floating[Any]], *, rng: np.random.Generator
) -> NDArray[np.floating[Any]]:
    """Draw the course of the four coordinates.

    Args:
        motion: A key of `MOTIONS`.
        time: Array (T,) from 0 to 1.
        rng: Draws them.

    Returns:
        Array (4, T): x, y, logarithm of the size, in sides of the frame; angle in degrees.
    """
    moving, direction = MOTIONS[motion]
    courses = []
    for name, bounds in _RANGES.items():
        travel = rng.uniform(*bounds.travel)
        start = rng.uniform(bounds.low, bounds.high - travel)
        backwards = direction < 0 if name == moving else rng.random() < 0.5
        at = time[::-1] if backwards else time
        frozen = rng.choice(at)  # drawn in any case, so that all motions draw alike
        courses.append(start + travel * (at if name == moving else np.full_like(time, frozen)))
    return np.stack(courses)
