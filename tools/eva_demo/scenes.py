"""Digit scenes: a few handwritten digits painted on a crop of a photograph.

Each digit is enlarged, rotated, tinted against its local background and outlined by a thin rim.

Letters in shape comments: H, W = height and width of the image; h, w = those of an enlarged digit.
"""

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eva_demo.sources import Generator, Glyph, box_of_mask, canvas_side, choose_paint, draw_colours

# Raised whenever the same seed gives other scenes than before, so that old datasets are noticed.
SCENE_VERSION = 1

_MAX_HIDDEN = 0.15  # of an earlier digit, by later ones
_MIN_CONTRAST = 60.0  # of the ink's luminance to the mean of the local background, in grey levels
_SHRINK = 0.9  # of the digit's size after each failed round of placements
_POSITIONS_PER_ROUND = 8
_MAX_RESTARTS = 50


@dataclass(frozen=True, eq=False)
class Instance:
    """One digit in a scene, as far as it is visible.

    Attributes:
        category: Digit, 0 to 9.
        mask: Array (H, W), True where ink or rim of this digit is visible.
        box: Array (4,), `x0, y0, x1, y1` in pixels around the visible mask, upper ends exclusive.
        digit_index: Row in scikit-learn's digits.
        contrast: Luminance of the ink minus mean luminance of the ground below, in grey levels.
        full_area: Pixels of the mask before later digits covered it.
    """

    category: int
    mask: NDArray[np.bool_]
    box: NDArray[np.float64]
    digit_index: int
    contrast: float
    full_area: int


@dataclass(frozen=True, eq=False)
class Scene:
    """An image with its exact description, from which every annotation format is derived.

    Attributes:
        image: Array (H, W, 3), RGB.
        instances: Digits in the order of painting, a later one over an earlier one.
        background: Name of the photograph, with the side of a texture: `brick-left`.
        background_class: One of `BACKGROUND_CLASSES`.
        photograph: Array (H, W, 3), the image without digits.
    """

    image: NDArray[Any]
    instances: tuple[Instance, ...]
    background: str
    background_class: str
    photograph: NDArray[np.uint8]


@dataclass(eq=False)
class SceneGenerator(Generator):
    """The scenes of one split.

    Args:
        split: See `Generator`.
        size: See `Generator`.
        seed: See `Generator`.
        digits: Fewest and most digits in a scene, both inclusive; fewer than drawn where
            there is no room, but never less than the fewest.
        digit_px: Smallest and largest height of an upright digit in pixels, both inclusive.
        max_rotation: Largest rotation to either side, in degrees.

    Raises:
        ValueError: If the largest digit does not fit into the image.
    """

    _: KW_ONLY
    size: int = 128
    digits: tuple[int, int] = (2, 5)
    digit_px: tuple[int, int] = (22, 56)
    max_rotation: float = 12.0

    def __post_init__(self) -> None:
        needed = canvas_side(self.digit_px[1])
        if needed > self.size:
            raise ValueError(f"digit_px={self.digit_px} needs {needed} px, not size={self.size}")
        super().__post_init__()

    def make(self, index: int) -> Scene:
        """Make scene `index`, with an image (size, size, 3).

        Raises:
            ValueError: If the settings leave no room for the digits.
        """
        rng = self._random(index)
        for _ in range(_MAX_RESTARTS):
            scene = self._try_scene(rng)
            if len(scene.instances) >= self.digits[0]:
                return scene
        raise ValueError(
            f"no room for {self.digits[0]} digits of {self.digit_px} px in {self.size} px; lower "
            "digits or digit_px, or raise size"
        )

    def _try_scene(self, rng: np.random.Generator) -> Scene:
        photo, image = self._photographs.crop(rng)
        photograph = image.copy()
        owner = np.full(image.shape[:2], -1, dtype=np.int16)  # (H, W), the topmost digit or -1
        painted: list[dict[str, Any]] = []
        for _ in range(rng.integers(self.digits[0], self.digits[1] + 1)):
            category, index = self._handwriting.choose(rng)
            areas = np.array([instance["full_area"] for instance in painted])
            placed = self._place(owner, areas, index, rng=rng)
            if placed is None:
                continue
            glyph, y, x = placed
            h, w = glyph.mask.shape
            window = image[y : y + h, x : x + w]  # (h, w, 3), a view
            paint = choose_paint(window, min_contrast=_MIN_CONTRAST, colours=draw_colours(rng))
            paint.apply(window, glyph)
            owner[y : y + h, x : x + w][glyph.mask] = len(painted)
            area = int(np.count_nonzero(glyph.mask))
            painted.append(
                {
                    "category": category,
                    "digit_index": index,
                    "contrast": paint.contrast,
                    "full_area": area,
                }
            )
        masks = [owner == number for number in range(len(painted))]
        instances = tuple(
            Instance(mask=mask, box=box_of_mask(mask), **instance)
            for mask, instance in zip(masks, painted, strict=True)
        )
        return Scene(image, instances, photo.name, photo.background_class, photograph)

    def _place(
        self,
        owner: NDArray[np.int16],
        areas: NDArray[np.int64],
        index: int,
        *,
        rng: np.random.Generator,
    ) -> tuple[Glyph, int, int] | None:
        """Enlarge a digit; find a corner (y, x) where it hides little enough, None without one."""
        low, high = self.digit_px
        px = float(rng.uniform(low, high))
        angle = float(rng.uniform(-self.max_rotation, self.max_rotation))
        allowed = _visible(owner, len(areas)) - (1 - _MAX_HIDDEN) * areas
        while True:
            glyph = self._handwriting.glyph(index, px=px, angle=angle).cropped()
            ys, xs = np.nonzero(glyph.mask)
            room = [self.size - side + 1 for side in glyph.mask.shape]
            for y, x in rng.integers(room, size=(_POSITIONS_PER_ROUND, 2)):
                if np.all(_visible(owner[ys + y, xs + x], len(areas)) <= allowed):
                    return glyph, int(y), int(x)
            if px <= low:
                return None
            px = max(px * _SHRINK, float(low))


def _visible(owner: NDArray[np.int16], digits: int) -> NDArray[np.int64]:
    """Count the visible pixels of each digit, (digits,)."""
    return np.bincount(owner[owner >= 0], minlength=digits)
