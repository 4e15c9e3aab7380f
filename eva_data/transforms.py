"""Transform types, and the evaluation transform, which refuses strips."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from PIL import Image
from torch import Tensor

from eva_data.pictures import UnreadableImageError
from eva_data.video.video_source import LONGEST

Interpolation = Literal["bicubic", "bilinear"]
PictureTransform = Callable[[Image.Image], Tensor]  # from a picture in RGB
TensorTransform = Callable[[Tensor], Any]  # from (3, height, width) uint8
_UNNAMED = "the picture"


class StripError(UnreadableImageError):
    """A picture whose one side is too long for the other, so that it cannot be resized."""


def refuse_strip(picture: Image.Image) -> Image.Image:
    """Return a picture, but not a strip: resized by its shorter side, it would fill the memory.

    Raises:
        StripError: An OSError, if one side is more than 50 times as long as the other.
    """
    width, height = picture.size
    if max(width, height) > LONGEST * min(width, height):
        raise StripError(
            f"{_UNNAMED} has {width} x {height} pixels: one side is more than {LONGEST} times as "
            "long as the other, leave it out"
        )
    return picture


def transformed(picture: Image.Image, transform: PictureTransform, name: str) -> Tensor:
    """Transform a picture that has a name.

    Args:
        picture: The picture in RGB.
        transform: Its transform.
        name: Name of the picture, for the message.

    Raises:
        UnreadableImageError: If it is a strip, and the transform one of evaluation.
    """
    try:
        return transform(picture)
    except StripError as error:
        raise UnreadableImageError(str(error).replace(_UNNAMED, name, 1)) from error


def evaluation_transform(
    size: int,
    *,
    crop_pct: float = 1.0,
    interpolation: Interpolation = "bicubic",
    mean: Sequence[float],
    std: Sequence[float],
) -> PictureTransform:
    """Make the transform of an image that is classified (official evaluation).

    The shorter side is resized to `size / crop_pct`, rounded down, by Pillow, whose rounding
    differs from that of tensors. All published results have `crop_pct` 1, and "bicubic" but for
    ImageNet-V2 and ObjectNet, which the official code resizes "bilinear".

    Args:
        size: Side of the result in pixels.
        crop_pct: Share of the resized image's side that the crop has.
        interpolation: Kernel of the resize.
        mean: Subtracted from the pixels, for each channel.
        std: Divides them, for each channel.

    Returns:
        A function from a PIL image in RGB to (3, size, size) float32; a strip is a `StripError`.

    Raises:
        ValueError: For values out of range.
    """
    from torchvision.transforms import (
        CenterCrop,
        Compose,
        InterpolationMode,
        Normalize,
        Resize,
        ToTensor,
    )

    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    if not 0 < crop_pct <= 1:
        raise ValueError(f"crop_pct must be in (0, 1], got {crop_pct}")
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != 3 or (name == "std" and min(values) <= 0):
            raise ValueError(f"{name} must be three numbers, std above 0, got {tuple(values)}")
    if interpolation not in get_args(Interpolation):
        raise ValueError(f"interpolation must be bicubic or bilinear, got {interpolation!r}")
    transform: PictureTransform = Compose(
        [
            refuse_strip,
            Resize(int(size / crop_pct), InterpolationMode(interpolation)),
            CenterCrop(size),
            ToTensor(),
            Normalize(mean, std),
        ]
    )
    return transform
