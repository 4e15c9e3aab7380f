"""Files of images with 1 to 32 bands.

A file is a TIFF, whose bands are samples of a pixel or pages; `.npy`; `.npz` with one array, or
with one for each band; or any other image, of one band (grey) or three, or a PNG with alpha as the
last one. Values may have 8, 16 or 32 bits or be fractions.

Shapes: H x W pixels, N bands.
"""

import math
import os
import re
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageOps

from eva_data.files import ARRAY_SUFFIXES, IMAGE_SUFFIXES
from eva_data.images import (
    ImageFacts,
    Source,
    UnreadableImageError,
    explain_damage,
    inspect_image,
    max_pixels,
    open_image,
    read_rgb,
)

MOST_BANDS = 32
BAND_SUFFIXES = IMAGE_SUFFIXES | ARRAY_SUFFIXES
_TIFF = (".tif", ".tiff")
_GREY = ("1", "L", "I;16", "I;16B", "I", "F")  # modes of Pillow
Pixels = NDArray[Any]  # (H, W, N), as stored


def read_bands(
    source: Source | Pixels, *, name: str | None = None, count: int | None = None
) -> Pixels:
    """Read the bands of an image as they are stored, (H, W, N); an array is returned as it is.

    The axis of the bands of an array in a file is that with `count` values, the last if both have,
    or without a count the shorter one.

    Raises:
        UnreadableImageError: If the file is missing, damaged or too large, its bands differ in size
            or are not `count` or more than 32, or a value is not finite.
    """
    if isinstance(source, np.ndarray):
        pixels, name = source, name or "the array"
    else:
        name = name or (str(source) if isinstance(source, str | os.PathLike) else "the image")
        with explain_damage(name, only=(Exception,)):  # of three libraries
            pixels = _read(source, count)
    pixels = pixels.astype(np.uint8) if pixels.dtype.kind == "b" else pixels
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    number = pixels.dtype.kind in "uif"
    if pixels.ndim != 3 or not number or not pixels.size or pixels.shape[2] > MOST_BANDS:
        raise UnreadableImageError(
            f"{name} has the shape {pixels.shape} in {pixels.dtype}: bands are (height, width, "
            f"bands) numbers, of 1 to {MOST_BANDS} bands"
        )
    if count not in (None, pixels.shape[2]):
        raise UnreadableImageError(f"{name} has {pixels.shape[2]} bands, and not {count}")
    if pixels.dtype.kind == "f" and not (finite := np.isfinite(pixels)).all():
        row, column, band = np.argwhere(~finite)[0].tolist()
        raise UnreadableImageError(
            f"{name} has the value {pixels[row, column, band]} in band {band + 1}, row {row}, "
            f"column {column}, and {int((~finite).sum())} such values: replace them"
        )
    return pixels


def inspect_bands(
    file: str | os.PathLike[str],
    *,
    decode: bool,
    name: str | None = None,
    count: int | None = None,
) -> ImageFacts:
    """Look at an image as `inspect_image` does, also at one with bands that Pillow cannot open.

    With a `count`, all of its values are read as bands, of which another number is an error.
    """
    try:
        if count is None:
            return inspect_image(file, decode=decode, name=name)
    except UnreadableImageError:
        if Path(file).suffix.lower() not in (*_TIFF, *ARRAY_SUFFIXES):
            raise
    height, width, bands = read_bands(file, name=name, count=count).shape
    return ImageFacts(
        width, height, 1, bits=8, mode=f"{bands} bands", animated=False, transparent=False
    )


