"""Images of a page: as large, as good and as many as there is room for."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from PIL import Image

from eva_data.images import on_white_ground
from eva_report.content import Gallery, TitledImage

MOST_EXAMPLES = 200  # of a gallery
_SMALL = 200  # pixels of a side; below, an image is shown with its pixels as squares
# longest side in pixels, quality
_LEVELS = ((1280, 84), (896, 76), (560, 70), (320, 55))
_MARKUP = 700  # bytes around an image
_WIDE = 2.2  # width over height, from which an image takes a row of its own


@dataclass(frozen=True)
class Encoded:
    """An image as it is written into the page."""

    title: str
    data: str
    width: int
    height: int

    @property
    def ratio(self) -> float:
        """Width over height."""
        return max(self.width / self.height, 0.001)

    @property
    def small(self) -> bool:
        """Whether its pixels are shown as squares."""
        return max(self.width, self.height) < _SMALL


@dataclass(frozen=True)
class Figure:
    """An example with its images."""

    caption: str
    images: Sequence[Encoded]
    smaller: bool  # or coarser than they could be

    @property
    def is_tile(self) -> bool:
        """Whether it takes no row of its own."""
        return len(self.images) == 1 and self.images[0].ratio <= _WIDE

    @property
    def size(self) -> int:
        """Bytes in the page."""
        texts = len(self.caption.encode(errors="replace")) + _MARKUP
        return sum(len(image.data) + texts for image in self.images) + texts


def fit_images(galleries: Sequence[Gallery], room: int) -> list[list[Figure]]:
    """Encode the first examples of each gallery, all within `room` bytes.

    Where even the smallest images need more, there are fewer, in turn one of each gallery.
    """
    for level in range(len(_LEVELS)):
        encoded = [
            [
                Figure(
                    example.caption, [_encoded(image, level) for image in example.images], level > 0
                )
                for example in gallery.examples[:MOST_EXAMPLES]
            ]
            for gallery in galleries
        ]
        if sum(figure.size for figures in encoded for figure in figures) <= room:
            return encoded
    shown: list[list[Figure]] = [[] for _ in galleries]
    for row in zip_longest(*encoded):
        for position, figure in enumerate(row):
            if figure is not None:
                room -= figure.size
                if room < 0:
                    return shown
                shown[position].append(figure)
    return shown


def _encoded(titled: TitledImage, level: int) -> Encoded:
    """Encode an image of any mode, which is never enlarged; what is transparent becomes white."""
    image = on_white_ground(titled.image)
    if image.mode in ("P", "1"):
        image = image.convert("RGB")
    side, quality = _LEVELS[level]
    if max(image.size) > side:
        factor = side / max(image.size)
        width, height = (max(1, round(length * factor)) for length in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3)
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    stream = io.BytesIO()
    rgb.save(stream, "WEBP", quality=quality, method=2)
    data = f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
    return Encoded(titled.title, data, *rgb.size)
