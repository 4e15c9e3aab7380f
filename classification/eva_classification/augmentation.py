"""Augmentation of training images, by timm's transforms; batches are mixed by the engine."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.functional import get_image_size

from eva_classification.config import AugmentConfig, DataConfig

RATIO = (3 / 4, 4 / 3)
BICUBIC = InterpolationMode.BICUBIC


def training_transform(
    size: int, augment: AugmentConfig, data: DataConfig
) -> Callable[[Image.Image], Tensor]:
    """Build the transform of a training image, with random numbers from the global generators.

    Args:
        size: Side of the result in pixels.
        augment: Crops, flips, policy, erasing.
        data: Mean and standard deviation.

    Returns:
        A function from a PIL image to (3, size, size) float32.
    """
    transform: Any = create_transform(
        size,
        is_training=True,
        scale=augment.scale,
        ratio=RATIO,
        hflip=augment.flip,
        color_jitter=augment.color_jitter or None,
        auto_augment=augment.auto_augment or None,
        interpolation="bicubic",
        mean=data.mean,
        std=data.std,
        re_prob=augment.random_erase,
        re_mode="pixel",
    )
    if augment.crop == "once":
        transform.transforms[0] = CropOnce(size, augment.scale, RATIO, BICUBIC)
    result: Callable[[Image.Image], Tensor] = transform
    return result


class CropOnce(RandomResizedCrop):
    """Random crop of one draw: a side that is too long is cut to the image (BYOL, MAE).

    torchvision's draws up to ten times, so that large crops are rarer.
    """

    @staticmethod
    def get_params(
        img: Tensor | Image.Image, scale: Sequence[float], ratio: Sequence[float]
    ) -> tuple[int, int, int, int]:
        """Draw top, left, height and width of a crop.

        Args:
            img: Image to crop.
            scale: Smallest and largest share of its area.
            ratio: Smallest and largest width by height.
        """
        width, height = get_image_size(img)
        area = height * width * torch.empty(1).uniform_(*scale).item()
        low, high = (math.log(value) for value in ratio)
        aspect = math.exp(torch.empty(1).uniform_(low, high).item())
        crop_width = min(round(math.sqrt(area * aspect)), width)
        crop_height = min(round(math.sqrt(area / aspect)), height)
        top = int(torch.randint(0, height - crop_height + 1, (1,)))
        left = int(torch.randint(0, width - crop_width + 1, (1,)))
        return top, left, crop_height, crop_width
