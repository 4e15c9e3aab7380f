"""How a run scales the bands of its images: what a user asks for, and what was measured.

Values are mapped by a range of each band to 0..1, beyond which they are clipped; then a mean is
subtracted, and divided by a deviation. The run keeps these settings. `eva_data.band_files` reads
the images.

Shapes: H x W pixels, N bands.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from eva_data.band_files import MOST_BANDS, Pixels, read_bands
from eva_data.images import Source, UnreadableImageError, read_rgb
from eva_data.pools import ordered_map

RANGE = "p1:p99"  # by default
_MOST_IMAGES, _MOST_VALUES = 2000, 4096  # that are measured, and pixels of each
_MOST_PIXELS = 2**21  # of all
_LISTS = ("low", "high", "mean", "std", "show")  # of `Bands`
_LIMITS = re.compile(r"(p?)(-?\d+\.?\d*):(p?)(-?\d+\.?\d*)")


@dataclass(frozen=True, kw_only=True)
class BandRequest:
    """What a user says of the bands of own data; a wrong value is a ValueError.

    Attributes:
        count: Number of bands, which each image has.
        range: Values that become 0 and 1, `LOW:HIGH` for all bands or, divided by commas, for each:
            numbers, or percentiles of the training images; empty for `p1:p99`.
        show: Three bands, counted from 1, that drawings have as red, green and blue, as `3,2,1`;
            empty for the first three, or of fewer the first alone.
    """

    count: int
    range: str = ""
    show: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST_BANDS:
            raise ValueError(f"bands must be from 1 to {MOST_BANDS}, got {self.count}")
        self.ranges()
        self.shown()

    def ranges(self) -> list[tuple[str, float, str, float]]:
        """Return for each band: "p" of a percentile or "", and its value; of low and high."""
        parts = [_LIMITS.fullmatch(part) for part in (self.range or RANGE).split(",")]
        matches = [part for part in parts if part is not None]
        ranges = [(m[1], float(m[2]), m[3], float(m[4])) for m in matches]
        percentiles = [value for range_ in ranges for value in range_[1::2] if range_[0]]
        falls = any(kind == other and low >= high for kind, low, other, high in ranges)
        outside = any(not 0 <= value <= 100 for value in percentiles)
        mixed = any(kind != other for kind, _, other, _ in ranges)
        if falls or outside or mixed or len(matches) < len(parts):
            raise ValueError(f"band range must be LOW:HIGH or pLOW:pHIGH, got {self.range!r}")
        if len(ranges) not in (1, self.count):
            raise ValueError(
                f"{self.count} bands have 1 or {self.count} ranges, got {self.range!r}"
            )
        return ranges * (self.count if len(ranges) == 1 else 1)

    def shown(self) -> tuple[int, int, int]:
        """Return the bands of drawings, from 1."""
        words = self.show.split(",") if self.show else ["1", "2", "3"][: self.count]
        words = ["1"] * 3 if not self.show and self.count < 3 else words
        bands = [int(word) if word.strip().isdecimal() else 0 for word in words]
        if len(bands) != 3 or not all(1 <= band <= self.count for band in bands):
            raise ValueError(
                f"bands to show must be three of 1 to {self.count}, as 3,2,1; got {self.show!r}"
            )
        return bands[0], bands[1], bands[2]

    def fits(self, bands: "Bands") -> bool:
        """Return whether bands are of this number, and of ranges and drawings as stated."""
        if self.count != bands.count or (self.show and self.shown() != bands.show):
            return False
        if not (self.range and bands.range):
            return True
        return self.ranges() == replace(self, range=bands.range).ranges()

    def __str__(self) -> str:
        shown = f" --show-bands {self.show}" if self.show else ""
        return f"--bands {self.count} --band-range {self.range or RANGE}{shown}"


@dataclass(frozen=True, kw_only=True)
class Bands:
    """What a model of bands is given, and what drawings show; a run keeps it.

    Attributes:
        low: Value of each band that becomes 0.
        high: Value that becomes 1; what is beyond both is clipped.
        mean: Mean of each band after that.
        std: Standard deviation after that.
        show: Bands of drawings, from 1.
        range: Request of which low and high are, see `BandRequest`; empty where none is noted.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    show: tuple[int, ...]
    range: str = ""

    @property
    def count(self) -> int:
        """Number of bands."""
        return len(self.low)

    @classmethod
    def from_json(cls, values: Mapping[str, Any] | None) -> Self | None:
        """Build what `as_json` has written; None of None."""
        if values is None:
            return None
        return cls(**{**values, **{key: tuple(values[key]) for key in _LISTS}})

    def as_json(self) -> dict[str, Any]:
        """Return the settings, with lists."""
        return asdict(self) | {key: [*getattr(self, key)] for key in _LISTS}

    def read(self, source: Source | Pixels, *, name: str | None = None) -> Pixels:
        """Read the bands of an image as they are stored, and refuse another number of them.

        An array of 8 bits is refused where the values are larger: a program has read it in RGB.
        """
        pixels = read_bands(source, name=name, count=self.count)
        is_file, highest = isinstance(source, str | os.PathLike), max(self.high)
        if not is_file and pixels.dtype == np.uint8 and highest > 256:
            raise UnreadableImageError(
                f"{name or 'the image'} is in uint8, and the bands reach {highest:g}: give a path, "
                "or the values of the file"
            )
        return pixels

    def scale(self, pixels: Pixels) -> NDArray[np.float32]:
        """Map values by the ranges to 0..255, which the frameworks' augmentations expect."""
        kind = np.result_type(pixels, np.float32)
        low, high = np.array(self.low, kind), np.array(self.high, kind)
        scaled = (pixels.astype(kind) - low) * (255 / (high - low))
        return scaled.clip(0, 255).astype(np.float32, copy=False)

    def draw(self, pixels: Pixels) -> NDArray[np.uint8]:
        """Make an image (H, W, 3) in RGB of the bands that are shown."""
        shown = [band - 1 for band in self.show]
        low, high = (tuple(values[band] for band in shown) for values in (self.low, self.high))
        three = Bands(low=low, high=high, mean=(), std=(), show=(1, 2, 3))
        return np.rint(three.scale(pixels[..., shown])).astype(np.uint8)

    def describe(self) -> str:
        """Say what a report says of them."""
        ranges = (f"{low:g} to {high:g}" for low, high in zip(self.low, self.high, strict=True))
        drawn = ", ".join(map(str, self.show))
        values = "; ".join(ranges) + (f" ({self.range})" if self.range else "")
        return f"{self.count}: {values} become 0 to 1; drawn are bands {drawn}"


