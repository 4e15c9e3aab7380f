"""Contact sheets: many small pictures in rows, each with a line or two below it."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from eva_data.files import printable
from eva_report.drawing.lettering import Font, font, shortened

SIDE, COLUMNS = 240, 5  # pixels of a tile, and tiles in a row
_GAP, _LETTER, _TITLE = 8, 14, 18  # pixels
_BACK, _TEXT, _FAINT, _EMPTY = "#141414", "#ffffff", "#b4b4b4", "#3a3a3a"


class Tile(NamedTuple):
    """A picture, or None for one that could not be read, and what is written below it."""

    picture: Image.Image | None
    heading: str
    name: str


class Section(NamedTuple):
    """Tiles that belong together, and their title."""

    title: str
    tiles: Sequence[Tile]


def draw_contact_sheet(sections: Sequence[Section]) -> Image.Image:
    """Draw sections below each other.

    Args:
        sections: At least one; a section without tiles is its title.

    Returns:
        The sheet, in RGB.
    """
    return Image.fromarray(stacked([row for one in sections for row in _rows(one)]))


def stacked(rows: Sequence[NDArray[Any]]) -> NDArray[np.uint8]:
    """Put rows of pixels below each other; narrower ones are filled up on the right.

    Args:
        rows: Arrays (h, w, 3), at least one.

    Returns:
        (H, W, 3).
    """
    width = max(row.shape[1] for row in rows)
    filled = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    sheet: NDArray[np.uint8] = np.vstack(filled)
    return sheet


def _rows(section: Section) -> Iterator[NDArray[np.uint8]]:
    width = COLUMNS * (SIDE + _GAP) + _GAP
    title = Image.new("RGB", (width, 2 * _TITLE + _GAP), _BACK)
    letters = font(_TITLE)
    text = shortened(printable(section.title), letters, width - 2 * _GAP)
    place = (_GAP, title.height / 2)
    ImageDraw.Draw(title).text(place, text, fill=_TEXT, font=letters, anchor="lm")
    yield np.asarray(title)
    line, small = round(1.5 * _LETTER), font(_LETTER)
    for start in range(0, len(section.tiles), COLUMNS):
        row = Image.new("RGB", (width, SIDE + 2 * line + 2 * _GAP), _BACK)
        for column, tile in enumerate(section.tiles[start : start + COLUMNS]):
            left = _GAP + column * (SIDE + _GAP)
            _draw_tile(row, tile, left, small, line)
        yield np.asarray(row)


def _draw_tile(row: Image.Image, tile: Tile, left: int, letters: Font, line: int) -> None:
    draw = ImageDraw.Draw(row)
    if tile.picture is None:
        draw.rectangle((left, _GAP, left + SIDE - 1, _GAP + SIDE - 1), fill=_EMPTY)
    else:
        fitted = ImageOps.contain(tile.picture, (SIDE, SIDE), Image.Resampling.BICUBIC)
        spare = (SIDE - fitted.width) // 2, (SIDE - fitted.height) // 2
        row.paste(fitted, (left + spare[0], _GAP + spare[1]))
    for number, (text, colour) in enumerate(((tile.heading, _TEXT), (tile.name, _FAINT))):
        middle = _GAP + SIDE + (number + 0.5) * line
        shown = shortened(printable(text), letters, SIDE)
        draw.text((left, middle), shown, fill=colour, font=letters, anchor="lm")
