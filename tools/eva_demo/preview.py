"""A contact sheet of digit scenes, of moving digits, and of pictures with captions."""

import textwrap
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eva_data.images import save_image
from eva_demo.captioned_digits import CaptionedDigit
from eva_demo.clips import MOTIONS, Clip
from eva_demo.data_set import Settings
from eva_demo.formats.captions import caption_generator
from eva_demo.formats.format import scene_generator
from eva_demo.formats.video import clip_generator
from eva_demo.scenes import Scene
from eva_demo.splits import SPLITS

_COLUMNS = 8
_LINES, _LINE_HEIGHT = 6, 12  # of a caption


def write_preview(path: Path, settings: Settings) -> None:
    """Write a contact sheet of the first scenes or clips, or of both, as the formats ask for.

    Two rows of training scenes, then two of validation scenes: each is shown plain and, below, with
    masks, boxes and labels. Then a row for each motion: a training clip and a validation clip. Then
    two rows of pictures with their captions of each split.

    Args:
        path: PNG file to write.
        settings: Formats, size and seed.
    """
    rows: list[NDArray[Any]] = []
    if set(settings.formats) - {"video", "captions"}:
        rows += _scene_rows(settings)
    if "video" in settings.formats:
        rows += _clip_rows(settings)
    if "captions" in settings.formats:
        rows += _caption_rows(settings)
    width = max(row.shape[1] for row in rows)
    filled = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    save_image(Image.fromarray(np.vstack(filled)), path)


def _scene_rows(settings: Settings) -> list[NDArray[Any]]:
    rows: list[NDArray[Any]] = []
    for split in SPLITS:
        generator = scene_generator(split, settings.size, settings.seed)
        tiles = [_draw(generator.scene(index)) for index in range(2 * _COLUMNS)]
        rows += [np.hstack(tiles[:_COLUMNS]), np.hstack(tiles[_COLUMNS:])]
    return rows


def _clip_rows(settings: Settings) -> list[NDArray[Any]]:
    makers = [clip_generator(split, settings.size, settings.seed) for split in SPLITS]
    return [
        np.hstack([_draw_clip(maker.clip(index)) for maker in makers])
        for index in range(len(MOTIONS))
    ]


def _caption_rows(settings: Settings) -> list[NDArray[Any]]:
    rows = []
    for split in SPLITS:
        generator = caption_generator(split, settings.size, settings.seed)
        tiles = [_draw_captioned(generator.make(index)) for index in range(2 * _COLUMNS)]
        rows += [np.hstack(tiles[:_COLUMNS]), np.hstack(tiles[_COLUMNS:])]
    return rows


def _draw(scene: Scene) -> NDArray[np.uint8]:
    """Draw a scene, and below it the scene with its annotations, twice as large: (4 H, 2 W, 3)."""
    plain = scene.image.repeat(2, axis=0).repeat(2, axis=1)
    drawn = plain.copy()
    for instance in scene.instances:
        mask = instance.mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
        outlines, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, outlines, -1, (255, 0, 255), 1)
        x0, y0, x1, y1 = (2 * instance.box).astype(int).tolist()
        cv2.rectangle(drawn, (x0, y0), (x1 - 1, y1 - 1), (0, 255, 0), 1)
        _write(drawn, str(instance.category), at=(x0 + 2, y0 + 12))
    return np.vstack([plain, drawn])


def _draw_clip(clip: Clip) -> NDArray[np.uint8]:
    """Draw frames of a clip from the first to the last, twice as large: (2 S, 16 S, 3)."""
    chosen = np.linspace(0, len(clip.frames) - 1, _COLUMNS).round().astype(int)
    drawn = np.hstack(clip.frames[chosen]).repeat(2, axis=0).repeat(2, axis=1)
    _write(drawn, clip.motion, at=(2, 12))
    return drawn


def _draw_captioned(digit: CaptionedDigit) -> NDArray[np.uint8]:
    """Draw a picture, and its caption below it, twice as large: (2 S + 72, 2 S, 3)."""
    drawn = digit.image.repeat(2, axis=0).repeat(2, axis=1)
    side = drawn.shape[0]
    drawn = np.pad(drawn, ((0, _LINES * _LINE_HEIGHT), (0, 0), (0, 0)))
    for number, line in enumerate(textwrap.wrap(digit.caption, side // 6)[:_LINES]):
        _write(drawn, line, at=(2, side + (number + 1) * _LINE_HEIGHT - 3), size=0.33)
    return drawn


def _write(
    picture: NDArray[np.uint8], text: str, *, at: tuple[int, int], size: float = 0.45
) -> None:
    for colour, width in (((0, 0, 0), 3), ((255, 255, 0), 1)):
        cv2.putText(picture, text, at, 0, size, colour, width)
