"""Digit scenes: real handwritten digits on real photographs, built offline from installed packages.

A scene is a square crop of a photograph that ships inside the scikit-image wheel, on which a few
handwritten digits of scikit-learn (8x8 scans) are painted: enlarged, rotated, tinted against their
local background and outlined by a thin contrasting rim. The files are read from the installed
packages by path, so scikit-image's downloader (pooch) is never asked.

Training and validation share neither a digit nor a pixel of a photograph: see `DIGIT_RANGES` and
`PHOTOS`; of a texture the left 65 % of the columns train and the right 35 % validate. Photographs
with writing of their own (page, text, clock) and the second view of motorcycle are left out.

Letters in shape comments: H, W = height and width of the image; h, w = those of an enlarged digit.
"""

import functools
import importlib.util
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Split = Literal["train", "val"]
_Region = tuple[slice, slice] | tuple[NDArray[np.int64], NDArray[np.int64]]

# Raised whenever the same seed gives other scenes than before, so that old data sets are noticed.
SCENE_VERSION = 1
SPLITS: tuple[Split, ...] = ("train", "val")
BACKGROUND_CLASSES: tuple[str, ...] = ("brick", "grass", "gravel", "other")
DIGIT_RANGES: Mapping[Split, range] = {"train": range(1400), "val": range(1400, 1797)}
TEXTURES: tuple[str, ...] = ("brick.png", "grass.png", "gravel.png")
PHOTOS: Mapping[Split, tuple[str, ...]] = {
    "train": (
        *("astronaut.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg"),
        *("motorcycle_left.png", "ihc.png", "camera.png", "color.png"),
    ),
    "val": ("chelsea.png", "retina.jpg", "coins.png"),
}
TEXTURE_CUT = 0.65
TEXTURE_SHARE = 0.5  # of the scenes have a texture as background

_ZOOMS = (1.0, 1.5, 2.25)  # short side of the scaled photograph, in image sizes
_MAX_ENLARGEMENT = 1.25  # of a photograph, beyond what is needed to fill the image
_GLYPH_CELLS = 8  # the scans are 8x8
_SHRINK = 0.9  # of the digit's size after each failed round of placements
_POSITIONS_PER_ROUND = 8
_MAX_RESTARTS = 50
_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=np.uint8)
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


