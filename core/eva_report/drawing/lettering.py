"""Words on pictures: a font with many letters, names that fit, times."""

from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

_MOST_LETTERS = 1000  # no picture has room for more
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@lru_cache(maxsize=64)
def font(size: int) -> Font:
    """Load the font of matplotlib, which has more letters than Pillow's, or else Pillow's.

    Args:
        size: Pixels of a letter.
    """
    try:
        from matplotlib import get_data_path
    except ImportError:
        return ImageFont.load_default(size)
    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def shortened(text: str, letters: Font, width: float) -> str:
    """Make one line of a text; cut the end of one that is too wide, and put dots in its place.

    Args:
        text: The text.
        letters: Its font.
        width: Pixels that it may have.

    Returns:
        The text, or its beginning.
    """
    text = " ".join(text[:_MOST_LETTERS].split())
    if letters.getlength(text) <= width:
        return text
    while text and letters.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."


def clock(seconds: float) -> str:
    """Write a time as minutes and tenths of seconds, with hours where there are any."""
    tenths = round(max(seconds, 0.0) * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    rest = f"{tenths // 10:02}.{tenths % 10}"
    return f"{hours}:{minutes:02}:{rest}" if hours else f"{minutes}:{rest}"
