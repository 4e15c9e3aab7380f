"""Real handwritten digits and real photographs, and what of them trains and what validates.

The digits are the 8x8 scans of scikit-learn, the photographs ship inside the scikit-image wheel;
both are read by path, without a download. Training and validation share neither a digit nor a pixel
of a photograph: the left 65 % of the columns of a texture train, the rest validates. Photographs
with writing of their own (page, text, clock) and the second view of motorcycle are left out.

Letters in shape comments: h, w = height and width of an enlarged digit.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")
DIGIT_RANGES: Mapping[Split, range] = {"train": range(1400), "val": range(1400, 1797)}
TEXTURES = ("brick.png", "grass.png", "gravel.png")
PHOTOS: Mapping[Split, tuple[str, ...]] = {
    "train": (
        *("astronaut.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg"),
        *("motorcycle_left.png", "ihc.png", "camera.png", "color.png"),
    ),
    "val": ("chelsea.png", "retina.jpg", "coins.png"),
}
BACKGROUND_CLASSES = ("brick", "grass", "gravel", "other")

_TEXTURE_CUT = 0.65
_TEXTURE_SHARE = 0.5  # of the backgrounds are textures
_ZOOMS = (1.0, 1.5, 2.25)  # short side of the scaled photograph, in sides of a crop
_MAX_ENLARGEMENT = 1.25  # of a photograph, beyond what is needed to fill the crop
_CELLS = 8  # the scans are 8x8
_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=np.uint8)
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


class Glyph(NamedTuple):
    """An enlarged digit: opacity of the ink (h, w), 0 to 1, and mask (h, w) of ink and rim."""

    ink: NDArray[np.float32]
    mask: NDArray[np.bool_]

    def cropped(self) -> "Glyph":
        """Cut off what is empty, so that the mask touches all four sides."""
        x0, y0, x1, y1 = box_of_mask(self.mask).astype(int)
        return Glyph(self.ink[y0:y1, x0:x1], self.mask[y0:y1, x0:x1])


class Handwriting:
    """The digits of one split, enlarged and rotated."""

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
    """RGB colours (3,) of ink and thin rim, and the contrast of the ink in grey levels."""

    tint: NDArray[np.float32]
    rim: NDArray[np.floating[Any]]
    contrast: float

    def apply(self, pixels: NDArray[np.uint8], glyph: Glyph) -> None:
        """Paint a digit on pixels (h, w, 3), in place."""
        opacity = glyph.ink[glyph.mask][:, None]  # (pixels, 1)
        pixels[glyph.mask] = np.round(self.rim + (self.tint - self.rim) * opacity).astype(np.uint8)


class Photo(NamedTuple):
    """A photograph, or a split's side of a texture, at each zoom that it has pixels for."""

    name: str
    background_class: str
    zooms: tuple[NDArray[np.uint8], ...]


class Photographs:
    """The photographs of one split, for crops of `size` pixels."""

    def __init__(self, split: Split, *, size: int) -> None:
        self._size = size
        self._textures = tuple(load_photo(name, split=split, size=size) for name in TEXTURES)
        self._photos = tuple(load_photo(name, split=split, size=size) for name in PHOTOS[split])

    def crop(self, rng: np.random.Generator) -> tuple[Photo, NDArray[np.uint8]]:
        """Draw a photograph and a crop (size, size, 3), maybe mirrored, darker or brighter."""
        photos = self._textures if rng.random() < _TEXTURE_SHARE else self._photos
        photo = photos[rng.integers(len(photos))]
        pixels = photo.zooms[rng.integers(len(photo.zooms))]
        y = rng.integers(pixels.shape[0] - self._size + 1)
        x = rng.integers(pixels.shape[1] - self._size + 1)
        crop = pixels[y : y + self._size, x : x + self._size]
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        gain = rng.uniform(0.75, 1.15)
        scaled = cv2.convertScaleAbs(np.ascontiguousarray(crop), alpha=gain)
        return photo, np.asarray(scaled, np.uint8)


@dataclass(eq=False)
class Generator:
    """Makes the samples of one split; sample `i` depends on (split, seed, i) and the settings only.

    Args:
        split: `train` or `val`; decides which digits and photographs are used.
        size: Height and width of an image in pixels.
        seed: Seed of the split.
    """

    split: Split
    _: KW_ONLY
    size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        self._handwriting = Handwriting(self.split)
        self._photographs = Photographs(self.split, size=self.size + 2 * self._margin())

    def _margin(self) -> int:
        """Pixels of a photograph around the image."""
        return 0

    def _random(self, *key: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, SPLITS.index(self.split), *key))


def draw_colours(rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw colours for `choose_paint`: (24, 3), 0 to 255."""
    return rng.integers(0, 256, size=(24, 3)).astype(np.float32)


def choose_paint(
    ground: NDArray[np.uint8], *, min_contrast: float, colours: NDArray[np.float32]
) -> Paint:
    """Choose the first colour that stands out from the ground, and a contrasting rim.

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
    """Read the scans (1797, 8, 8), ink from 0 to 1, and their labels (1797,), 0 to 9."""
    path = package_folder("sklearn") / "datasets" / "data" / "digits.csv.gz"
    table = np.loadtxt(path, delimiter=",", dtype=np.float32)  # (1797, 65), the label last
    scans = table[:, :-1].reshape(-1, _CELLS, _CELLS) / np.float32(16)
    return scans.astype(np.float32), table[:, -1].astype(np.int64)


def load_photo(file_name: str, *, split: Split, size: int) -> Photo:
    """Read a photograph, or a split's side of a texture, for crops of `size` pixels."""
    with Image.open(package_folder("skimage") / "data" / file_name) as image:
        pixels = np.asarray(image.convert("RGB"))
    name = Path(file_name).stem
    background_class = name if name in BACKGROUND_CLASSES else "other"
    if file_name in TEXTURES:
        cut = int(pixels.shape[1] * _TEXTURE_CUT)
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


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write texts by their paths below a folder."""
    for name, content in texts.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)


def package_folder(package: str) -> Path:
    """Find the folder of an installed package without the seconds of importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    return Path(spec.origin).parent
