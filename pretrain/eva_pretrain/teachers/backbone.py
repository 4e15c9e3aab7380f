"""A plain EVA backbone as the teacher, for runs without CLIP weights at hand."""

import torch
from torch import Tensor, nn

from eva_backbone.checkpoints.loading import load_pretrained
from eva_backbone.variants import CLIP_MEAN, CLIP_STD, build_vit


class BackboneTeacher(nn.Module):
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

    def train(self, mode: bool = True) -> "BackboneTeacher":
        """Stay in evaluation mode."""
        del mode
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Give a target for every patch.

        Args:
            images: (B, 3, H, W), normalised.

        Returns:
            (B, N, C).
        """
        tokens: Tensor = self.vit.forward_features(images)
        return tokens[:, 1:]
