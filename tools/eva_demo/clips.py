"""Clips of one moving handwritten digit on a photograph; only the motion distinguishes them.

A state is (x, y, logarithm of the size, angle). In each clip one of the four changes, up or down:
eight motions. The others stand still at a value that a moving one has at a random time, and each is
drawn by itself; so a single frame, taken at a random time, is distributed alike in all eight.
The camera pans a little, in any direction.

Letters in shape comments: T frames, S = height and width of a frame.
"""

import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from eva_data.video.streams import Frame, VideoWriter
from eva_demo.sources import Generator, Split, choose_paint, draw_colours, write_texts

# Raised whenever the same seed gives other clips than before, so that old datasets are noticed.
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
# Coordinate -> lowest and highest value, and least and most travel in a clip. Places and sizes in
# sides of the frame; sizes are logarithms, angles degrees.
_RANGES: Mapping[str, tuple[float, float, tuple[float, float]]] = {
    "x": (0.28, 0.72, (0.25, 0.4)),
    "y": (0.28, 0.72, (0.25, 0.4)),
    "size": (float(np.log(0.32)), float(np.log(0.7)), (0.5, 0.7)),
    "angle": (-70, 70, (60, 100)),
}
_LENGTH = (16, 24)  # fewest and most frames
_PAN = 0.06  # most that the camera moves in a clip, in sides of the frame
_MIN_CONTRAST = 60.0
_FRAMES_PER_SECOND = Fraction(25)


Clip = tuple[NDArray[np.uint8], dict[str, Any]]  # RGB frames (T, S, S, 3), and what is in them


class ClipGenerator(Generator):
    """The clips of one split; clip `i` shows motion `i % 8`."""

    def _margin(self) -> int:
        return int(np.ceil(_PAN * self.size)) + 1

    def make(self, index: int) -> Clip:
        """Make clip `index`.

        Its `path` has the first and last of `x`, `y`, `size` in pixels, and `angle` in degrees,
        counterclockwise.
        """
        rng = self._random(index, CLIP_VERSION)
        motion = list(MOTIONS)[index % len(MOTIONS)]
        time = np.linspace(0, 1, int(rng.integers(_LENGTH[0], _LENGTH[1] + 1)))
        x, y, size, angle = draw_path(motion, time, rng=rng)  # (4, T)
        centres, px = np.stack([x, y], 1) * self.size - 0.5, np.exp(size) * self.size
        category, digit = self._handwriting.choose(rng)
        photo, frames = self._filmed(time, rng=rng)
        glyphs = [
            self._handwriting.glyph(digit, px=height, angle=turn, side=self.size, centre=centre)
            for centre, height, turn in zip(map(tuple, centres), px.tolist(), angle, strict=True)
        ]
        masks = np.stack([glyph.mask for glyph in glyphs])  # (T, S, S)
        paint = choose_paint(frames[masks], min_contrast=_MIN_CONTRAST, colours=draw_colours(rng))
        for frame, glyph in zip(frames, glyphs, strict=True):
            paint.apply(frame, glyph)
        path = {"x": centres[:, 0], "y": centres[:, 1], "size": px, "angle": angle}
        ends = {name: values[[0, -1]].tolist() for name, values in path.items()}
        return frames, {
            "motion": motion,
            "frames": len(frames),
            "size": self.size,
            "digit": category,
            "digit_index": digit,
            "photo": photo,
            "path": {name: [round(end, 3) for end in both] for name, both in ends.items()},
        }

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
    for name, (low, high, travels) in _RANGES.items():
        travel = rng.uniform(*travels)
        start = rng.uniform(low, high - travel)
        backwards = direction < 0 if name == moving else rng.random() < 0.5
        at = time[::-1] if backwards else time
        frozen = rng.choice(at)  # drawn in any case, so that all motions draw alike
        courses.append(start + travel * (at if name == moving else np.full_like(time, frozen)))
    return np.stack(courses)


def export_clip(folder: Path, split: Split, index: int, clip: Clip) -> dict[str, Any]:
    """Write `{train,val}/MOTION/NUMBER.mp4`, H.264; return its entry in `clips.json`."""
    frames, facts = clip
    name = f"{split}/{facts['motion']}/{index + 1:06d}.mp4"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(folder / name, reproducible=True) as writer:
        for number, rgb in enumerate(frames):
            writer.add(rgb, Frame(rgb, number, 1 / _FRAMES_PER_SECOND, _FRAMES_PER_SECOND))
    return {"file": name, **facts}


def finish_clips(folder: Path, exported: Mapping[Split, list[Any]]) -> None:
    """Write lists `{train,val}.txt` of `PATH LABEL`, `classes.txt` and `clips.json`."""
    labels = {motion: label for label, motion in enumerate(MOTIONS)}
    texts = {
        "classes.txt": "".join(f"{motion}\n" for motion in MOTIONS),
        "clips.json": json.dumps(exported),
    }
    for split, clips in exported.items():
        lines = (f"{clip['file']} {labels[clip['motion']]}\n" for clip in clips)
        texts[f"{split}.txt"] = "".join(lines)
    write_texts(folder, texts)
