"""Features of images and texts, split over processes, and zero-shot classification by them.

CLIP (https://arxiv.org/abs/2103.00020), section 3.1.4.

Shapes: N samples, B of them in a batch, K classes, T sentences about each, L tokens, D values of a
feature.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eva_contrastive.evaluation.prompts import sentences
from eva_contrastive.model.eva_clip import EvaClip, tokenize
from eva_engine.evaluation.counting import Mapped
from eva_engine.evaluation.frozen import Kept, compute_features

SCALE = 100.0  # of the cosines: the largest factor of a trained CLIP
TEXTS = 512  # of a forward pass


def image_features(model: EvaClip, images: Tensor) -> Tensor:
    """Encode images (B, 3, H, W), on the model's device, as unit features (B, D), float32."""
    weight = next(model.parameters())
    return F.normalize(model.encode_image(images.to(weight, non_blocking=True)).float(), dim=-1)


def text_features(model: EvaClip, tokens: Tensor) -> Tensor:
    """Encode tokens (B, L) as unit features (B, D), float32."""
    device = next(model.parameters()).device
    return F.normalize(model.encode_text(tokens.to(device)).float(), dim=-1)


def encode_all(
    model: EvaClip, compute: Callable[[Tensor], Tensor], samples: Mapped, **settings: Any
) -> tuple[Tensor, dict[int, str]]:
    """Compute features (N, D) float32 of all samples by `compute`; see `compute_features`."""
    (features,), _, reasons = compute_features(
        lambda inputs: [compute(inputs)],
        samples,
        kinds=[Kept([model.embed_dim])],
        device=next(model.parameters()).device,
        **settings,
    )
    return features, reasons


class ZeroShotClassifier(nn.Module):
    """A model, and its `class_features` (K, D), as logits of classes."""

    def __init__(self, model: EvaClip, weights: Tensor) -> None:
        super().__init__()
        self.model = model
        self.weights: Tensor
        self.register_buffer("weights", weights.float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits (B, K) float32, 100 times the cosines, of images (B, 3, H, W)."""
        features = image_features(self.model, images)  # (B, D)
        logits: Tensor = SCALE * features @ self.weights.float().T
        return logits


def _prompts(templates: Sequence[str], context_length: int, name: str) -> Tensor:
    """Turn the sentences about a class into tokens (T, L)."""
    return tokenize(sentences(name, templates), context_length)


def class_features(
    model: EvaClip,
    classes: Sequence[str],
    templates: Sequence[str],
    *,
    texts_per_forward: int = TEXTS,
    progress: str | None = None,
) -> Tensor:
    """Compute the feature of each class; called on all processes, which all get all of them.

    Args:
        model: Model in evaluation mode, on its device.
        classes: Names of the classes.
        templates: Sentences with `{}` in place of the name.
        texts_per_forward: Sentences of a forward pass.
        progress: Title of a progress bar.

    Returns:
        (K, D) of unit length, float32, on the model's device.
    """

    def mean_of_sentences(tokens: Tensor) -> Tensor:
        parts = tokens.flatten(0, 1).split(texts_per_forward)  # (B, T, L) -> (B * T, L)
        each = torch.cat([text_features(model, part) for part in parts])  # (B * T, D)
        return F.normalize(each.unflatten(0, tokens.shape[:2]).mean(dim=1), dim=-1)

    return encode_all(
        model,
        mean_of_sentences,
        Mapped(partial(_prompts, templates, model.context_length), classes),
        batch_size=max(1, texts_per_forward // len(templates)),
        progress=progress,
    )[0]
