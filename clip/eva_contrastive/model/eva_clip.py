"""EVA-CLIP: a vision tower and a text tower with one space of features.

Shapes: B pictures or texts, H x W pixels, L tokens of a text, D values of a feature.
"""

from dataclasses import asdict
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from eva_backbone.variants import variant_arguments
from eva_contrastive.model.text_variants import TEXT_VARIANTS
from eva_contrastive.model.towers import TextTower, VisionTower


class ClipOutput(NamedTuple):
    """What a forward pass gives.

    Attributes:
        image_features: (B, D) of unit length.
        text_features: (B, D) of unit length.
        logit_scale: (1,), the factor of their cosines.
        logit_bias: (1,), what is added then, or None.
    """

    image_features: Tensor
    text_features: Tensor
    logit_scale: Tensor
    logit_bias: Tensor | None


class EvaClip(nn.Module):
    """Both towers, under the official parameter names `visual.*` and `text.*`.

    Args:
        visual: The vision tower.
        text: The text tower.

    Raises:
        ValueError: If their features differ in size.
    """

    def __init__(self, visual: VisionTower, text: TextTower) -> None:
        super().__init__()
        if visual.output_dim != text.output_dim:
            raise ValueError(
                f"the towers give features of {visual.output_dim} and {text.output_dim} values: "
                "build both with the same output_dim"
            )
        self.visual, self.text = visual, text

    @property
    def image_size(self) -> int:
        """Side of the pictures in pixels."""
        return self.visual.img_size

    @property
    def context_length(self) -> int:
        """Tokens of a text, L."""
        length: int = self.text.context_length
        return length

    @property
    def embed_dim(self) -> int:
        """Values of a feature, D."""
        return self.visual.output_dim

    def encode_image(self, images: Tensor, normalize: bool = False) -> Tensor:
        """Encode pictures.

        Args:
            images: (B, 3, H, W), normalised by CLIP's mean and standard deviation.
            normalize: Scale the features to unit length.

        Returns:
            (B, D).
        """
        features: Tensor = self.visual(images)
        return F.normalize(features, dim=-1) if normalize else features

    def encode_text(self, tokens: Tensor, normalize: bool = False) -> Tensor:
        """Encode texts.

        Args:
            tokens: (B, L) int64, see `eva_contrastive.model.tokens`.
            normalize: Scale the features to unit length.

        Returns:
            (B, D).
        """
        features: Tensor = self.text(tokens)
        return F.normalize(features, dim=-1) if normalize else features

    def forward(self, images: Tensor, tokens: Tensor) -> ClipOutput:
        """Encode pictures and texts.

        Args:
            images: (B, 3, H, W), normalised by CLIP's mean and standard deviation.
            tokens: (B, L) int64.

        Returns:
            Features of unit length, and what makes logits of their cosines.
        """
        return ClipOutput(
            self.encode_image(images, normalize=True),
            self.encode_text(tokens, normalize=True),
            self.text.logit_scale.exp(),
            self.text.logit_bias,
        )


def build_eva_clip(
    vision: str = "eva_g_patch14",
    text: str = "clip_l",
    *,
    embed_dim: int = 1024,
    sigmoid: bool = False,
    text_overrides: dict[str, Any] | None = None,
    **vision_overrides: Any,
) -> EvaClip:
    """Build a model of two sizes.

    Args:
        vision: A key of `eva_backbone.VARIANTS`.
        text: A key of `eva_contrastive.model.text_variants.TEXT_VARIANTS`.
        embed_dim: D.
        sigmoid: Build the bias of the sigmoid loss too.
        text_overrides: Arguments of `TextTower` that replace the variant's.
        **vision_overrides: Arguments of `VisionTower` that replace or join the variant's.

    Returns:
        The model, freshly initialised.

    Raises:
        ValueError: For an unknown size.
    """
    if text not in TEXT_VARIANTS:
        raise ValueError(f"unknown text tower {text!r}: known are {', '.join(TEXT_VARIANTS)}")
    visual = VisionTower(output_dim=embed_dim, **variant_arguments(vision) | vision_overrides)
    words = asdict(TEXT_VARIANTS[text]) | (text_overrides or {})
    return EvaClip(visual, TextTower(output_dim=embed_dim, sigmoid=sigmoid, **words))
