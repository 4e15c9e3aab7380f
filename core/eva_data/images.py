"""The one decoder of images, with one rule for each kind of file.

8 bits are as they are, of 16 the upper 8 are kept (`eva_data.band_files` reads all); 32 and
fractions have no agreed range and are refused.
Transparency shows white, as a viewer shows it; test sets with published results drop it, as the
official code (`on_white=False`). Animations give their first frame. A truncated file is refused,
and before anything is decoded one of more pixels than `max_pixels()`.

EXIF's orientation is applied (`upright`) wherever people look at images, boxes or maps, or bring
images of their own. Pre-training, and the training and evaluation of classifiers, leave images as
they are stored, as torchvision's `ImageFolder` for the published results. TIFF is always turned.
"""

import contextlib
import io
import logging
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from eva_data.files import require_regular_file
from eva_data.index import StoredFiles
from eva_data.saving import replace_file

logger = logging.getLogger(__name__)

LIMIT = "EVA_MAX_IMAGE_PIXELS"  # environment variable: reaches every worker of every project
_USUAL_LIMIT = 100_000_000  # 10,000 x 10,000
_ORIENTATION = 274  # EXIF tag
_SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange width and height
_NO_RANGE = ("F", "I")  # modes of fractions and of 32 bits
_JPEG_SIDE = 65_500  # pixels, at most
_LOOKS = 16  # images of a dataset whose depth is looked at before a training
# What Pillow's decoders raise for damaged files, besides OSError; anything else is a bug.
_DAMAGE = (
    *(SyntaxError, ValueError, EOFError, TypeError, IndexError, KeyError, OverflowError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
_pillow_limit = threading.RLock()

File = str | os.PathLike[str] | bytes  # path of a file, or its content
Source = File | Image.Image


class UnreadableImageError(OSError, ValueError):
    """An image that cannot be read or decoded, in a file or handed over; the message names it."""


def max_pixels() -> int:
    """Return the pixels that an image may have: `EVA_MAX_IMAGE_PIXELS`, or 100 million."""
    value = os.environ.get(LIMIT, "") or str(_USUAL_LIMIT)
    if not value.isdecimal() or not int(value):
        raise ValueError(f"{LIMIT} must be a positive integer, a number of pixels, got {value!r}")
    return int(value)


def read_encoded(files: StoredFiles, index: int) -> bytes:
    """Read an image of a dataset without decoding it; an UnreadableImageError if it cannot be."""
    name = files.sample_id(index)
    try:
        return files.read(index)
    except (OSError, ValueError) as error:  # a ValueError of a path with a zero byte
        reason = str(error) if name in str(error) else f"{name}: {error}"
        raise UnreadableImageError(reason) from error


def read_image(
    source: Source, *, upright: bool, on_white: bool = True, name: str | None = None
) -> Image.Image:
    """Read an image as RGB; `upright` turns it as its EXIF data say.

    What is transparent becomes white; without `on_white` it shows the colour that it hides. An
    `UnreadableImageError`, which names the path or `name`, is of a missing, damaged or too large
    one.
    """
    if isinstance(source, Image.Image):
        name = name or "image"
        _check_size(source, name)
        with explain_damage(name):
            return _rgb(source, upright=upright, on_white=on_white, name=name)
    name = _name(source, name)
    with open_image(source, name) as image, explain_damage(name):
        return _rgb(image, upright=upright, on_white=on_white, name=name)


def read_rgb(
    source: Source | NDArray[np.uint8], *, upright: bool, name: str | None = None
) -> NDArray[np.uint8]:
    """Read an image as an array (H, W, 3), as `read_image`; such an array is returned as it is."""
    if not isinstance(source, np.ndarray):
        return np.array(read_image(source, upright=upright, name=name))
    if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or not source.size:
        raise ValueError(
            f"an image must be (H, W, 3) RGB in uint8, got {source.shape} in {source.dtype}"
        )
    return source


class ImageFacts(NamedTuple):
    """Result of inspecting an image, of the size as stored, before EXIF's orientation (1: none).

    `bits` are those of a value; 32 also stand for fractions and are refused. `mode` is Pillow's.
    `transparent` is an image with alpha, or if it was decoded with a pixel that is not opaque.
    `largest` is the largest value of a decoded image of 16 bits, else 0.
    """

    width: int
    height: int
    orientation: int
    bits: int
    mode: str
    animated: bool
    transparent: bool
    largest: int = 0

    @property
    def seen_size(self) -> tuple[int, int]:
        """Width and height for a reader that applies the orientation, as detectron2 does."""
        width, height = self[:2]
        return (height, width) if self.orientation in _SIDEWAYS else (width, height)


def inspect_image(source: File, *, decode: bool, name: str | None = None) -> ImageFacts:
    """Look at an image without converting it; with `decode`, read all pixels."""
    title = _name(source, name)
    with open_image(source, title, decode=decode) as image:
        bits = _bits(image)
        largest = int(np.asarray(image).max()) if decode and bits == 16 else 0
        return ImageFacts(
            *image.size,
            orientation=_orientation(image, decode=decode),
            bits=bits,
            mode=image.mode,
            animated=getattr(image, "is_animated", False),
            transparent=_has_alpha(image) and not (decode and _is_opaque(image.convert("RGBA"))),
            largest=largest,
        )


def on_white_ground(image: Image.Image) -> Image.Image:
    """Composite an image of any mode on white; one without transparency is returned as it is."""
    if not _has_alpha(image):
        return image
    over = image.convert("RGBA")
    if not _is_opaque(over):
        over = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return over.convert("RGB")


def save_image(image: Image.Image, file: Path) -> None:
    """Write a JPEG or PNG completely or not at all; a JPEG above 65,500 px a side is an error."""
    if max(image.size) > _JPEG_SIDE and file.suffix.lower() != ".png":
        raise ValueError(f"{file} would be larger than JPEG's {_JPEG_SIDE:,} pixels: give a PNG")
    with replace_file(file) as part:
        image.save(part, quality=95)  # without effect on PNG


@contextlib.contextmanager
def open_image(source: File, name: str, *, decode: bool = False) -> Iterator[Image.Image]:
    """Open an image of any mode by Pillow, if its size is allowed; with `decode`, decode it.

    Who decodes it inside the context must expect what Pillow raises besides OSError.
    """
    if not isinstance(source, bytes):
        try:
            require_regular_file(Path(source))
        except OSError as error:
            raise UnreadableImageError(str(error)) from error
    with explain_damage(name), _pillow_limit:  # which cannot be lifted for one image; ours applies
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        finally:
            Image.MAX_IMAGE_PIXELS = before
    with image, explain_damage(name, only=(OSError, Image.DecompressionBombError)):
        _check_size(image, name)
        if decode:
            with explain_damage(name):
                image.load()
        yield image


@contextlib.contextmanager
def explain_damage(
    name: str, only: tuple[type[Exception], ...] = (OSError, *_DAMAGE)
) -> Iterator[None]:
    """Turn every damage into an `UnreadableImageError`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large images and damaged EXIF data
        try:
            yield
        except only as error:
            if isinstance(error, UnreadableImageError):
                raise
            reason = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
            problem = f"cannot be read ({reason or type(error).__name__})"
            if isinstance(error, UnidentifiedImageError):  # it may name an object in memory
                problem = "cannot be decoded (no known image format)"
            raise UnreadableImageError(f"{name} {problem}") from error


def _name(source: File, name: str | None) -> str:
    return name or ("image" if isinstance(source, bytes) else os.fspath(source))


def _check_size(image: Image.Image, name: str) -> None:
    (width, height), limit = image.size, max_pixels()
    if width * height > limit:
        raise UnreadableImageError(
            f"{name} has {width} x {height} pixels, more than {limit:,}; if it is meant, set "
            f"{LIMIT}={width * height}"
        )


def _orientation(image: Image.Image, *, decode: bool) -> int:
    if image.format == "TIFF":  # Pillow turns it, and gives the size that it then has
        return 1
    with contextlib.suppress(OSError, *_DAMAGE):  # damaged EXIF data are not an error
        # the EXIF reader of PNG files decodes all pixels to look for data behind them
        exif = image.getexif() if decode else Image.Image.getexif(image)
        return int(exif.get(_ORIENTATION, 1))
    return 1


def _bits(image: Image.Image) -> int:
    # Pillow gives a PGM of 16 bits the mode of 32 bits, with values up to 65,535
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return 16
    return 32 if image.mode in _NO_RANGE else 8


def describe_dark(largest: int) -> str:
    """Say that images of 16 bits are dark by the largest value of all, or nothing."""
    needed = next(bits for bits in (8, 10, 12, 14, 16) if largest < 2**bits)
    if not largest or needed == 16:
        return ""
    return (
        f"the largest value of 16 bits is {largest:,}: --bands of detection, segmentation and "
        f"classification keeps all bits; for others multiply the values by {2 ** (16 - needed)}"
    )


def warn_of_depth(count: int, source: Callable[[int], File]) -> None:
    """Warn where the values of images of 16 bits are small; a few of `count` are looked at."""
    largest, name = 0, ""
    for index in range(0, count, -(-count // _LOOKS) or 1):
        with contextlib.suppress(UnreadableImageError):
            file = source(index)
            if inspect_image(file, decode=False).bits == 16:
                largest = max(largest, inspect_image(file, decode=True).largest)
                name = name or _name(file, None)
    if line := describe_dark(largest):
        logger.warning("images such as %s are dark: %s", name, line)


def _has_alpha(image: Image.Image) -> bool:
    return image.has_transparency_data and _bits(image) == 8


def _is_opaque(image: Image.Image) -> bool:
    return image.getchannel("A").getextrema()[0] == 255


def _rgb(image: Image.Image, *, upright: bool, on_white: bool, name: str) -> Image.Image:
    bits = _bits(image)  # before it is turned, which forgets the format
    if bits == 32:
        kind = "fractions" if image.mode == "F" else "32 bits"
        raise UnreadableImageError(f"{name} holds {kind} a pixel; save it with 8 or 16 bits")
    if upright:
        image.load()  # damaged pixels are an error, damaged EXIF data are not
        with contextlib.suppress(OSError, *_DAMAGE):
            image = ImageOps.exif_transpose(image)
    if bits == 16:
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    return (on_white_ground(image) if on_white else image).convert("RGB")
