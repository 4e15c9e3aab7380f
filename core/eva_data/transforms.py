"""Transform types, and the evaluation transform."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeVar, cast

from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, from_numpy
from torchvision.transforms import (
    CenterCrop,
    Compose,
    InterpolationMode,
    Normalize,
    Resize,
    ToTensor,
)
from torchvision.transforms.v2.functional import center_crop, get_size

from eva_data.bands import Bands

Interpolation = Literal["bicubic", "bilinear"]
ImageTransform = Callable[[Image.Image], Tensor]  # from an image in RGB
BandTransform = Callable[[NDArray[Any]], Tensor]  # from (height, width, bands) as stored
TensorTransform = Callable[[Tensor], Any]  # from (3, height, width) uint8
Pixels = TypeVar("Pixels", Image.Image, Tensor)
_MOST_TIMES = 50  # longer side by shorter


def evaluation_transform(
    size: int,
    *,
    crop_pct: float = 1.0,
    interpolation: Interpolation = "bicubic",
    mean: Sequence[float],
    std: Sequence[float],
) -> ImageTransform:
    """Make the transform of an image that is classified (official evaluation).

    The shorter side is resized to `size / crop_pct`, rounded down, by Pillow, whose rounding
    differs from that of tensors. All published results have `crop_pct` 1, and "bicubic" but for
    ImageNet-V2 and ObjectNet, which the official code resizes "bilinear". Of a strip that is more
    than 50 times as long as wide, the middle is taken.

    Returns:
        A function from a PIL image in RGB to (3, size, size) float32, normalised by mean and std.
    """
    side = int(size / crop_pct)
    transform: ImageTransform = Compose(
        [
            without_ends,
            Resize(side, InterpolationMode(interpolation)),
            CenterCrop(size),
            ToTensor(),
            Normalize(mean, std),
        ]
    )
    return transform


def without_ends(image: Pixels) -> Pixels:
    """Keep the middle of a strip that would fill the memory once its shorter side is resized.

    It is an image, or a tensor (..., height, width).
    """
    sides = get_size(image)
    longest = _MOST_TIMES * min(sides)
    if max(sides) <= longest:
        return image
    return cast(Pixels, center_crop(image, [min(side, longest) for side in sides]))


def band_transform(size: int, bands: Bands, *, crop_pct: float = 1.0) -> BandTransform:
    """Make the evaluation transform of an array of bands (H, W, N), which resizes as tensors do."""
    transform: BandTransform = Compose(
        [
            partial(scale_bands, bands=bands),
            without_ends,
            Resize(int(size / crop_pct), InterpolationMode.BICUBIC, antialias=True),
            CenterCrop(size),
            Normalize(bands.mean, bands.std),
        ]
    )
    return transform


def scale_bands(pixels: NDArray[Any], *, bands: Bands) -> Tensor:
    """Map bands (H, W, N) as stored by their ranges to 0..1, (N, H, W)."""
    return from_numpy(bands.scale(pixels) / 255).permute(2, 0, 1)
