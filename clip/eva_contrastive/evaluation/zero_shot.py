"""Zero-shot classification: pictures to logits, by the features of classes.

Shapes: B pictures, K classes, D values of a feature.
"""

from typing import Any

from torch import Tensor, nn

from eva_contrastive.evaluation.encoding import image_features

SCALE = 100.0  # of the cosines: the largest factor of a trained CLIP


class ZeroShotClassifier(nn.Module):
    """A model with logits of classes, for `eva_engine.evaluation.counting.count`.

    Args:
        model: Model of two towers in evaluation mode, see `encoding.ClipModel`.
        weights: (K, D) of unit length, see `text_classifier.class_features`.

    Raises:
        ValueError: If they do not have the size of the model's features.
    """

    def __init__(self, model: Any, weights: Tensor) -> None:
        super().__init__()
        if weights.ndim != 2 or weights.shape[1] != model.embed_dim:
            raise ValueError(
                f"weights must be (classes, {model.embed_dim}) as the features of the model, got "
                f"{tuple(weights.shape)}"
            )
        self.model = model
        self.weights: Tensor
        self.register_buffer("weights", weights.float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Classify pictures.

        Args:
            images: (B, 3, H, W), normalised.

        Returns:
            (B, K), float32: 100 times the cosines.
        """
        features = image_features(self.model, images)  # (B, D)
        logits: Tensor = SCALE * features @ self.weights.float().T
        return logits
