"""Classifiers around the ViT, under the official parameter names.

Shapes: B images, N patches, C channels, K classes.
"""

import logging
import os
from typing import Any, Literal

import torch
from torch import Tensor, nn

from eva_backbone.checkpoint import load_pretrained, read_weights
from eva_backbone.layers import LAYER_NORM_EPS
from eva_backbone.registry import resolve_source
from eva_backbone.variants import VARIANTS, variant_arguments
from eva_backbone.vit import VisionTransformer

logger = logging.getLogger(__name__)

Pooling = Literal["mean", "cls"]

HEAD_SCALE = 0.001  # of a new head's weights: the first predictions are all but uniform
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
        ValueError: If there is no class, or pooling is neither.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        pooling: Pooling = "mean",
        freeze_patch_embed: bool = False,
        **vit: Any,
    ) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        if pooling not in ("mean", "cls"):
            raise ValueError(f"pooling must be 'mean' or 'cls', got {pooling!r}")
        super().__init__(final_norm=pooling == "cls", **vit)
        self.num_classes, self.pooling = num_classes, pooling
        mean = pooling == "mean"
        self.fc_norm = nn.LayerNorm(self.embed_dim, eps=LAYER_NORM_EPS) if mean else None
        self.head: nn.Module = nn.Linear(self.embed_dim, num_classes)
        self._init_head()
        if freeze_patch_embed:
            self.patch_embed.requires_grad_(False)

    def _init_head(self) -> None:
        assert isinstance(self.head, nn.Linear)
        if not self.head.weight.is_meta:
            nn.init.trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)
            self.head.weight.data.mul_(HEAD_SCALE)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images.

        Args:
            images: (B, 3, H, W), normalised; any size that the patch size divides.

        Returns:
            Logits (B, K).
        """
        logits: Tensor = self.head(self.pool(images))
        return logits

    def pool(self, images: Tensor) -> Tensor:
        """What the head classifies: (B, C) for images (B, 3, H, W)."""
        tokens = self.forward_features(images)  # (B, 1 + N, C)
        if self.fc_norm is None:
            return tokens[:, 0]
        pooled: Tensor = self.fc_norm(tokens[:, 1:].mean(dim=1))
        return pooled


class LinearProbe(ImageClassifier):
    """A frozen ViT with a trained linear classifier (official linear probing of EVA-CLIP).

    The class token goes through a batch norm without parameters; `head` is (norm, linear).

    Args:
        num_classes: K.
        pooling: What is classified; "cls" officially.
        **vit: Arguments of `VisionTransformer`.

    Raises:
        ValueError: If there is no class, or pooling is neither.
    """

    def __init__(self, *, num_classes: int, pooling: Pooling = "cls", **vit: Any) -> None:
        super().__init__(num_classes=num_classes, pooling=pooling, **vit)
        self.requires_grad_(False)
        linear = nn.Linear(self.embed_dim, num_classes)
        if not linear.weight.is_meta:
            nn.init.trunc_normal_(linear.weight, std=PROBE_STD)
            nn.init.zeros_(linear.bias)
        self.head = nn.Sequential(
            nn.BatchNorm1d(self.embed_dim, affine=False, eps=PROBE_EPS), linear
        )

    def pool(self, images: Tensor) -> Tensor:
        """Frozen features (B, C)."""
        with torch.no_grad():
            return super().pool(images)


def build_classifier(
    variant: str, *, num_classes: int, pooling: Pooling = "mean", **overrides: Any
) -> ImageClassifier:
    """Build a classifier of a ViT size.

    Args:
        variant: A key of `eva_backbone.VARIANTS`.
        num_classes: K.
        pooling: See `ImageClassifier`.
        **overrides: Arguments of `ImageClassifier` that replace or join the variant's.

    Returns:
        The model, freshly initialised.
    """
    arguments = variant_arguments(variant) | overrides
    return ImageClassifier(num_classes=num_classes, pooling=pooling, **arguments)


def build_linear_probe(
    variant: str, *, num_classes: int, pooling: Pooling = "cls", **overrides: Any
) -> LinearProbe:
    """Build a linear probe of a ViT size; arguments as for `build_classifier`."""
    arguments = variant_arguments(variant) | overrides
    return LinearProbe(num_classes=num_classes, pooling=pooling, **arguments)


def load_classifier(
    source: str | os.PathLike[str],
    *,
    variant: str | None = None,
    image_size: int | None = None,
) -> ImageClassifier:
    """Build the classifier that a file holds, and load it.

    Size, resolution, classes, pooling, linear probe or not are read off the weights.

    Args:
        source: Official name or file; a run's `model.safetensors` or `model_ema.safetensors`.
        variant: A key of `eva_backbone.VARIANTS`, for weights whose sizes fit none or several.
        image_size: Side in pixels; by default that of the weights. Position embeddings are
            resampled.

    Returns:
        The classifier, in evaluation mode.

    Raises:
        ValueError: If the file has no classifier, or fits no variant.
        FileNotFoundError: If the source is neither a file nor a known name at hand.
    """
    path = resolve_source(source)
    weights = read_weights(path)
    trunk = {name.removeprefix("visual."): value.shape for name, value in weights.items()}
    probe = "head.1.weight" in trunk
    head = trunk.get("head.1.weight" if probe else "head.weight")
    if head is None:
        raise ValueError(f"{path.name} holds no classifier (no head.weight)")
    variant = variant or _variant_of(trunk, path.name)
    patch = VARIANTS[variant].patch_size
    if image_size is None:
        image_size = round((trunk["pos_embed"][1] - 1) ** 0.5) * patch
    pooling: Pooling = "mean" if "fc_norm.weight" in trunk else "cls"
    build = build_linear_probe if probe else build_classifier
    model = build(variant, num_classes=head[0], pooling=pooling, img_size=image_size)
    load_pretrained(model, path, complete=True)
    return model.eval()


def _variant_of(shapes: dict[str, torch.Size], name: str) -> str:
    blocks = {key.split(".")[1] for key in shapes if key.startswith("blocks.")}
    width, patch = shapes["cls_token"][-1], shapes["patch_embed.proj.weight"][-1]
    found = [
        key
        for key, variant in VARIANTS.items()
        if (variant.embed_dim, variant.depth, variant.patch_size) == (width, len(blocks), patch)
    ]
    if len(found) != 1:
        raise ValueError(
            f"{name} has {len(blocks)} blocks of width {width} and patches of {patch}: that is "
            f"{'no known variant' if not found else ' or '.join(found)}; pass variant"
        )
    return found[0]
