"""Zero-shot classification: features of sentences about classes, and logits of images by them.

CLIP (https://arxiv.org/abs/2103.00020), section 3.1.4.

Shapes: B images, K classes, T sentences about each, L tokens, D values of a feature.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from eva_contrastive.evaluation.encoding import (
    ClipModel,
    encode_all,
    image_features,
    place_of,
    text_features,
)
from eva_contrastive.evaluation.prompts import sentences
from eva_contrastive.model.eva_clip import tokenize

SCALE = 100.0  # of the cosines: the largest factor of a trained CLIP
TEXTS = 512  # of a forward pass


class ZeroShotClassifier(nn.Module):
    """A model with logits of classes, for `eva_engine.evaluation.counting.count`.

    Args:
        model: Model of two towers in evaluation mode, see `encoding.ClipModel`.
        weights: (K, D) of unit length, see `class_features`.
    """

    def __init__(self, model: Any, weights: Tensor) -> None:
        super().__init__()
        self.model = model
        self.weights: Tensor
        self.register_buffer("weights", weights.float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits (B, K) float32, 100 times the cosines, of images (B, 3, H, W)."""
        features = image_features(self.model, images)  # (B, D)
        logits: Tensor = SCALE * features @ self.weights.float().T
        return logits


class _Prompts(Dataset[Tensor]):
    """The sentences about each class as tokens (T, L)."""

    def __init__(self, classes: Sequence[str], templates: Sequence[str], length: int) -> None:
        self._classes, self._templates, self._length = classes, templates, length

    def __len__(self) -> int:
        return len(self._classes)

    def __getitem__(self, index: int) -> Tensor:
        return tokenize(sentences(self._classes[index], self._templates), self._length)


def class_features(
    model: ClipModel,
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
        progress: Title of a progress bar; None shows none.

    Returns:
        (K, D) of unit length, float32, on the model's device.

    Raises:
        FloatingPointError: If a feature is not finite.
    """

    def mean_of_sentences(tokens: Tensor) -> Tensor:
        parts = tokens.flatten(0, 1).split(texts_per_forward)  # (B, T, L) -> (B * T, L)
        each = torch.cat([text_features(model, part) for part in parts])  # (B * T, D)
        return F.normalize(each.unflatten(0, tokens.shape[:2]).mean(dim=1), dim=-1)

    return encode_all(
        mean_of_sentences,
        _Prompts(classes, templates, model.context_length),
        dim=model.embed_dim,
        device=place_of(model)[0],
        batch_size=max(1, texts_per_forward // len(templates)),
        progress=progress,
    )
