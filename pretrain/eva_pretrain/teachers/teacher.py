"""The interface of all teachers, and a plain EVA backbone as one."""

from typing import Self

import torch
from torch import Tensor, nn

from eva_backbone.checkpoints.loading import load_pretrained
from eva_backbone.variants import CLIP_MEAN, CLIP_STD, build_vit


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


class BackboneTeacher(Teacher):
    """Frozen ViT that returns its patch tokens after the final norm.

    Args:
        variant: A key of `eva_backbone.VARIANTS`.
        weights: Official name, bundled name or file.
        image_size: Side of its images in pixels.

    Raises:
        ValueError: For an unknown variant, or weights that do not fit.
    """

    def __init__(self, variant: str, *, weights: str, image_size: int) -> None:
        super().__init__()
        vit = build_vit(variant, img_size=image_size)
        load_pretrained(vit, weights)
        self.vit = vit.eval().requires_grad_(False)
        self.mean, self.std = CLIP_MEAN, CLIP_STD
        self.image_size = (image_size, image_size)
        self.grid = (image_size // vit.patch_embed.patch_size,) * 2
        self.dim = vit.embed_dim
        self.eval()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Compute the features of all patches.

        Args:
            images: (B, 3, height, width), normalised by `mean` and `std`.

        Returns:
            (B, N, D).
        """
        tokens: Tensor = self.vit.forward_features(images.to(self.vit.pos_embed.dtype))
        return tokens[:, 1:]
