"""From frames to clips: the official augmentation for training, and the views for tests.

All frames of a clip are cropped and flipped alike. Frames are resized bilinearly without
antialiasing, as cv2 does it in the official code (mmaction2).

Random numbers come from torch's global generator, which the loop seeds for each clip.

Shapes: T frames of H x W pixels, V views, S the side of the result.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import ColorJitter
from torchvision.transforms.v2 import functional

from eva_backbone.variants import IMAGENET_MEAN, IMAGENET_STD
from eva_data.transforms import without_ends
from eva_video.config import AugmentConfig, JitterEach

Frames = NDArray[np.uint8]  # (T, H, W, 3)
ClipTransform = Callable[[Frames], Tensor]  # to (T, 3, S, S) float32, or (V, T, 3, S, S)

SHORT_SIDE = 256 / 224  # of the resized frame, in sides of the crop
NEAR = 3  # pixels: a crop whose side is nearer to S than this has S
PLACES = ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2))  # of a crop: four corners and the middle
# factors of brightness, contrast and saturation, and turns of the hue
JITTER = ([0.6, 1.4], [0.6, 1.4], [0.8, 1.2], [-0.1, 0.1])


@dataclass(frozen=True, kw_only=True)
class Normalise:
    """Turns pixels into the numbers that the model takes.

    Attributes:
        mean: Subtracted from the pixels in [0, 1], for each channel.
        std: Divides them, for each channel.
    """

    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD

    def __call__(self, pixels: Tensor) -> Tensor:
        """Normalise (..., 3, H, W) uint8; float32 of the same shape, contiguous."""
        mean = torch.tensor(self.mean)[:, None, None]
        std = torch.tensor(self.std)[:, None, None]
        result = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        return result.mul_(1 / (255 * std)).sub_(mean / std)


class TrainingTransform:
    """Multi-scale crop to side S, flip, colour jitter, grey, as `AugmentConfig` describes them."""

    def __init__(self, size: int, *, normalise: Normalise, augment: AugmentConfig) -> None:
        self.size, self.normalise, self.augment = size, normalise, augment

    def __call__(self, frames: Frames) -> Tensor:
        """Make a clip (T, 3, S, S) of frames (T, H, W, 3)."""
        pixels = resize_short_side(as_pixels(frames), int(self.size * SHORT_SIDE))
        top, left, height, width = self.draw_crop(pixels.shape[-2], pixels.shape[-1])
        pixels = resize(pixels[..., top : top + height, left : left + width], self.size, self.size)
        if _chance(self.augment.flip):
            pixels = pixels.flip(-1)
        if _chance(self.augment.color_jitter):
            pixels = jitter(pixels, each=self.augment.jitter_each)
        if _chance(self.augment.gray):
            pixels = functional.rgb_to_grayscale(pixels, num_output_channels=3)
        return self.normalise(pixels)

    def draw_crop(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Draw top, left, height and width of a crop, in a corner or in the middle."""
        sizes = crop_sizes(min(height, width), self.augment.scales, size=self.size)
        crop_height, crop_width = sizes[_choose(len(sizes))]
        # in quarters of the room beside the crop, rounded down: a corner can miss the far edges
        # by up to three pixels
        down, right = PLACES[_choose(len(PLACES))]
        top = down * ((height - crop_height) // 4)
        left = right * ((width - crop_width) // 4)
        return top, left, crop_height, crop_width


class CropsTransform:
    """Squares along the longer side of frames whose shorter side becomes S (official test).

    There are 3 for both ends and the middle, or 1 for the middle. The shorter side can also become
    `short_side`, for squares inside of it.
    """

    def __init__(
        self, size: int, *, crops: int, normalise: Normalise, short_side: int | None = None
    ) -> None:
        self.size, self.crops, self.normalise = size, crops, normalise
        self.short_side = short_side or size

    def __call__(self, frames: Frames) -> Tensor:
        """Make views (crops, T, 3, S, S) of frames (T, H, W, 3): first end, last end, middle."""
        pixels = resize_short_side(as_pixels(frames), self.short_side)
        height, width = pixels.shape[-2:]
        views = [
            pixels[..., top : top + self.size, left : left + self.size]
            for top, left in crop_places(height, width, self.size, crops=self.crops)
        ]
        return self.normalise(torch.stack(views))


class CentreTransform(CropsTransform):
    """The central square of the frames (official validation)."""

    def __init__(self, size: int, *, normalise: Normalise) -> None:
        side = int(size * SHORT_SIDE)
        super().__init__(size, crops=1, normalise=normalise, short_side=side)

    def __call__(self, frames: Frames) -> Tensor:
        """Make a clip (T, 3, S, S) of frames (T, H, W, 3)."""
        clip: Tensor = super().__call__(frames)[0]
        return clip


def jitter(pixels: Tensor, *, each: JitterEach) -> Tensor:
    """Change brightness, contrast, saturation and hue of (T, 3, H, W) uint8 in random order.

    Factors are drawn for each `clip` or `frame`.
    """
    changes = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    )
    changed, drawn = [], None
    for frame in pixels:  # one by one, which stay in the processor's cache: twice as fast
        if drawn is None or each == "frame":
            drawn = ColorJitter.get_params(*JITTER)
        for number in drawn[0].tolist():
            frame = changes[number](frame, drawn[1 + number])
        changed.append(frame)
    return torch.stack(changed)


def crop_sizes(base: int, scales: Sequence[float], *, size: int) -> list[tuple[int, int]]:
    """List heights and widths of a multi-scale crop: shares of the frame's shorter side.

    Sides that are less than `NEAR` pixels away from the side of the result snap to it.
    """
    sides = [max(int(base * scale), 1) for scale in scales]
    sides = [size if abs(side - size) < NEAR else side for side in sides]
    return [
        (height, width)
        for row, height in enumerate(sides)
        for column, width in enumerate(sides)
        if abs(row - column) <= 1
    ]


def crop_places(height: int, width: int, size: int, *, crops: int) -> list[tuple[int, int]]:
    """Find top and left of squares: both ends of the longer side and the middle, or this alone."""
    down, right = (height - size) // 2, (width - size) // 2
    if crops == 1:
        return [(down, right)]
    if width >= height:
        return [(down, 0), (down, 2 * right), (down, right)]
    return [(0, right), (2 * down, right), (down, right)]


def as_pixels(frames: Frames) -> Tensor:
    """View frames (T, H, W, 3) as pixels (T, 3, H, W), without a copy."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def resize_short_side(pixels: Tensor, side: int) -> Tensor:
    """Resize pixels (T, 3, H, W) so that the shorter side is `side`, with the same proportions.

    Of frames that are more than 50 times as long as wide, the middle is taken.
    """
    pixels = without_ends(pixels)
    height, width = pixels.shape[-2:]
    scale = side / min(height, width)
    return resize(pixels, int(height * scale + 0.5), int(width * scale + 0.5))


def resize(pixels: Tensor, height: int, width: int) -> Tensor:
    """Resize pixels (T, 3, H, W) uint8 bilinearly without antialiasing."""
    if pixels.shape[-2:] == (height, width):
        return pixels
    return F.interpolate(pixels, size=(height, width), mode="bilinear", antialias=False)


def _chance(probability: float) -> bool:
    return bool(torch.rand(()) < probability)


def _choose(count: int) -> int:
    return int(torch.randint(count, ()))
