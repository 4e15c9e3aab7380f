"""Pictures to the tensors of contrastive training: the official augmentation, which is a crop."""

from collections.abc import Sequence

from torchvision.transforms import (
    Compose,
    InterpolationMode,
    Normalize,
    RandomResizedCrop,
    ToTensor,
)

from eva_data.transforms import ImageTransform


def training_transform(
    size: int,
    *,
    crop_scale: tuple[float, float] = (0.9, 1.0),
    mean: Sequence[float],
    std: Sequence[float],
) -> ImageTransform:
    """Make the transform of a training picture (paper Table 10a; open_clip's, with its values).

    Random numbers come from torch's global generator, which the loop seeds for each sample.

    Args:
        size: Side of the result in pixels.
        crop_scale: Smallest and largest share of the picture that a crop has.
        mean: Subtracted from the pixels in [0, 1], for each channel.
        std: Divides them, for each channel.

    Returns:
        A function from a PIL image in RGB to (3, size, size) float32.
    """
    transform: ImageTransform = Compose(
        [
            RandomResizedCrop(size, scale=crop_scale, interpolation=InterpolationMode.BICUBIC),
            ToTensor(),
            Normalize(mean, std),
        ]
    )
    return transform
