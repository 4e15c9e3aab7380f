"""Features of images and texts, split over processes, and zero-shot classification by them.

CLIP (https://arxiv.org/abs/2103.00020), section 3.1.4.

Shapes: N samples, B of them in a batch, K classes, T sentences about each, L tokens, D values of a
feature.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eva_contrastive.evaluation.prompts import sentences
from eva_contrastive.model.eva_clip import EvaClip, require_finite, tokenize
from eva_engine import distributed
from eva_engine.data.loading import evaluation_loader
from eva_engine.evaluation.counting import IndexedSamples, Mapped, collate_readable, require_few
from eva_runs.interruption import StopSignal

SCALE = 100.0  # of the cosines: the largest factor of a trained CLIP
TEXTS = 512  # of a forward pass
_EXCHANGED = 4096  # samples whose features are sent at once


def image_features(model: EvaClip, images: Tensor) -> Tensor:
    """Encode images (B, 3, H, W), on the model's device, as unit features (B, D), float32."""
    weight = next(model.parameters())
    return F.normalize(model.encode_image(images.to(weight, non_blocking=True)).float(), dim=-1)


def text_features(model: EvaClip, tokens: Tensor) -> Tensor:
    """Encode tokens (B, L) as unit features (B, D), float32."""
    device = next(model.parameters()).device
    return F.normalize(model.encode_text(tokens.to(device)).float(), dim=-1)


def encode_all(
    model: EvaClip,
    compute: Callable[[Tensor], Tensor],
    samples: Mapped,
    *,
    batch_size: int,
    workers: int = 0,
    progress: str | None = None,
    max_bad_samples: int = 0,
    stop: StopSignal | None = None,
) -> tuple[Tensor, dict[int, str]]:
    """Compute the features of all samples; called on all processes, which all get all of them.

    The batches, of which `compute` makes features (B, D), are the same whatever the number of
    processes, and so are the features. `stop` is the signal of a run, which ends the evaluation.

    Returns:
        (N, D), float32 on the model's device; and index -> reason for those that cannot be read,
        whose features are zeros.

    Raises:
        FloatingPointError: If a feature is not finite.
        ValueError: If more samples of a process than allowed cannot be read.
    """
    count, device = len(samples), next(model.parameters()).device
    batches = list(torch.arange(count).split(batch_size))
    own = [batches[position].tolist() for position in distributed.rank_indices(len(batches))]
    features = torch.zeros(count, model.embed_dim, device=device)
    reasons: dict[int, str] = {}
    with evaluation_loader(
        IndexedSamples(samples),
        workers=workers,
        batches=own,
        collate=collate_readable,
        pin_memory=device.type == "cuda",
        progress=progress,
        stop=stop,
    ) as loaded:
        for inputs, _, indexes, unreadable in loaded:
            reasons |= unreadable
            require_few([*reasons.values()], total=count, most=max_bad_samples)
            if len(indexes):
                with torch.inference_mode():
                    features[indexes.to(device)] = compute(inputs)
    if distributed.world_size() > 1:
        for part in features.split(_EXCHANGED):
            torch.distributed.all_reduce(part)  # the others have zeros there
    reasons = {index: why for part in distributed.gather(reasons) for index, why in part.items()}
    return require_finite(features), reasons


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
