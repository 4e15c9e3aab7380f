"""What weights were trained with: pixels and the choice of frames, as their file notes them."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from eva_backbone.variants import IMAGENET_MEAN, IMAGENET_STD
from eva_engine.evaluation.own_data import notes_of_training
from eva_video.data.sampling import Sampling
from eva_video.data.transforms import Normalise

Statistics = Sequence[float]


class Preprocessing(NamedTuple):
    """How frames are chosen and what makes numbers of their pixels."""

    sampling: Sampling
    normalise: Normalise


def preprocessing_of(
    weights: str | os.PathLike[str],
    *,
    frames: int,
    mean: Statistics | None = None,
    std: Statistics | None = None,
    usual: tuple[Statistics, Statistics] = (IMAGENET_MEAN, IMAGENET_STD),
) -> Preprocessing:
    """Find the preprocessing that belongs to weights.

    Args:
        weights: Official name or file.
        frames: Frames of a clip.
        mean: Mean of the pixels, in place of the noted one.
        std: Standard deviation of the pixels, in place of the noted one.
        usual: Mean and deviation for weights that note none.

    Returns:
        The preprocessing; without a note, frames are chosen as in the paper.

    Raises:
        ValueError: If a note is not of its kind, or the file is damaged.
    """
    noted = notes_of_training(weights, mean=mean, std=std, sampling=None, frame_interval=None)
    return Preprocessing(
        Sampling(
            frames=frames,
            kind=noted["sampling"] or "tsn",
            interval=noted["frame_interval"] or 1,
        ),
        Normalise(mean=noted["mean"] or usual[0], std=noted["std"] or usual[1]),
    )
