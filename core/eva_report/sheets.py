"""Images put together: classes below an image, frames side by side, contact sheets."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from eva_data.video.source import VideoSource
from eva_report.drawing import Font, Pixels, enlarge, font, shorten

CLASSES_SHOWN = 3  # below an image
FRAMES, HEIGHT = 4, 192  # of a strip of frames; pixels
SIDE, COLUMNS = 240, 5  # pixels of a tile of a contact sheet, and tiles in a row
_READABLE_WIDTH = 320  # pixels; narrower images are enlarged, since names would not fit
_HIGHEST = 2048  # pixels of an enlarged image
_GAP, _LETTER, _TITLE, _WIDEST = 8, 14, 18, 1280  # pixels
_BACK, _TEXT, _FAINT, _EMPTY, _FIRST = "#141414", "#ffffff", "#c0c0c0", "#3a3a3a", "#1f5fae"


def annotate(
    rgb: Pixels,
    predictions: Sequence[tuple[str, float]],
    *,
    heading: str | None = None,
    rows: int = CLASSES_SHOWN,
) -> Pixels:
    """Write classes with their probabilities below an image.

    The predictions are in falling order of probability, and `rows` of them have a line; `heading`
    stands above them, such as a time.

    Returns:
        (H * s + h, W * s, 3), with s = 1 for images of 320 px width and more. One that would be
        too high if it were enlarged stands in the middle of a strip of 320 px.
    """
    height, width = rgb.shape[:2]
    scale = min(math.ceil(_READABLE_WIDTH / width), max(1, _HIGHEST // height))
    image = enlarge(rgb, scale)
    space = max(0, _READABLE_WIDTH - image.shape[1])
    margins = (space // 2, space - space // 2)
    image = np.pad(image, ((0, 0), margins, (0, 0)), constant_values=20)  # as _BACK
    return np.concatenate([image, _strip(image.shape[1], predictions[:rows], heading, rows)])


def _strip(
    width: int, predictions: Sequence[tuple[str, float]], heading: str | None, rows: int
) -> Pixels:
    size = min(max(round(width / 36), 13), 40)
    letters, line, gap = font(size), round(size * 1.6), round(size * 0.5)
    begin = gap // 2 + (line if heading is not None else 0)
    canvas = Image.new("RGB", (width, begin + rows * line + gap - gap // 2), _BACK)
    draw = ImageDraw.Draw(canvas)
    if heading is not None:
        draw.text((gap, gap // 2 + line / 2), heading, fill=_FAINT, font=letters, anchor="lm")
    for row, (name, probability) in enumerate(predictions):
        top = begin + row * line
        reach = gap + round((width - 2 * gap) * min(max(probability, 0.0), 1.0))
        bar = (gap, top + 1, max(reach, gap + 1), top + line - 2)
        draw.rectangle(bar, fill=_EMPTY if row else _FIRST)
        label = shorten(name, letters, width - 5 * gap - letters.getlength("100%"))
        middle, fill = top + line / 2, _FAINT if row else _TEXT
        draw.text((2 * gap, middle), label, fill=fill, font=letters, anchor="lm")
        share = f"{probability:.0%}"
        draw.text((width - 2 * gap, middle), share, fill=fill, font=letters, anchor="rm")
    return np.asarray(canvas)


def frame_strip(frames: Sequence[NDArray[Any]] | NDArray[Any]) -> Image.Image:
    """Put (H, W, 3) frames of one size side by side; small ones are enlarged.

    The strip is `HEIGHT` pixels high or a little more, and less where it would be too wide.
    """
    height, width = frames[0].shape[:2]
    gap = _GAP // 2
    room = (_WIDEST - (len(frames) - 1) * gap) / len(frames)
    if height < HEIGHT:
        scale = max(1, min(-(-HEIGHT // height), int(room / width)))
        size = width * scale, height * scale
    else:
        share = min(HEIGHT / height, room / width)
        size = max(1, round(width * share)), max(1, round(height * share))
    resample = Image.Resampling.NEAREST if height < HEIGHT else Image.Resampling.LANCZOS
    strip = Image.new("RGB", (len(frames) * (size[0] + gap) - gap, size[1]), "white")
    for number, frame in enumerate(frames):
        small = Image.fromarray(np.asarray(frame)).resize(size, resample)
        strip.paste(small, (number * (size[0] + gap), 0))
    return strip


def strip_of(video: VideoSource) -> Image.Image:
    """Show at most `FRAMES` frames, which are spread over a video from the first to the last.

    Raises:
        UnreadableVideoError: If one of them cannot be decoded.
    """
    places = np.linspace(0, len(video) - 1, min(FRAMES, len(video))).round().astype(int)
    return frame_strip(video.frames(places.tolist()))


class Tile(NamedTuple):
    """An image, or None for one that could not be read, and what is written below it."""

    image: Image.Image | None
    heading: str
    name: str


class SheetSection(NamedTuple):
    """Tiles that belong together, and their title."""

    title: str
    tiles: Sequence[Tile]


def draw_contact_sheet(sections: Sequence[SheetSection], *, columns: int = COLUMNS) -> Image.Image:
    """Draw sections, at least one, below each other; a section without tiles is its title."""
    return Image.fromarray(
        np.vstack([row for section in sections for row in _rows(section, columns)])
    )


def _rows(section: SheetSection, columns: int) -> Iterator[Pixels]:
    width = columns * (SIDE + _GAP) + _GAP
    title = Image.new("RGB", (width, 2 * _TITLE + _GAP), _BACK)
    letters, middle = font(_TITLE), title.height / 2
    section_title = shorten(section.title, letters, width - 2 * _GAP)
    ImageDraw.Draw(title).text((_GAP, middle), section_title, fill=_TEXT, font=letters, anchor="lm")
    yield np.asarray(title)
    line, small = round(1.5 * _LETTER), font(_LETTER)
    for start in range(0, len(section.tiles), columns):
        row = Image.new("RGB", (width, SIDE + 2 * line + 2 * _GAP), _BACK)
        for column, tile in enumerate(section.tiles[start : start + columns]):
            _draw_tile(row, tile, _GAP + column * (SIDE + _GAP), small, line)
        yield np.asarray(row)


def _draw_tile(row: Image.Image, tile: Tile, left: int, letters: Font, line: int) -> None:
    draw = ImageDraw.Draw(row)
    if tile.image is None:
        draw.rectangle((left, _GAP, left + SIDE - 1, _GAP + SIDE - 1), fill=_EMPTY)
    else:
        scale = SIDE / max(tile.image.size)
        width, height = (max(1, round(side * scale)) for side in tile.image.size)
        fitted = tile.image.resize((width, height), Image.Resampling.BICUBIC)
        spare = (SIDE - fitted.width) // 2, (SIDE - fitted.height) // 2
        row.paste(fitted, (left + spare[0], _GAP + spare[1]))
    for number, (label, color) in enumerate(((tile.heading, _TEXT), (tile.name, _FAINT))):
        middle = _GAP + SIDE + (number + 0.5) * line
        shown = shorten(label, letters, SIDE)
        draw.text((left, middle), shown, fill=color, font=letters, anchor="lm")