@dataclass(frozen=True, eq=False)
class Instance:
    """One digit in a scene, as far as it is visible.

    Attributes:
        category: Digit, 0 to 9.
        mask: Array (H, W), True where ink or rim of this digit is visible.
        box: Array (4,), `x0, y0, x1, y1` in pixels around the visible mask, upper
            ends exclusive.
        digit_index: Row in scikit-learn's digits.
        tint: RGB colour of the ink, 0 to 255.
        contrast: Luminance of the ink minus mean luminance of the ground below, in grey levels.
        full_area: Pixels of the mask before later digits covered it.
    """

    category: int
    mask: NDArray[np.bool_]
    box: NDArray[np.float64]
    digit_index: int
    tint: tuple[int, int, int]
    contrast: float
    full_area: int


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture with its exact description; every annotation format is derived from it.

    Attributes:
        image: Array (H, W, 3), RGB.
        instances: Digits in the order of painting, a later one over an earlier one.
        background: Name of the photograph, with the side of a texture: `brick-left`.
        background_class: One of `BACKGROUND_CLASSES`.
    """

    image: NDArray[np.uint8]
    instances: tuple[Instance, ...]
    background: str
    background_class: str


class _Photo(NamedTuple):
    name: str
    background_class: str
    zooms: tuple[NDArray[np.uint8], ...]  # each (rows, columns, 3), both at least the scene's size


class _Glyph(NamedTuple):
    ink: NDArray[np.float32]  # (h, w), opacity of the ink, 0 to 1
    mask: NDArray[np.bool_]  # (h, w), ink and rim; touches all four sides


class _Canvas:
    """The scene while it is painted; `owner` (H, W) is the topmost instance or -1."""

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.image = image
        self.owner = np.full(image.shape[:2], -1, dtype=np.int16)
        self.painted: list[Instance] = []

    def visible(self, region: _Region = (slice(None), slice(None))) -> NDArray[np.int64]:
        """Count the visible pixels of each instance, (instances,), in a region of the image."""
        seen = self.owner[region]
        return np.bincount(seen[seen >= 0], minlength=len(self.painted))


@dataclass(eq=False)
class SceneGenerator:
    """The scenes of one split; scene `i` depends on (split, seed, i) and the settings only.

    No call changes it, so the order of the calls, the process and the thread do not matter.

    Args:
        split: `train` or `val`; decides which digits and photographs are used.
        size: Height and width of the image in pixels.
        digits: Fewest and most digits in a scene, both inclusive; fewer than drawn where
            there is no room, but never less than the fewest.
        digit_px: Smallest and largest height of an upright digit in pixels, both inclusive.
        max_rotation: Largest rotation to either side, in degrees, at most 45.
        max_hidden: Largest part of an earlier digit that later ones may cover, below 1.
        min_contrast: Smallest distance of the ink's luminance to the mean of the local background,
            in grey levels, at most 120.
        seed: Seed of the split.

    Raises:
        ValueError: If a setting is out of range or the digits cannot fit into the image.
    """

    split: Split
    _: KW_ONLY
    size: int = 128
    digits: tuple[int, int] = (2, 5)
    digit_px: tuple[int, int] = (22, 56)
    max_rotation: float = 12.0
    max_hidden: float = 0.15
    min_contrast: float = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split={self.split!r}; choose one of {', '.join(SPLITS)}")
        if not 1 <= self.digits[0] <= self.digits[1]:
            raise ValueError(
                f"digits={self.digits} must be (fewest, most) with 1 <= fewest <= most"
            )
        least, most = self.digit_px
        if not 8 <= least <= most or _canvas_side(most) > self.size:
            raise ValueError(
                f"digit_px={self.digit_px} at size={self.size}: it must be (smallest, largest) "
                f"with 8 <= smallest <= largest, and the largest needs {_canvas_side(most)} px"
            )
        hidden, contrast, rotation = self.max_hidden, self.min_contrast, self.max_rotation
        if not (0 <= hidden < 1 and 0 <= contrast <= 120 and 0 <= rotation <= 45):
            raise ValueError(
                f"max_hidden={hidden}, min_contrast={contrast}, max_rotation={rotation}"
                " must lie in [0, 1), [0, 120] and [0, 45]"
            )
        self._entropy = (self.seed, SPLITS.index(self.split))
        scans, labels = load_digit_scans()
        self._scans = np.pad(scans, ((0, 0), (2, 2), (2, 2)))  # so that no stroke is clipped
        indices = np.array(DIGIT_RANGES[self.split])
        self._indices = tuple(indices[labels[indices] == category] for category in range(10))
        load = functools.partial(_load_photo, split=self.split, size=self.size)
        self._textures = tuple(map(load, TEXTURES))
        self._photos = tuple(map(load, PHOTOS[self.split]))

    def scene(self, index_or_rng: int | np.random.Generator) -> Scene:
        """Make one scene.

        Args:
            index_or_rng: Number of the scene, from 0; or a generator, from which all is drawn.

        Returns:
            The scene, with an image (size, size, 3).

        Raises:
            ValueError: If the index is negative or the settings leave no room for the digits.
        """
        if isinstance(index_or_rng, np.random.Generator):
            rng = index_or_rng
        elif index_or_rng < 0:
            raise ValueError(f"index {index_or_rng} is negative; scenes are numbered from 0")
        else:
            rng = np.random.default_rng((*self._entropy, int(index_or_rng)))
        for _ in range(_MAX_RESTARTS):
            scene = self._try_scene(rng)
            if len(scene.instances) >= self.digits[0]:
                return scene
        raise ValueError(
            f"no room for {self.digits[0]} digits of {self.digit_px} px in {self.size} px; lower "
            "digits or digit_px, or raise size"
        )

    def _try_scene(self, rng: np.random.Generator) -> Scene:
        photos = self._textures if rng.random() < TEXTURE_SHARE else self._photos
        photo = photos[rng.integers(len(photos))]
        canvas = _Canvas(self._crop(photo, rng=rng))
        for _ in range(rng.integers(self.digits[0], self.digits[1] + 1)):
            category = int(rng.integers(10))
            index = int(rng.choice(self._indices[category]))
            self._paint(canvas, category, index, rng=rng)
        instances = []
        for number, instance in enumerate(canvas.painted):
            mask = canvas.owner == number
            instances.append(replace(instance, mask=mask, box=box_of_mask(mask)))
        return Scene(canvas.image, tuple(instances), photo.name, photo.background_class)

    def _crop(self, photo: _Photo, *, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Draw a crop (size, size, 3) of a photograph, maybe mirrored, darker or brighter."""
        picture = photo.zooms[rng.integers(len(photo.zooms))]
        y = rng.integers(picture.shape[0] - self.size + 1)
        x = rng.integers(picture.shape[1] - self.size + 1)
        crop = picture[y : y + self.size, x : x + self.size]
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        gain = rng.uniform(0.75, 1.15)
        return np.asarray(cv2.convertScaleAbs(np.ascontiguousarray(crop), alpha=gain), np.uint8)

    def _place(
        self, canvas: _Canvas, index: int, *, rng: np.random.Generator
    ) -> tuple[_Glyph, int, int] | None:
        """Enlarge a digit; find a corner (y, x) where it hides little enough, None without one."""
        low, high = self.digit_px
        px = float(rng.uniform(low, high))
        angle = float(rng.uniform(-self.max_rotation, self.max_rotation))
        full = np.array([instance.full_area for instance in canvas.painted])
        allowed = canvas.visible() - (1 - self.max_hidden) * full
        while True:
            glyph = _enlarge(self._scans[index], px=px, angle=angle)
            ys, xs = np.nonzero(glyph.mask)
            room = [self.size - side + 1 for side in glyph.mask.shape]
            for y, x in rng.integers(room, size=(_POSITIONS_PER_ROUND, 2)):
                if np.all(canvas.visible((ys + y, xs + x)) <= allowed):
                    return glyph, int(y), int(x)
            if px <= low:
                return None
            px = max(px * _SHRINK, float(low))

    def _paint(
        self, canvas: _Canvas, category: int, index: int, *, rng: np.random.Generator
    ) -> None:
        """Paint a digit with its rim where there is a place for it."""
        placed = self._place(canvas, index, rng=rng)
        if placed is None:
            return
        glyph, y, x = placed
        h, w = glyph.mask.shape
        window = canvas.image[y : y + h, x : x + w]  # (h, w, 3), a view
        ground = float(window.reshape(-1, 3).mean(axis=0) @ _LUMA)
        tint = self._choose_tint(ground, rng=rng)
        contrast = float(tint @ _LUMA) - ground
        rim = tint * 0.15 if contrast > 0 else 255 - (255 - tint) * 0.15
        opacity = glyph.ink[glyph.mask][:, None]  # (pixels, 1)
        window[glyph.mask] = np.round(rim + (tint - rim) * opacity).astype(np.uint8)
        canvas.owner[y : y + h, x : x + w][glyph.mask] = len(canvas.painted)
        red, green, blue = (int(value) for value in tint)
        area = int(np.count_nonzero(glyph.mask))
        box = np.zeros(4)  # mask and box follow when all digits are painted
        canvas.painted.append(
            Instance(category, glyph.mask, box, index, (red, green, blue), contrast, area)
        )

    def _choose_tint(self, ground: float, *, rng: np.random.Generator) -> NDArray[np.float32]:
        """Draw an RGB colour (3,) whose luminance keeps its distance to that of the ground."""
        colours = rng.integers(0, 256, size=(24, 3)).astype(np.float32)
        extreme = np.full((1, 3), 0 if ground > 127 else 255, dtype=np.float32)
        colours = np.concatenate([colours, extreme])
        return np.asarray(colours[np.argmax(np.abs(colours @ _LUMA - ground) > self.min_contrast)])


