"""One handwritten digit on a photograph, and an English caption that says what is to be seen.

A caption names the digit as a word, and mostly the ground (brick, grass, gravel or a photograph),
the colour of the ink, the size and the place. Validation has no word that training has not.

Letter in shape comments: S = height and width of a picture.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from eva_demo.glyphs import Glyph, Handwriting, box_of_mask, choose_paint
from eva_demo.photographs import Photographs
from eva_demo.splits import SPLITS, Split, check_split

# Raised whenever the same seed gives other pictures or captions, so that old sets are noticed.
CAPTION_VERSION = 1

Use = Literal["pair", "zero_shot"]
USES: tuple[Use, ...] = ("pair", "zero_shot")

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GROUNDS: Mapping[str, str] = {  # background class -> words
    "brick": "brick",
    "grass": "grass",
    "gravel": "gravel",
    "other": "a photograph",
}
COLOURS: Mapping[str, tuple[int, int, int]] = {
    "black": (12, 12, 12),
    "white": (245, 245, 245),
    "red": (215, 25, 30),
    "green": (25, 150, 45),
    "blue": (30, 60, 215),
    "yellow": (250, 225, 25),
    "orange": (250, 135, 10),
    "purple": (125, 30, 165),
    "pink": (255, 150, 200),
    "turquoise": (40, 215, 205),
}
# Height of the digit in sides of the picture.
SIZES: Mapping[str, tuple[float, float]] = {
    "small": (0.48, 0.53),
    "medium": (0.60, 0.66),
    "large": (0.74, 0.80),
}
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
_TEMPLATES = (
    "a {size} {colour} {number} on {ground}, {place}",
    "a photo of a {size} number {number} in {colour} on {ground}, {place}",
    "the number {number}, {size} and {colour}, painted on {ground}, {place}",
    "{ground} with a {size} {colour} {number} {place}",
    "a handwritten {number} in {colour} ink, {size}, {place} of {ground}",
    "a {colour} digit {number} written on {ground}, {size}, {place}",
    "{place} of {ground} there is a {size} {colour} {number}",
    "on {ground}, somebody wrote a {size} {number} in {colour} {place}",
)
_SHORT = (
    "a photo of the number {number} on {ground}",
    "the number {number} in {colour}",
    "a {colour} {number} on {ground}",
    "a photo of the number {number}",
)
_SHORT_SHARE = 0.15
# With them a classifier of the ten words is made.
ZERO_SHOT_TEMPLATES = (
    "a photo of the number {}",
    "a photo of the number {} on brick",
    "a photo of the number {} on grass",
    "a photo of the number {} on gravel",
    "a photo of the number {} on a photograph",
)
_MAX_ROTATION = 12.0
_MIN_CONTRAST = 40.0  # less than in scenes: the grounds are mostly grey, the ink is not
_MIN_SIZE = 24  # pixels


@dataclass(frozen=True, eq=False)
class CaptionedDigit:
    """A picture with what is in it.

    Attributes:
        image: Array (S, S, 3), RGB.
        caption: English sentence.
        category: Digit, 0 to 9.
        digit_index: Row in scikit-learn's digits.
        background: Name of the photograph, with the side of a texture.
        ground: A key of `GROUNDS`.
        colour: A key of `COLOURS`.
        size: A key of `SIZES`.
        place: Where the digit is, such as "at the top left".
    """

    image: NDArray[np.uint8]
    caption: str
    category: int
    digit_index: int
    background: str
    ground: str
    colour: str
    size: str
    place: str


@dataclass(eq=False)
class CaptionGenerator:
    """The pictures of one split; each depends on (split, seed, use, index) and the settings only.

    Args:
        split: `train` or `val`; decides which digits and photographs are used.
        side: Height and width of a picture in pixels.
        seed: Seed of the split.

    Raises:
        ValueError: If a setting is out of range.
    """

    split: Split
    _: KW_ONLY
    side: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        check_split(self.split)
        if self.side < _MIN_SIZE:
            raise ValueError(f"side={self.side}: digits need pictures of at least {_MIN_SIZE} px")
        self._handwriting = Handwriting(self.split)
        self._photographs = Photographs(self.split, size=self.side)

    def make(self, index: int, use: Use = "pair") -> CaptionedDigit:
        """Make one picture and its caption.

        Args:
            index: Number of the picture, from 0; for `zero_shot` its last figure is the digit.
            use: What it is for; a pair and a picture for zero-shot evaluation have nothing in
                common.

        Raises:
            ValueError: If the index is negative.
        """
        if index < 0:
            raise ValueError(f"index {index} is negative; pictures are numbered from 0")
        key = (self.seed, SPLITS.index(self.split), USES.index(use), index, CAPTION_VERSION)
        rng = np.random.default_rng(key)
        category = index % 10 if use == "zero_shot" else int(rng.integers(10))
        digit = self._handwriting.row(category, rng)
        photo, image = self._photographs.crop(rng)
        size = str(rng.choice([*SIZES]))
        px = float(rng.uniform(*SIZES[size])) * self.side
        place, glyph = self._placed(digit, px, rng=rng)
        colours = rng.permutation(np.array([*COLOURS.values()], np.float32))  # (colours, 3)
        paint = choose_paint(image[glyph.mask], min_contrast=_MIN_CONTRAST, colours=colours)
        paint.apply(image, glyph)
        values = tuple(int(value) for value in paint.tint)
        colour = next(name for name, known in COLOURS.items() if known == values)
        said = {
            "number": NUMBERS[category],
            "ground": GROUNDS[photo.background_class],
            "colour": colour,
            "size": size,
            "place": place,
        }
        templates = _SHORT if rng.random() < _SHORT_SHARE else _TEMPLATES
        caption = templates[rng.integers(len(templates))].format(**said)
        return CaptionedDigit(
            image, caption, category, digit, photo.name, photo.background_class, colour, size, place
        )

    def _placed(self, digit: int, px: float, *, rng: np.random.Generator) -> tuple[str, Glyph]:
        """Draw a place for a digit of `px` pixels: its words, and the digit there."""
        angle = float(rng.uniform(-_MAX_ROTATION, _MAX_ROTATION))
        row, column = int(rng.integers(3)), int(rng.integers(3))
        side = np.array([column, row]) - 1  # of x and y: -1, 0 or 1
        offset = side * rng.uniform(0.7, 0.95, 2) + (side == 0) * rng.uniform(-0.15, 0.15, 2)
        middle = (self.side - 1) / 2
        trial = self._handwriting.glyph(digit, px=px, angle=angle, side=self.side)
        x0, y0, x1, y1 = box_of_mask(trial.mask)  # a digit need not fill its scan, nor its middle
        room = (self.side - np.array([x1 - x0, y1 - y0])) / 2 - 1
        beside = (np.array([x0 + x1, y0 + y1]) - 1) / 2 - middle
        x, y = middle - beside + offset * room
        glyph = self._handwriting.glyph(
            digit, px=px, angle=angle, side=self.side, centre=(float(x), float(y))
        )
        words = "centre" if row == column == 1 else f"{_ROWS[row]} {_COLUMNS[column]}"
        return f"at the {words}", glyph
