"""Digit scenes: real handwritten digits on real photographs, built offline from installed packages.

A scene is a square crop of a photograph that ships inside the scikit-image wheel, on which a few
handwritten digits of scikit-learn (8x8 scans) are painted: enlarged, rotated, tinted against their
local background and outlined by a thin contrasting rim. Training and validation share neither a
digit nor a pixel of a photograph, see `splits`.

Letters in shape comments: H, W = height and width of the image; h, w = those of an enlarged digit.
"""

from dataclasses import KW_ONLY, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from eva_demo.glyphs import Glyph, Handwriting, box_of_mask, canvas_side, choose_paint, draw_colours
from eva_demo.photographs import Photographs
from eva_demo.splits import SPLITS, Split, check_split

_Region = tuple[slice, slice] | tuple[NDArray[np.int64], NDArray[np.int64]]

# Raised whenever the same seed gives other scenes than before, so that old data sets are noticed.
SCENE_VERSION = 1

_SHRINK = 0.9  # of the digit's size after each failed round of placements
_POSITIONS_PER_ROUND = 8
_MAX_RESTARTS = 50


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
        check_split(self.split)
        if not 1 <= self.digits[0] <= self.digits[1]:
            raise ValueError(
                f"digits={self.digits} must be (fewest, most) with 1 <= fewest <= most"
            )
        least, most = self.digit_px
        if not 8 <= least <= most or canvas_side(most) > self.size:
            raise ValueError(
                f"digit_px={self.digit_px} at size={self.size}: it must be (smallest, largest) "
                f"with 8 <= smallest <= largest, and the largest needs {canvas_side(most)} px"
            )
        hidden, contrast, rotation = self.max_hidden, self.min_contrast, self.max_rotation
        if not (0 <= hidden < 1 and 0 <= contrast <= 120 and 0 <= rotation <= 45):
            raise ValueError(
                f"max_hidden={hidden}, min_contrast={contrast}, max_rotation={rotation}"
                " must lie in [0, 1), [0, 120] and [0, 45]"
            )
        self._entropy = (self.seed, SPLITS.index(self.split))
        self._handwriting = Handwriting(self.split)
        self._photographs = Photographs(self.split, size=self.size)

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
        photo, ground = self._photographs.crop(rng)
        canvas = _Canvas(ground)
        for _ in range(rng.integers(self.digits[0], self.digits[1] + 1)):
            self._paint(canvas, *self._handwriting.choose(rng), rng=rng)
        instances = []
        for number, instance in enumerate(canvas.painted):
            mask = canvas.owner == number
            instances.append(replace(instance, mask=mask, box=box_of_mask(mask)))
        return Scene(canvas.image, tuple(instances), photo.name, photo.background_class)

    def _place(
        self, canvas: _Canvas, index: int, *, rng: np.random.Generator
    ) -> tuple[Glyph, int, int] | None:
        """Enlarge a digit; find a corner (y, x) where it hides little enough, None without one."""
        low, high = self.digit_px
        px = float(rng.uniform(low, high))
        angle = float(rng.uniform(-self.max_rotation, self.max_rotation))
        full = np.array([instance.full_area for instance in canvas.painted])
        allowed = canvas.visible() - (1 - self.max_hidden) * full
        while True:
            glyph = self._handwriting.glyph(index, px=px, angle=angle).cropped()
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
        paint = choose_paint(window, min_contrast=self.min_contrast, colours=draw_colours(rng))
        paint.apply(window, glyph)
        canvas.owner[y : y + h, x : x + w][glyph.mask] = len(canvas.painted)
        red, green, blue = (int(value) for value in paint.tint)
        area = int(np.count_nonzero(glyph.mask))
        box = np.zeros(4)  # mask and box follow when all digits are painted
        canvas.painted.append(
            Instance(category, glyph.mask, box, index, (red, green, blue), paint.contrast, area)
        )
