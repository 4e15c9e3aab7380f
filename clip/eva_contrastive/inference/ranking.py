"""Rank captions for pictures and videos.

Shapes: K captions, F frames of a video, D values of a feature.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from eva_contrastive.inference.features import ClipFeatures
from eva_contrastive.inference.media import is_video


class Ranked(NamedTuple):
    """A caption of a picture or video.

    Attributes:
        text: The caption.
        probability: Its share among all captions; or, of a model that was trained with the sigmoid
            loss, its probability.
        cosine: Cosine of the features of caption and picture; of a video, of the mean of its
            frames.
        time: Time in seconds of the frame that it fits best; None for a picture.
    """

    text: str
    probability: float
    cosine: float
    time: float | None


def rank(clip: ClipFeatures, file: Path, texts: Sequence[str], features: Tensor) -> list[Ranked]:
    """Rank captions for a picture or a video.

    Args:
        clip: The model.
        file: The picture or video.
        texts: K captions.
        features: (K, D), their features of unit length.

    Returns:
        All captions, the best first.

    Raises:
        OSError: If the file cannot be read.
        FloatingPointError: If the number format is too small for the model.
    """
    found = clip.frames(file)
    mean = F.normalize(found.features.mean(dim=0, keepdim=True), dim=-1)  # (1, D)
    cosines = (mean @ features.T)[0].tolist()
    probabilities = clip.probabilities(mean, features)[0].tolist()
    best = (found.features @ features.T).argmax(dim=0).tolist()  # (K,), of the frames
    video = is_video(file)
    ranked = [
        Ranked(text, probability, cosine, found.times[frame] if video else None)
        for text, probability, cosine, frame in zip(
            texts, probabilities, cosines, best, strict=True
        )
    ]
    return sorted(ranked, key=lambda one: -one.cosine)
