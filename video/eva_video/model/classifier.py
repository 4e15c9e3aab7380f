"""The classifier of clips, under the official parameter names.

Shapes: B clips, T frames, H x W pixels, p patch size, N = T * H/p * W/p patches, C channels, K
classes.
"""

from typing import Any

from torch import Tensor, nn

from eva_backbone.initialisation import init_head
from eva_backbone.layers import LAYER_NORM_EPS
from eva_backbone.variants import variant_arguments
from eva_backbone.vit import VideoTransformer


class VideoClassifier(VideoTransformer):
    """A ViT over clips with a linear classifier (paper sections 2.3.2 and A.2).

    The mean of all patches of all frames goes through `fc_norm` and `head`; the class token takes
    part in the attention only.

    Args:
        num_classes: K.
        frames: T.
        **vit: Arguments of `VisionTransformer`.

    Raises:
        ValueError: If num_classes or frames is below 1, or `vit` does not suit clips.
    """

    def __init__(self, *, num_classes: int, frames: int, **vit: Any) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        super().__init__(frames=frames, final_norm=False, **vit)
        self.num_classes = num_classes
        self.fc_norm = nn.LayerNorm(self.embed_dim, eps=LAYER_NORM_EPS)
        self.head = nn.Linear(self.embed_dim, num_classes)
        init_head(self.head)

    def forward(self, clips: Tensor) -> Tensor:
        """Classify clips.

        Args:
            clips: (B, T, 3, H, W), normalised.

        Returns:
            Logits (B, K).
        """
        logits: Tensor = self.head(self.pool(clips))
        return logits

    def pool(self, clips: Tensor) -> Tensor:
        """Compute the features that the head classifies, (B, C), of clips (B, T, 3, H, W)."""
        tokens = self.forward_features(clips)  # (B, 1 + N, C)
        pooled: Tensor = self.fc_norm(tokens[:, 1:].mean(dim=1))
        return pooled


def build_video_classifier(
    variant: str, *, num_classes: int, frames: int, **overrides: Any
) -> VideoClassifier:
    """Build a classifier of a ViT size.

    Args:
        variant: A key of `eva_backbone.VARIANTS`.
        num_classes: K.
        frames: T.
        **overrides: Arguments of `VisionTransformer` that replace or join the variant's.

    Returns:
        The model, freshly initialised.
    """
    arguments = variant_arguments(variant) | overrides
    return VideoClassifier(num_classes=num_classes, frames=frames, **arguments)