def read_pixels(source: Source | Pixels, bands: Bands | None, *, upright: bool = True) -> Pixels:
    """Read an image in RGB, or its bands as they are stored."""
    return read_rgb(source, upright=upright) if bands is None else bands.read(source)


def draw_pixels(pixels: Pixels, bands: Bands | None) -> NDArray[np.uint8]:
    """Make an image in RGB of what `read_pixels` returns."""
    return pixels if bands is None else bands.draw(pixels)


def continue_bands(bands: Bands | None, request: BandRequest | None) -> Bands | None:
    """Return the bands of a run that continues; a ValueError if another kind is requested."""
    if request is not None and bands is not None and request.fits(bands):
        return bands
    if request or bands:
        had = f"bands {bands.describe()}" if bands else "images in RGB"
        raise ValueError(
            f"the run that continues has {had}, not {request or 'RGB'}: leave out --resume"
        )
    return None


def measure_bands(files: Sequence[str | os.PathLike[str]], request: BandRequest) -> Bands:
    """Measure the ranges that are percentiles, and mean and deviation of each band.

    Of at most 2,000 images, evenly spread, 4,096 pixels each are taken, together about 2 million.
    An image that cannot be read, or has another number of bands, is an error.
    """
    chosen = [str(file) for file in files[:: -(-len(files) // _MOST_IMAGES) or 1]]
    workers = min(8, os.cpu_count() or 1) if len(chosen) > 200 else 1
    shared = (request.count, min(_MOST_VALUES, _MOST_PIXELS // max(len(chosen), 1)))
    parts = [*ordered_map(_sample, chosen, workers=workers, title="bands", shared=shared)]
    rows = []
    for band, (kind, first, _, last) in enumerate(request.ranges()):
        values = np.concatenate([part[:, band] for part in parts])
        low, high = np.percentile(values, [first, last]) if kind else (first, last)
        stored = values.dtype.type
        high = high if stored(high) > stored(low) else low + max(1.0, np.spacing(stored(low)))
        scaled = ((values.astype(np.float64) - low) / (high - low)).clip(0, 1)
        mean, std = (float(f"{value:.6g}") for value in (scaled.mean(), scaled.std() or 1))
        rows.append((float(low), float(high), mean, std))
    lows, highs, means, stds = zip(*rows, strict=True)
    measured: Any = {"low": lows, "high": highs, "mean": means, "std": stds}
    return Bands(**measured, show=request.shown(), range=request.range or RANGE)


def _sample(count: int, most: int, file: str) -> Pixels:
    """Draw at most so many pixels of an image, always the same."""
    rows: Pixels = read_bands(file, count=count).reshape(-1, count)
    if len(rows) > most:
        rows = rows[np.random.default_rng(0).choice(len(rows), most, replace=False)]
    return rows.astype(np.result_type(rows, np.float32))
