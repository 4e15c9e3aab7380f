"""The one decoder of pictures, with one rule for each kind of file.

* 8 bits: as they are; palettes and grey become RGB, transparency is dropped, CMYK is converted.
* 16 bits: the upper 8 are kept (a conversion by Pillow would make everything white).
* 32 bits and fractions have no agreed range and are refused.
* Of a moving picture the first frame is taken; a truncated file is refused.
* EXIF's orientation is applied where people look at pictures and boxes, and is left alone where the
  official training left it alone (torchvision's ImageFolder): the argument `upright`.
* More pixels than `max_pixels()` are refused before anything is decoded: a file of some kB may
  claim gigabytes.
"""

import contextlib
import io
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from eva_data.files import require_regular_file

# Of files that are taken for pictures in a folder or an archive.
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
LIMIT = "EVA_MAX_IMAGE_PIXELS"  # environment variable: reaches every worker of every project
_USUAL_LIMIT = 100_000_000  # 10,000 x 10,000
_BYTES_OF_A_PIXEL = 8
_BYTES_OF_METADATA = 64 * 2**20
_ORIENTATION = 274  # EXIF tag
_SIDEWAYS = (5, 6, 7, 8)
_NO_RANGE = ("F", "I")  # modes of fractions and of 32 bits
# What Pillow's decoders raise for damaged files, besides OSError; anything else is a bug.
_DAMAGE = (
    *(SyntaxError, ValueError, EOFError, TypeError, IndexError, KeyError, OverflowError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
_limit_of_pillow = threading.RLock()


class UnreadableImageError(OSError):
    """A picture that cannot be read or decoded; the message names it and says why."""


def max_pixels() -> int:
    """Pixels that a picture may have: `EVA_MAX_IMAGE_PIXELS`, or 100 million.

    Raises:
        ValueError: If the variable is not a positive whole number.
    """
    text = os.environ.get(LIMIT, "")
    if not text:
        return _USUAL_LIMIT
    if not text.isdecimal() or not int(text):
        raise ValueError(f"{LIMIT} must be a positive whole number of pixels, got {text!r}")
    return int(text)


@contextlib.contextmanager
def without_limit_of_pillow() -> Iterator[None]:
    """Context without Pillow's limit, which cannot be raised for one picture; ours is looked at.

    Also for libraries that open once more what was read here.
    """
    with _limit_of_pillow:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def check_encoded_size(size: int, name: str) -> None:
    """Refuse what is too large to be the file of a picture, before it is read into memory.

    Args:
        size: Bytes of the file.
        name: What the message calls it.

    Raises:
        UnreadableImageError: An OSError, if not even a picture of `max_pixels()`, with 16 bits a
            value and without compression, has so many.
    """
    most = max_pixels() * _BYTES_OF_A_PIXEL + _BYTES_OF_METADATA
    if size > most:
        raise UnreadableImageError(
            f"{name} has {size:,} bytes, more than {most:,}; if it is a picture, raise {LIMIT}"
        )


def read_picture(
    source: str | os.PathLike[str] | bytes, *, upright: bool, name: str | None = None
) -> Image.Image:
    """Read a picture as RGB.

    Args:
        source: Path of a file, or the content of one.
        upright: Turn it as its EXIF data say.
        name: What the messages call it; by default the path.

    Returns:
        The decoded picture, of mode RGB.

    Raises:
        UnreadableImageError: An OSError, if it is missing, damaged, too large or of a kind that
            has no one meaning.
    """
    name = _name(source, name)
    with opened(source, name) as picture:
        return _rgb(picture, upright=upright, name=name)


class PictureFacts(NamedTuple):
    """What is known of a picture.

    Attributes:
        width: Pixels as stored, before EXIF's orientation.
        height: Pixels as stored.
        orientation: EXIF's, 1 if there is none.
        bits: Of a value; of 16 the upper 8 are used, 32 stand for fractions too and are refused.
        mode: What Pillow calls the kind of its values.
    """

    width: int
    height: int
    orientation: int
    bits: int
    mode: str


def inspect_picture(
    source: str | os.PathLike[str] | bytes, *, decode: bool, name: str | None = None
) -> PictureFacts:
    """Look at a picture without converting it.

    Args:
        source: Path of a file, or the content of one.
        decode: Also read all pixels.
        name: What the messages call it; by default the path.

    Returns:
        Its size, orientation and depth.

    Raises:
        UnreadableImageError: An OSError, if it cannot be read or claims too much.
    """
    with opened(source, _name(source, name)) as picture:
        if decode:
            picture.load()
        # that of PNG files would decode all pixels to look for EXIF data behind them
        exif = picture.getexif() if decode else Image.Image.getexif(picture)
        width, height = picture.size
        turn = exif.get(_ORIENTATION, 1)
        return PictureFacts(width, height, turn, _bits(picture), picture.mode)


def as_rgb(picture: Image.Image, *, upright: bool, name: str = "image") -> Image.Image:
    """Make a picture that Pillow has opened RGB, by the same rules.

    Args:
        picture: Of any mode.
        upright: Turn it as its EXIF data say.
        name: What the messages call it.

    Returns:
        A picture of mode RGB.

    Raises:
        UnreadableImageError: An OSError, if its pixels cannot be read or have no one meaning.
    """
    with _explained(name):
        return _rgb(picture, upright=upright, name=name)


def picture_size(
    source: str | os.PathLike[str] | bytes, *, upright: bool, name: str | None = None
) -> tuple[int, int]:
    """Read height and width from the header of a picture.

    Args:
        source: Path of a file, or the content of one.
        upright: As its EXIF data say.
        name: What the messages call it; by default the path.

    Returns:
        Height and width in pixels.

    Raises:
        UnreadableImageError: An OSError, if the header cannot be read or claims too much.
    """
    with opened(source, _name(source, name)) as picture:
        width, height = picture.size
        # that of PNG files would decode all pixels to look for EXIF data behind them
        turned = upright and Image.Image.getexif(picture).get(_ORIENTATION, 1) in _SIDEWAYS
        return (width, height) if turned else (height, width)


def _name(source: str | os.PathLike[str] | bytes, name: str | None) -> str:
    return name or ("image" if isinstance(source, bytes) else os.fspath(source))


@contextlib.contextmanager
def opened(source: str | os.PathLike[str] | bytes, name: str) -> Iterator[Image.Image]:
    """Context of an open picture of an allowed size, not decoded yet, as Pillow has it.

    Args:
        source: Path of a file, or the content of one.
        name: What the messages call it.

    Raises:
        UnreadableImageError: An OSError, if it cannot be opened or claims too much, or if what is
            done with it in the context shows that it is damaged.
    """
    limit = max_pixels()
    with _explained(name), _open(source, name) as picture:
        width, height = picture.size
        if width * height > limit:
            raise UnreadableImageError(
                f"{name} has {width} x {height} pixels, more than {limit:,}; if it is meant, set "
                f"{LIMIT}={width * height}"
            )
        yield picture


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Context in which every damage becomes one sentence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large pictures and damaged EXIF data
        try:
            yield
        except UnreadableImageError:
            raise
        except UnidentifiedImageError as error:  # its message may name an object in memory
            raise UnreadableImageError(
                f"{name} cannot be decoded (no known image format)"
            ) from error
        except (OSError, *_DAMAGE) as error:
            reason = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
            raise UnreadableImageError(
                f"{name} cannot be read ({reason or type(error).__name__})"
            ) from error


def _open(source: str | os.PathLike[str] | bytes, name: str) -> Image.Image:
    file: io.BytesIO | Path
    if isinstance(source, bytes):
        empty, file = not source, io.BytesIO(source)
    else:
        path = Path(source)
        try:
            require_regular_file(path)
        except OSError as error:
            raise UnreadableImageError(str(error)) from error
        empty, file = not path.stat().st_size, path
    if empty:
        raise UnreadableImageError(f"{name} is empty")
    with without_limit_of_pillow():
        return Image.open(file)


def _turned(picture: Image.Image) -> Image.Image:
    picture.load()  # damage of the pixels is an error, that of the EXIF data is none
    try:
        return ImageOps.exif_transpose(picture)
    except (OSError, *_DAMAGE):
        return picture


def _bits(picture: Image.Image) -> int:
    # what Pillow reads of a PGM of 16 bits has the mode of 32, and no more than 65,535
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PPM"):
        return 16
    return 32 if picture.mode in _NO_RANGE else 8


def _rgb(picture: Image.Image, *, upright: bool, name: str) -> Image.Image:
    bits = _bits(picture)  # before it is turned, which forgets the format
    if bits == 32:
        what = "fractions" if picture.mode == "F" else "32 bits"
        raise UnreadableImageError(f"{name} holds {what} a pixel; save it with 8 or 16 bits")
    if upright:
        picture = _turned(picture)
    if bits == 16:
        values = np.asarray(picture).astype(np.uint16) >> 8
        picture = Image.fromarray(values.astype(np.uint8))
    return picture.convert("RGB")