def box_of_mask(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Find the box `x0, y0, x1, y1` (4,) around a mask (H, W) with a True pixel; ends exclusive."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1], dtype=np.float64)


def load_digit_scans() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read scikit-learn's digits from its file, without the two seconds of importing scikit-learn.

    Returns:
        The scans (1797, 8, 8), ink from 0 to 1, and their labels (1797,), 0 to 9.
    """
    path = _package_folder("sklearn") / "datasets" / "data" / "digits.csv.gz"
    table = np.loadtxt(path, delimiter=",", dtype=np.float32)  # (1797, 65), the label last
    scans = table[:, :-1].reshape(-1, _GLYPH_CELLS, _GLYPH_CELLS) / np.float32(16)
    return scans.astype(np.float32), table[:, -1].astype(np.int64)


def _load_photo(file_name: str, *, split: Split, size: int) -> _Photo:
    """Read one photograph, or a split's side of a texture, at each zoom that it has pixels for."""
    with Image.open(_package_folder("skimage") / "data" / file_name) as image:
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
    return _Photo(name, background_class, tuple(zooms))


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed; run `make setup`", name=package)
    return Path(spec.origin).parent


def _canvas_side(px: float) -> int:
    """Compute the side of a square that holds a rotated digit of `px` pixels with its rim."""
    return int(px * (_GLYPH_CELLS + 2) / _GLYPH_CELLS * 1.2) + 6


def _enlarge(scan: NDArray[np.float32], *, px: float, angle: float) -> _Glyph:
    """Enlarge a scan (12, 12); the mask is its ink, closed, and dilated by a pixel for the rim."""
    side = _canvas_side(px)
    centre = (scan.shape[0] - 1) / 2
    matrix = cv2.getRotationMatrix2D((centre, centre), angle, px / _GLYPH_CELLS)
    matrix[:, 2] += (side - 1) / 2 - centre
    density = cv2.warpAffine(scan, matrix, (side, side), flags=cv2.INTER_CUBIC)
    ink = np.clip((density - 0.35) / 0.2, 0, 1)
    solid = (ink >= 0.5).astype(np.uint8)
    solid = cv2.morphologyEx(solid, cv2.MORPH_CLOSE, _CROSS)
    mask = cv2.dilate(solid, np.ones((3, 3), np.uint8)).astype(bool)
    x0, y0, x1, y1 = box_of_mask(mask).astype(int)
    return _Glyph(ink[y0:y1, x0:x1], mask[y0:y1, x0:x1])
