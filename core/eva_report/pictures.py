"""Galleries of a report: pictures as large, as good and as many as the page has room for."""

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from eva_report.content import Example, Gallery, Picture
from eva_report.markup import escaped, paragraph

MOST_EXAMPLES = 200  # of a gallery
_SMALL = 200  # pixels of a side; below, a picture is shown with its pixels as squares
_WIDE = 2.2  # width over height from which a picture takes a row of its own
_CAPTION, _TITLE = 600, 120  # characters
_MARGIN = 1.15  # of an estimate by a few pictures
_SAMPLES = 4


class Level(NamedTuple):
    """Longest side in pixels, and quality of the encoder."""

    side: int
    quality: int


LEVELS = (
    *(Level(1280, 84), Level(1024, 80), Level(896, 76), Level(720, 74), Level(560, 70)),
    *(Level(420, 65), Level(320, 55)),
)


class Encoded(NamedTuple):
    """A picture as it is written into the page."""

    data: str
    width: int
    height: int


class Figure(NamedTuple):
    """An example as HTML, and what decides how much room it is given.

    Attributes:
        markup: HTML.
        pictures: Number of pictures.
        wide: Whether one of them is much wider than high.
    """

    markup: str
    pictures: int
    wide: bool


class Shown(NamedTuple):
    """What the page has room for of a gallery.

    Attributes:
        figures: The first examples.
        smaller: Whether their pictures are smaller or coarser than without the limit of the page.
    """

    figures: list[Figure]
    smaller: bool = False


def encoded(picture: Picture, level: Level) -> Encoded:
    """Encode a picture for the page.

    Args:
        picture: A picture of any mode; what is transparent becomes white.
        level: Size and quality; a picture is never enlarged.
    """
    image = picture.image
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    elif image.mode in ("P", "1"):
        image = image.convert("RGB")
    if max(image.size) > level.side:
        ratio = level.side / max(image.size)
        width, height = (max(1, round(length * ratio)) for length in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3)
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    stream = io.BytesIO()
    rgb.save(stream, "WEBP", quality=level.quality, method=2)
    data = base64.b64encode(stream.getvalue()).decode()
    return Encoded(f"data:image/webp;base64,{data}", *rgb.size)


def fitted(galleries: Sequence[Gallery], room: int) -> list[Shown]:
    """Encode pictures until they fit: first smaller and coarser, then fewer of each gallery.

    Args:
        galleries: Galleries of the page.
        room: Bytes that all of them may have.

    Returns:
        The figures of each gallery.
    """
    asked = [list(gallery.examples[:MOST_EXAMPLES]) for gallery in galleries]
    first = _first_level([example for examples in asked for example in examples], room)
    shown: list[Shown] = []
    for number in range(first, len(LEVELS)):
        shown, complete = _encode(asked, LEVELS[number], room, smaller=number > 0)
        if complete:
            break
    return shown


def _first_level(examples: Sequence[Example], room: int) -> int:
    """Estimate by a few pictures which level is the first that may fit."""
    pictures = [picture for example in examples for picture in example.pictures]
    samples = pictures[:: max(1, len(pictures) // _SAMPLES)][:_SAMPLES]
    for number, level in enumerate(LEVELS):
        size = sum(len(encoded(one, level).data) for one in samples)
        if size * len(pictures) <= room * _MARGIN * len(samples):
            return number
    return len(LEVELS) - 1


def _encode(
    asked: Sequence[Sequence[Example]], level: Level, room: int, *, smaller: bool
) -> tuple[list[Shown], bool]:
    """Encode examples, one of each gallery at a time, and stop where there is no more room."""
    shown = [Shown([], smaller) for _ in asked]
    for place in range(max(map(len, asked), default=0)):
        for gallery, examples in enumerate(asked):
            if place < len(examples):
                one = _figure(examples[place], level, f"g{gallery}-{place}")
                room -= len(one.markup.encode())
                if room < 0:
                    return shown, False
                shown[gallery].figures.append(one)
    return shown, True


def gallery_markup(gallery: Gallery, shown: Shown, limit: int) -> str:
    """Make the section of a gallery.

    Args:
        gallery: Its texts.
        shown: Its figures.
        limit: Bytes of the page, for the sentence on pictures that are left out.
    """
    figures = shown.figures
    tiles = all(one.pictures == 1 and not one.wide for one in figures)
    notes = []
    if len(figures) < len(gallery.examples):
        notes.append(f"{len(figures)} of {len(gallery.examples)} are shown")
    if shown.smaller:
        notes.append("the pictures are smaller than they could be")
    reason = f", so that the page stays below {limit / 1e6:g} MB." if notes else ""
    return (
        paragraph(gallery.text)
        + _legend(gallery)
        + f'<div class="gallery {"tiles" if tiles else "rows"}">\n'
        + "".join(one.markup for one in figures)
        + "</div>\n"
        + paragraph(" and ".join(notes).capitalize() + reason, kind="note")
    )


def _legend(gallery: Gallery) -> str:
    items = "".join(
        f'<li><i style="background:rgb{tuple(map(int, color))}"></i> '
        f"<bdi>{escaped(name, most=_TITLE)}</bdi></li>"
        for name, color in gallery.legend
    )
    return f'<ul class="legend">{items}</ul>\n' if items else ""


def _figure(example: Example, level: Level, name: str) -> Figure:
    pictures = [encoded(picture, level) for picture in example.pictures]
    frames = "".join(
        _frame(picture, one, f"{name}-{number}", example.caption)
        for number, (picture, one) in enumerate(zip(example.pictures, pictures, strict=True))
    )
    caption = escaped(example.caption, most=_CAPTION)
    markup = (
        f"<figure><figcaption><bdi>{caption}</bdi></figcaption>"
        f'<div class="pictures">{frames}</div></figure>\n'
    )
    return Figure(markup, len(pictures), any(one.width > _WIDE * one.height for one in pictures))


def _frame(picture: Picture, one: Encoded, name: str, caption: str) -> str:
    """A picture in the label of a hidden checkbox; a click or the space bar enlarges it."""
    title = escaped(picture.title, most=_TITLE)
    about = ": ".join(text for text in (title, escaped(caption, most=_TITLE)) if text)
    sharp = ' class="sharp"' if max(one.width, one.height) < _SMALL else ""
    below = f"<span><bdi>{title}</bdi></span>" if title else ""
    return (
        f'<div class="frame"><label style="--r:{max(one.width / one.height, 0.001):.4g}">'
        f'<input type="checkbox" id="{name}" aria-label="enlarge {about}"><img{sharp} '
        f'width="{one.width}" height="{one.height}" alt="{about}" src="{one.data}"></label>'
        f"{below}</div>"
    )
