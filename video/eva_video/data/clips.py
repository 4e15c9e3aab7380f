"""Clips of labelled videos: one for training, one for validation, several views for tests.

A video is opened where its clip is wanted, in the loader's process; only the frames of the clip are
decoded, once for all views, and it is closed at once. One that cannot be read is an
`UnreadableVideoError`, which the engine answers with the next sample.

Shapes: V views, T frames, S the side of a clip.
"""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from eva_data.labelled_videos.sources import LabelledVideos
from eva_data.video.source import require_usual_shape
from eva_video.data.sampling import Indexes, Sampling
from eva_video.data.transforms import CentreTransform, ClipTransform, CropsTransform, Normalise

Draws = Literal["fixed", "random"]


class Clips(Dataset[tuple[Tensor, int]], ABC):
    """A map-style data set of what is made of each video, and its label.

    Args:
        videos: The videos.
        transform: What makes clips of frames.

    Attributes:
        classes: Names of the labels.
    """

    def __init__(self, videos: LabelledVideos, transform: ClipTransform) -> None:
        self.videos, self.transform = videos, transform
        self.classes = videos.classes

    def __len__(self) -> int:
        return len(self.videos)

    def sample_id(self, index: int) -> str:
        """Name the video of a clip, for messages."""
        return self.videos.sample_id(index)

    def checksum(self) -> int:
        """Compute a number that changes with the videos, their order, labels or classes."""
        return self.videos.checksum()

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Read a video.

        Returns:
            What `transform` makes, in the order of `choose`, and the label.

        Raises:
            UnreadableVideoError: If it cannot be read.
        """
        with self.videos.open(index) as video:
            require_usual_shape(video, self.sample_id(index))
            frames = video.frames(self.choose(index, len(video)).tolist())
        return self.transform(frames), int(self.videos.labels[index])

    @abstractmethod
    def choose(self, index: int, length: int) -> Indexes:
        """Choose the frames of a video of this length that are decoded, (N,)."""


class TrainingClips(Clips):
    """A random clip (T, 3, S, S) of each video, from torch's global generator.

    Args:
        videos: The videos.
        sampling: What chooses the frames.
        transform: Augmentation, see `eva_video.data.transforms.TrainingTransform`.
    """

    def __init__(
        self, videos: LabelledVideos, *, sampling: Sampling, transform: ClipTransform
    ) -> None:
        super().__init__(videos, transform)
        self.sampling = sampling

    def choose(self, index: int, length: int) -> Indexes:
        """See `Clips`."""
        return self.sampling.draw(length)


class CentreClips(Clips):
    """The clip (T, 3, S, S) of each video for validation: centres of segments, central square.

    Args:
        videos: The videos.
        sampling: What chooses the frames.
        image_size: S.
        normalise: What makes numbers of pixels; None normalises with ImageNet's statistics.
    """

    def __init__(
        self,
        videos: LabelledVideos,
        *,
        sampling: Sampling,
        image_size: int,
        normalise: Normalise | None = None,
    ) -> None:
        super().__init__(videos, CentreTransform(image_size, normalise=normalise or Normalise()))
        self.sampling = sampling

    def choose(self, index: int, length: int) -> Indexes:
        """See `Clips`."""
        return self.sampling.fixed(length)[0]


class Views(Clips):
    """Several clips (V, T, 3, S, S) of each video, V = crops x clips: crop by crop, then by time.

    Args:
        videos: The videos.
        sampling: What chooses the frames.
        image_size: S.
        clips: Places in time.
        crops: Places in the picture: 3, or 1 for the middle.
        draws: `fixed` spreads the clips evenly; `random` draws each, as the official test, from
            seed and index.
        seed: Seed of the random draws.
        normalise: What makes numbers of pixels; None normalises with ImageNet's statistics.

    Raises:
        ValueError: If there are no such views.
    """

    def __init__(
        self,
        videos: LabelledVideos,
        *,
        sampling: Sampling,
        image_size: int,
        clips: int = 4,
        crops: int = 3,
        draws: Draws = "fixed",
        seed: int = 0,
        normalise: Normalise | None = None,
    ) -> None:
        if clips < 1:
            raise ValueError(f"clips must be at least 1, got {clips}")
        if crops not in (1, 3):
            raise ValueError(f"crops must be 1 or 3, got {crops}")
        if draws not in ("fixed", "random"):
            raise ValueError(f"draws must be fixed or random, got {draws!r}")
        normalise = normalise or Normalise()
        super().__init__(videos, CropsTransform(image_size, crops=crops, normalise=normalise))
        self.sampling, self.clips, self.crops = sampling, clips, crops
        self.draws, self.seed = draws, seed

    def choose(self, index: int, length: int) -> Indexes:
        """See `Clips`; clip by clip."""
        if self.draws == "fixed":
            return self.sampling.fixed(length, clips=self.clips).reshape(-1)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        return self.sampling.drawn(length, clips=self.clips, generator=generator).reshape(-1)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Read a video, see `Clips`."""
        views, label = super().__getitem__(index)  # (crops, clips * T, 3, S, S)
        return views.reshape(-1, self.sampling.frames, *views.shape[2:]), label