def _read(source: Source, count: int | None) -> Pixels:
    if not isinstance(source, str | os.PathLike):
        return read_rgb(source, upright=True)
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix in _TIFF:
        return _read_tiff(path)
    if suffix in ARRAY_SUFFIXES:
        return _read_arrays(path, count)
    if suffix == ".png":  # of which Pillow has 8 of the 16 bits of a colour
        from torchvision.io import ImageReadMode, decode_image

        facts = inspect_image(path, decode=False)
        if facts.mode == "P":
            raise ValueError("it has a palette: convert it to grey or RGB")
        _check_shape(*facts.seen_size)
        stored = decode_image(str(path), ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
        return _upright(stored, facts.orientation)
    with open_image(path, str(path)) as image:
        if image.mode in _GREY:
            return _as_stored(image)
    return read_rgb(path, upright=True)


def _as_stored(image: Any) -> Pixels:
    """Read grey values, which Pillow stretches to 8 or 16 bits in PGM files of another maximum."""
    is_pgm = image.format == "PPM" and image.mode in ("L", "I")
    arguments = image.tile[0].args if is_pgm else None
    pixels = np.asarray(ImageOps.exif_transpose(image))
    if not isinstance(arguments, tuple):
        return pixels
    full = 65535 if image.mode == "I" else 255
    return np.round(pixels * (arguments[1] / full)).astype(pixels.dtype)


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Apply EXIF's orientation to an array (H, W, N)."""
    turned = np.rot90(pixels, {3: 2, 4: 2, 5: -1, 6: -1, 7: 1, 8: 1}.get(orientation, 0))
    return turned[:, ::-1] if orientation in (2, 4, 5, 7) else turned


def _check_shape(*shape: int) -> None:
    """Refuse a shape of too many pixels, or bands, the shortest axis, before it is read."""
    height, width, *bands = sorted(shape, reverse=True)
    if height * width > max_pixels() or math.prod(bands) > MOST_BANDS:
        sides = " x ".join(map(str, shape))
        raise ValueError(f"{sides} values are more than {max_pixels():,} pixels or 32 bands")


def _read_tiff(path: Path) -> Pixels:
    """Read the pages of full size, each of which has bands as samples or as planes."""
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        # others are overviews and masks
        pages: list[Any] = [page for page in tiff.pages if not page.aspage().subfiletype & 5]
        first = pages[0]
        turned = first.tags.get("Orientation")
        if turned is not None and turned.value != 1:
            raise ValueError(f"it has orientation {turned.value}: store it upright")
        if any(page.aspage().photometric == tifffile.PHOTOMETRIC.PALETTE for page in pages):
            raise ValueError("it has a palette: convert it to grey or RGB")
        for page in pages:
            _check_shape(*page.aspage().shape)
        planes = [page.asarray() for page in pages]
        return np.dstack(
            [
                np.moveaxis(plane, 0, -1) if page.aspage().axes == "SYX" else plane
                for page, plane in zip(pages, planes, strict=True)
            ]
        )


def _read_arrays(path: Path, count: int | None) -> Pixels:
    """Read `.npy`, or the arrays of `.npz`, of (H, W), (H, W, N) or (N, H, W)."""
    if path.suffix.lower() == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            for member in archive.zip.namelist():
                with archive.zip.open(member) as stream:
                    _check_header(stream)
            arrays = {name: archive[name] for name in archive.files}
        if len(arrays) != 1:
            return np.dstack([arrays[name] for name in sorted(arrays, key=_by_number)])
        (array,) = arrays.values()
    else:
        with path.open("rb") as stream:
            _check_header(stream)
        array = np.load(path, allow_pickle=False)
    if array.ndim == 3:
        first, _, last = array.shape
        fits = count in (first, last)
        if last != count and first == count if fits else first < last and first <= MOST_BANDS:
            array = np.moveaxis(array, 0, -1)
    return array


def _check_header(stream: IO[bytes]) -> None:
    """Check the shape of an array that begins here in numpy's format."""
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0}
    shape, _, _ = readers.get(version, np.lib.format.read_array_header_2_0)(stream)
    if len(shape) > 1:
        _check_shape(*shape)


def _by_number(name: str) -> list[str | int]:
    """Order names with numbers as people do: b2 before b10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
