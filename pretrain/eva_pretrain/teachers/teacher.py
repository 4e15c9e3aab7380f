"""What every teacher is."""

from typing import Self

from torch import nn


class Teacher(nn.Module):
    """A frozen network that gives features (B, N, D) of all patches of images.

    It stays in evaluation mode whatever `train()` asks for, computes without gradients, and takes
    images in float32 whatever its own precision is.

    Attributes:
        mean: Mean of the images that it takes, in red, green and blue.
        std: Standard deviation of those images.
        image_size: Height and width of those images in pixels.
        grid: Patches down and across; the student's has to be the same.
        dim: D, the channels of its features.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: tuple[int, int]
    grid: tuple[int, int]
    dim: int

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        del mode
        return super().train(False)
