"""Classifiers around the ViT, under the official parameter names.

Shapes: B images, N patches, C channels, K classes.
"""

import os
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from eva_backbone.checkpoints.from_weights import describe
from eva_backbone.checkpoints.loading import load_pretrained
from eva_backbone.checkpoints.reading import Weights
from eva_backbone.layers import init_head
from eva_backbone.variants import require_pooling, variant_arguments
from eva_backbone.vit import VisionTransformer
from eva_engine.evaluation.attentive import AttentiveProbe

Pooling = Literal["mean", "cls"]

PROBE_STD = 0.01
PROBE_EPS = 1e-6


class ImageClassifier(VisionTransformer):
    """A ViT with a linear classifier (paper sections 2.3.1 and A.1).

    Args:
        num_classes: K.
        pooling: "mean" takes the mean of the patches, then `fc_norm` (EVA's fine-tuning); "cls"
            takes the class token after `norm`.
        freeze_patch_embed: Do not train the patch embedding (the official fine-tuning of EVA-g).
        **vit: Arguments of `VisionTransformer`.

    Raises:
        ValueError: If pooling is neither of the two, or there is no class token to take.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        pooling: Pooling = "mean",
        freeze_patch_embed: bool = False,
        **vit: Any,
    ) -> None:
        super().__init__(**vit | {"final_norm": pooling == "cls"})
        require_pooling(pooling, self)
        self.num_classes, self.pooling = num_classes, pooling
        mean = pooling == "mean"
        self.fc_norm = self.norm_layer(self.embed_dim) if mean else None
        head = nn.Linear(self.embed_dim, num_classes)
        init_head(head)
        self.head: nn.Module = head
        if freeze_patch_embed:
            self.patch_embed.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits (B, K) of normalised images (B, 3, H, W), which patches divide."""
        logits: Tensor = self.head(self.pool(images))
        return logits

    def pool(self, images: Tensor) -> Tensor:
        """Compute the features that the head classifies, (B, C), of images (B, 3, H, W)."""
        tokens = self.forward_features(images)  # (B, 1 + N, C)
        if self.fc_norm is None:
            return tokens[:, 0]
        pooled: Tensor = self.fc_norm(tokens[:, self.num_prefix_tokens :].mean(dim=1))
        return pooled


class LinearProbe(ImageClassifier):
    """A frozen ViT with a trained linear classifier (official linear probing of EVA-CLIP).

    The class token goes through a batch norm without parameters; `head` is (norm, linear).

    Args:
        num_classes: K.
        pooling: Features that are classified; "cls" officially.
        trunk_dtype: Number format of the frozen features, by autocast; None leaves them as the
            weights are.
        **vit: Arguments of `VisionTransformer`.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        pooling: Pooling = "cls",
        trunk_dtype: torch.dtype | None = None,
        **vit: Any,
    ) -> None:
        super().__init__(num_classes=num_classes, pooling=pooling, **vit)
        self.trunk_dtype = trunk_dtype
        self.requires_grad_(False)
        linear = nn.Linear(self.embed_dim, num_classes)
        if not linear.weight.is_meta:
            nn.init.trunc_normal_(linear.weight, std=PROBE_STD)
            nn.init.zeros_(linear.bias)
        self.head = nn.Sequential(
            nn.BatchNorm1d(self.embed_dim, affine=False, eps=PROBE_EPS), linear
        )

    def pool(self, images: Tensor) -> Tensor:
        """Compute the frozen features (B, C)."""
        with torch.no_grad():
            if self.trunk_dtype is None or images.is_meta:  # which have no autocast
                return super().pool(images)
            with torch.autocast(images.device.type, self.trunk_dtype):
                return super().pool(images).to(images.dtype)


class AttentiveClassifier(ImageClassifier):
    """A frozen ViT with an attentive probe, whose query looks at all patches after `norm`."""

    def __init__(self, *, num_classes: int, pooling: Pooling = "cls", **vit: Any) -> None:
        super().__init__(num_classes=num_classes, pooling=pooling, **vit)
        self.head = AttentiveProbe(self.embed_dim, frames=1, num_classes=num_classes)

    def pool(self, images: Tensor) -> Tensor:
        """Compute what the head looks at, (B, 1, N, C)."""
        return self.forward_features(images)[:, None, self.num_prefix_tokens :]


def build_classifier(variant: str, *, num_classes: int, **overrides: Any) -> ImageClassifier:
    """Build a classifier of a key of `eva_backbone.VARIANTS`, with arguments of the classifier."""
    return ImageClassifier(num_classes=num_classes, **(variant_arguments(variant) | overrides))


def build_linear_probe(variant: str, *, num_classes: int, **overrides: Any) -> LinearProbe:
    """Build a linear probe of a ViT size; arguments as for `build_classifier`."""
    return LinearProbe(num_classes=num_classes, **(variant_arguments(variant) | overrides))


_HEADS: Mapping[str, type[ImageClassifier]] = {  # by the weight that has a row for each class
    "head.weight": ImageClassifier,
    "head.1.weight": LinearProbe,
    "head.head.weight": AttentiveClassifier,
}


def load_classifier(
    source: str | os.PathLike[str] | Weights,
    *,
    variant: str | None = None,
    image_size: int | None = None,
) -> ImageClassifier:
    """Build the classifier that a file holds, and load it.

    Size, resolution, classes, pooling, and the kind of head are read off the weights.

    Args:
        source: Official name or file; a run's `model.safetensors` or `model_ema.safetensors`; or
            what was read of one.
        variant: A key of `eva_backbone.VARIANTS`, for weights whose sizes do not name one.
        image_size: Side in pixels; by default the weights' own. Position embeddings are
            resampled.

    Returns:
        The classifier, in evaluation mode.

    Raises:
        ValueError: If the file holds no classifier, or its sizes are not a variant's.
        FileNotFoundError: If the source is neither a file nor a known name at hand.
    """
    weights = Weights.read(source)
    trunk = describe(weights)
    head = next((name for name in _HEADS if name in trunk.names), None)
    if head is None:
        raise ValueError(f"{weights.name} holds no classifier (no head.weight)")
    arguments = trunk.of_classifier(weights.name, variant=variant, image_size=image_size)
    classes = len(weights.tensors[trunk.prefix + head])
    pooling: Pooling = "mean" if "fc_norm.weight" in trunk.names else "cls"
    with torch.device("meta"):
        model = _HEADS[head](num_classes=classes, pooling=pooling, **arguments)
    load_pretrained(model, weights, complete=True)
    return model.eval()
