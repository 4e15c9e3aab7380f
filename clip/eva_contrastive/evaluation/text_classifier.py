"""A classifier made of texts: for each class the mean of the features of sentences about it.

CLIP (https://arxiv.org/abs/2103.00020), section 3.1.4.

Shapes: K classes, T sentences about each, L tokens, D values of a feature.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from eva_contrastive.evaluation.encoding import ClipModel, encode_all, place_of, text_features
from eva_contrastive.evaluation.prompts import sentences
from eva_contrastive.evaluation.text_cache import TextCache
from eva_contrastive.model.tokens import tokenize
from eva_engine import distributed

TEXTS = 512  # of a forward pass


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
    cache: TextCache | None = None,
    texts_per_forward: int = TEXTS,
    progress: str | None = None,
) -> Tensor:
    """Compute the feature of each class; called on all processes, which all get all of them.

    Args:
        model: Model in evaluation mode, on its device.
        classes: Names of the classes.
        templates: Sentences with `{}` in place of the name.
        cache: Keeps the features on the disk; None computes them again each time.
        texts_per_forward: Sentences of a forward pass.
        progress: Title of a progress bar; None shows none.

    Returns:
        (K, D) of unit length, float32, on the model's device.

    Raises:
        ValueError: If there is no class or no sentence.
        FloatingPointError: If a feature is not finite.
    """
    if not classes or not templates:
        raise ValueError(f"there are {len(classes)} classes and {len(templates)} templates")
    device, dtype = place_of(model)
    shape = (len(classes), model.embed_dim)
    key = None
    if cache is not None:
        key = cache.key(classes, templates, dtype=dtype, context_length=model.context_length)
        kept = cache.read(key, shape)
        if kept is not None:
            return kept.to(device)

    def mean_of_sentences(tokens: Tensor) -> Tensor:
        parts = tokens.flatten(0, 1).split(texts_per_forward)  # (B, T, L) -> (B * T, L)
        each = torch.cat([text_features(model, part) for part in parts])  # (B * T, D)
        return F.normalize(each.unflatten(0, tokens.shape[:2]).mean(dim=1), dim=-1)

    features = encode_all(
        mean_of_sentences,
        _Prompts(classes, templates, model.context_length),
        dim=model.embed_dim,
        device=device,
        batch_size=max(1, texts_per_forward // len(templates)),
        progress=progress,
    )
    if cache is not None and key is not None and distributed.rank() == 0:
        cache.write(key, features)
    return features
