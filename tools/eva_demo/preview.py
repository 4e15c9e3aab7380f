"""A contact sheet of digit scenes, plain and with their annotations."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eva_data.inputs import save_picture
from eva_demo.data_set import Settings, scene_generator
from eva_demo.scenes import SPLITS, Scene

_COLUMNS = 8


def write_preview(path: Path, settings: Settings) -> None:
    """Write a contact sheet: two rows of training scenes, then two of validation scenes.

    Args:
        path: PNG file to write.
        settings: Size and seed of the scenes, each of which is shown plain and, below, with masks,
            boxes and labels.
    """
    rows: list[NDArray[Any]] = []
    for split in SPLITS:
        generator = scene_generator(split, settings.size, settings.seed)
        tiles = [_draw(generator.scene(index)) for index in range(2 * _COLUMNS)]
        rows += [np.hstack(tiles[:_COLUMNS]), np.hstack(tiles[_COLUMNS:])]
    save_picture(Image.fromarray(np.vstack(rows)), path)


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
        for colour, width in (((0, 0, 0), 3), ((255, 255, 0), 1)):
            cv2.putText(drawn, str(instance.category), (x0 + 2, y0 + 12), 0, 0.45, colour, width)
    return np.vstack([plain, drawn])
