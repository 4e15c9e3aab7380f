"""Real photographs as backgrounds: those that ship inside the scikit-image wheel.

The files are read by path, so scikit-image's downloader (pooch) is never asked.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eva_demo.splits import PHOTOS, TEXTURE_CUT, TEXTURES, Split, package_folder

BACKGROUND_CLASSES: tuple[str, ...] = ("brick", "grass", "gravel", "other")
TEXTURE_SHARE = 0.5  # of the backgrounds are textures

_ZOOMS = (1.0, 1.5, 2.25)  # short side of the scaled photograph, in sides of a crop
_MAX_ENLARGEMENT = 1.25  # of a photograph, beyond what is needed to fill the crop


class Photo(NamedTuple):
    """A photograph, or a split's side of a texture.

    Attributes:
        name: Its name, with the side of a texture: `brick-left`.
        background_class: One of `BACKGROUND_CLASSES`.
        zooms: Arrays (rows, columns, 3), each large enough for a crop.
    """

    name: str
    background_class: str
    zooms: tuple[NDArray[np.uint8], ...]


class Photographs:
    """The photographs of one split.

    Args:
        split: `train` or `val`.
        size: Height and width of the crops in pixels.
    """

    def __init__(self, split: Split, *, size: int) -> None:
        self._size = size
        self._textures = tuple(load_photo(name, split=split, size=size) for name in TEXTURES)
        self._photos = tuple(load_photo(name, split=split, size=size) for name in PHOTOS[split])

    def crop(self, rng: np.random.Generator) -> tuple[Photo, NDArray[np.uint8]]:
        """Draw a photograph and a crop (size, size, 3), maybe mirrored, darker or brighter."""
        photos = self._textures if rng.random() < TEXTURE_SHARE else self._photos
        photo = photos[rng.integers(len(photos))]
        picture = photo.zooms[rng.integers(len(photo.zooms))]
        y = rng.integers(picture.shape[0] - self._size + 1)
        x = rng.integers(picture.shape[1] - self._size + 1)
        crop = picture[y : y + self._size, x : x + self._size]
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        gain = rng.uniform(0.75, 1.15)
        scaled = cv2.convertScaleAbs(np.ascontiguousarray(crop), alpha=gain)
        return photo, np.asarray(scaled, np.uint8)


def load_photo(file_name: str, *, split: Split, size: int) -> Photo:
    """Read one photograph, or a split's side of a texture, at each zoom that it has pixels for."""
    with Image.open(package_folder("skimage") / "data" / file_name) as image:
        pixels = np.asarray(image.convert("RGB"))
    name = Path(file_name).stem
    background_class = name if name in BACKGROUND_CLASSES else "other"
    if file_name in TEXTURES:
        cut = int(pixels.shape[1] * TEXTURE_CUT)
        pixels = pixels[:, :cut] if split == "train" else pixels[:, cut:]
        name = f"{name}-left" if split == "train" else f"{name}-right"
    zooms = []
    short_side = min(pixels.shape[:2])
    for zoom in _ZOOMS:
        scale = size * zoom / short_side
        if zoom > 1 and scale > _MAX_ENLARGEMENT:
            break
        height, width = (max(size, round(side * scale)) for side in pixels.shape[:2])
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        zooms.append(np.asarray(cv2.resize(pixels, (width, height), interpolation=method)))
    return Photo(name, background_class, tuple(zooms))
