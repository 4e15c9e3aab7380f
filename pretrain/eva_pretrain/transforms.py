"""From a decoded image to a training sample: one crop for student and teacher, and a mask.

All random numbers come from the global generators (torch's here, Python's in `BlockMasking`), which
the training engine seeds for every sample.

H x W is the grid of patches, S and T the sides of the student's and the teacher's images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.v2 import functional as F

Mask = Callable[[], Any]  # a bool array (H, W)

RATIO = (3 / 4, 4 / 3)  # of a crop's width to its height
FLIP = 0.5  # probability
RESIZE_TO_CROP = 256 / 224  # of validation


@dataclass(frozen=True, kw_only=True)
class Views:
    """Which tensors student and teacher take.

    Attributes:
        size: S, with mean and standard deviation of the student's images.
        teacher_size: T, with those of the teacher's images; None for the student's.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    teacher_size: int | None = None
    teacher_mean: tuple[float, ...] | None = None
    teacher_std: tuple[float, ...] | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the images to cut: one if student and teacher agree."""
        return tuple(dict.fromkeys((self.size, self.teacher_size or self.size)))

    def finish(self, images: Sequence[Tensor], mask: Mask | None) -> dict[str, Tensor]:
        """Normalise what was cut to `sizes`, and draw the mask.

        Returns:
            `images` (3, S, S) float32; `teacher_images` (3, T, T), absent if it would be the same
            tensor; `mask` (H, W) bool, absent without `mask`.
        """
        mean, std = self.teacher_mean or self.mean, self.teacher_std or self.std
        sample = {"images": _normalise(images[0], self.mean, self.std)}
        if len(images) > 1 or (mean, std) != (self.mean, self.std):
            sample["teacher_images"] = _normalise(images[-1], mean, std)
        if mask is not None:
            sample["mask"] = torch.as_tensor(mask(), dtype=torch.bool)
        return sample


class PretrainTransform:
    """Random crop and flip (EVA, section 2.2 and Table 3c); the same for student and teacher.

    A crop has a share in `scale` of the area and is resized bicubically. Flipping comes after
    resizing, where it costs least. `mask` is the source of masks (H, W), if any.
    """

    def __init__(
        self, views: Views, *, scale: tuple[float, float] = (0.2, 1.0), mask: Mask | None = None
    ) -> None:
        self.views, self.scale, self.mask = views, scale, mask

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """Transform an image (3, height, width) uint8; see `Views.finish`."""
        box = RandomResizedCrop.get_params(image, list(self.scale), list(RATIO))
        bicubic = InterpolationMode.BICUBIC
        images = [
            F.resized_crop(image, *box, size=[size, size], interpolation=bicubic, antialias=True)
            for size in self.views.sizes
        ]
        if torch.rand(()) < FLIP:
            images = [F.horizontal_flip(copy) for copy in images]
        return self.views.finish(images, self.mask)


class ValidationTransform:
    """The middle of an image: its shorter side resized to 256/224 of the crop's."""

    def __init__(self, views: Views, *, mask: Mask | None = None) -> None:
        self.views, self.mask = views, mask

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """See `PretrainTransform`."""
        images = []
        for size in self.views.sizes:
            side = int(size * RESIZE_TO_CROP)
            resized = F.resize(image, [side], InterpolationMode.BICUBIC, antialias=True)
            images.append(F.center_crop(resized, [size, size]))
        return self.views.finish(images, self.mask)


def _normalise(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    return F.normalize(F.to_dtype(image, torch.float32, scale=True), list(mean), list(std))
