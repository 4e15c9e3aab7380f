"""Training augmentation: timm's transforms for images, timm's Mixup for batches."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.functional import get_image_size

from eva_classification.config import AugmentConfig, DataConfig

RATIO = (3 / 4, 4 / 3)
BICUBIC = InterpolationMode.BICUBIC


def training_transform(
    size: int, augment: AugmentConfig, data: DataConfig
) -> Callable[[Image.Image], Tensor]:
    """Transform of a training image, random numbers from the global generators.

    Args:
        size: Side of the result in pixels.
        augment: Crops, flips, policy, erasing.
        data: Mean and standard deviation.

    Returns:
        A function from a PIL image to (3, size, size) float32.
    """
    from timm.data import create_transform

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
        """Top, left, height and width of a crop.

        Args:
            img: To be cropped.
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


class Targets:
    """Mixes a batch and makes the loss that goes with it.

    Args:
        augment: Mixup, cutmix, label smoothing.
        num_classes: K.
    """

    def __init__(self, augment: AugmentConfig, *, num_classes: int) -> None:
        self.smoothing = augment.label_smoothing
        self._mix: Any = None
        if augment.mixup or augment.cutmix:
            from timm.data import Mixup

            self._mix = Mixup(
                mixup_alpha=augment.mixup,
                cutmix_alpha=augment.cutmix,
                switch_prob=augment.mixup_switch,
                label_smoothing=augment.label_smoothing,
                num_classes=num_classes,
            )

    def mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mix images and labels where the recipe wants it.

        Args:
            images: (B, 3, H, W).
            labels: (B,) int64.

        Returns:
            Images, and labels (B,) or, mixed, probabilities (B, K).
        """
        if self._mix is None:
            return images, labels
        mixed: tuple[Tensor, Tensor] = self._mix(images, labels)
        return mixed

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy in float32.

        Args:
            logits: (B, K).
            targets: What `mix` gave; probabilities are smoothed already.

        Returns:
            Mean over the batch.
        """
        smoothing = self.smoothing if targets.ndim == 1 else 0.0
        return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)


def accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Share of the batch whose first class is the (mixed: greatest) label."""
    labels = targets if targets.ndim == 1 else targets.argmax(1)
    return (logits.argmax(1) == labels).float().mean().to(torch.float32)
