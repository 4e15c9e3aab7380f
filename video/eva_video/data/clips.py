"""Clips of labelled videos: which frames they have, one for training, several views for tests.

Sparse sampling (TSN, https://arxiv.org/abs/1608.00859), as the paper: the video is cut into T
segments of equal length, and each gives one frame. Dense (https://arxiv.org/abs/1812.03982): T
frames at a fixed distance. The rules are those of mmaction2, on which the official code stands.

A video is opened where its clip is wanted, in the loader's process; only the frames of the clip are
decoded, once for all views. One that cannot be read is an `UnreadableVideoError`, which the engine
answers with the next sample.

Shapes: V views, T frames, S the side of a clip.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from eva_backbone.variants import IMAGENET_MEAN, IMAGENET_STD
from eva_data.labelled_videos.sources import LabelledVideos
from eva_data.video.source import require_usual_shape
from eva_engine.evaluation.own_data import notes_of_training
from eva_report.sheets import strip_of
from eva_video.config import Kind
from eva_video.data.transforms import CentreTransform, ClipTransform, CropsTransform, Normalise

Indexes = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """A rule that chooses the frames of clips.

    Attributes:
        frames: T.
        kind: `tsn` takes a frame of each of T equal segments of the video, `dense` frames at a
            fixed distance.
        interval: Distance of the frames of `dense`.

    Raises:
        ValueError: If there is no such rule.
    """

    frames: int
    kind: Kind = "tsn"
    interval: int = 1

    def __post_init__(self) -> None:
        known = self.kind in get_args(Kind) and self.frames > 0 and self.interval > 0
        if not known or (self.interval != 1 and self.kind != "dense"):
            raise ValueError(f"there is no such sampling, or an interval that is not dense: {self}")

    @property
    def span(self) -> int:
        """Number of frames from the first of a dense clip to its last."""
        return (self.frames - 1) * self.interval + 1

    def draw(self, length: int, *, generator: torch.Generator | None = None) -> Indexes:
        """Choose the frames of a clip at random.

        Sparse: one in each segment of `length // T` frames; of a video that is shorter than T, its
        frames repeated. Dense: the first frame is drawn; a short video begins again.

        Args:
            length: Number of frames of the video.
            generator: Source of random numbers; None takes torch's global one.

        Returns:
            (T,).
        """
        if self.kind == "dense":
            places = max(length - self.span + 1, 1)
            return self._dense(_randint(places, 1, generator), length)[0]
        segment = length // self.frames
        if segment:
            return np.arange(self.frames) * segment + _randint(segment, self.frames, generator)
        rounded = np.around(np.arange(self.frames) * (length / self.frames)).astype(np.int64)
        return rounded % length  # officially: the last of them can be the first frame

    def fixed(self, length: int, *, clips: int = 1) -> Indexes:
        """Choose the frames of clips that are spread evenly.

        Sparse clips divide each segment into V equal parts and take their centres, so that a single
        one takes the centres of the segments, as the official validation. Dense clips begin at the
        centres of V equal parts of the possible places.

        Args:
            length: Number of frames of the video.
            clips: V.

        Returns:
            (V, T).
        """
        offsets = (np.arange(clips) + 0.5) / clips  # (V,), in segments or shares of the video
        if self.kind == "dense":
            places = max(length - self.span + 1, 1)
            return self._dense((offsets * places).astype(np.int64), length)
        segment = length / self.frames
        starts = np.arange(self.frames) * segment
        return (starts + offsets[:, None] * segment).astype(np.int64)

    def _dense(self, starts: Indexes, length: int) -> Indexes:
        return (starts[:, None] + np.arange(self.frames) * self.interval) % length


def _randint(high: int, count: int, generator: torch.Generator | None) -> Indexes:
    drawn: Indexes = torch.randint(high, (count,), generator=generator).numpy()
    return drawn


Statistics = Sequence[float]


def preprocessing_of(
    weights: str | os.PathLike[str],
    *,
    frames: int,
    mean: Statistics | None = None,
    std: Statistics | None = None,
    usual: tuple[Statistics, Statistics] = (IMAGENET_MEAN, IMAGENET_STD),
) -> tuple[Sampling, Normalise]:
    """Find the preprocessing that weights were trained with, as their file notes it.

    Given statistics of the pixels replace the noted ones; `usual` ones are for weights that note
    none. Without a note, frames are chosen as in the paper.

    Raises:
        ValueError: If a note is not of its kind, or the file is damaged.
    """
    noted = notes_of_training(weights, mean=mean, std=std, sampling=None, frame_interval=None)
    return (
        Sampling(
            frames=frames, kind=noted["sampling"] or "tsn", interval=noted["frame_interval"] or 1
        ),
        Normalise(mean=noted["mean"] or usual[0], std=noted["std"] or usual[1]),
    )


Draws = Literal["fixed", "random"]


class Clips(Dataset[tuple[Tensor, int]], ABC):
    """A map-style data set of what `transform` makes of frames of each video, and its label."""

    def __init__(
        self, videos: LabelledVideos, *, sampling: Sampling, transform: ClipTransform
    ) -> None:
        self.videos, self.sampling, self.transform = videos, sampling, transform
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
    """A random clip (T, 3, S, S) of each video, from torch's global generator."""

    def choose(self, index: int, length: int) -> Indexes:
        """See `Clips`."""
        return self.sampling.draw(length)


class CentreClips(Clips):
    """The clip (T, 3, S, S) of each video for validation: centres of segments, central square."""

    def __init__(
        self,
        videos: LabelledVideos,
        *,
        sampling: Sampling,
        image_size: int,
        normalise: Normalise | None = None,
    ) -> None:
        transform = CentreTransform(image_size, normalise=normalise or Normalise())
        super().__init__(videos, sampling=sampling, transform=transform)

    def choose(self, index: int, length: int) -> Indexes:
        """See `Clips`."""
        return self.sampling.fixed(length)[0]


class SingleView(CentreClips):
    """The same clip as the one view of a video, (1, T, 3, S, S)."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Read a video, see `Clips`."""
        clip, label = super().__getitem__(index)
        return clip[None], label


class Views(Clips):
    """Several clips (V, T, 3, S, S) of each video, V = crops x clips: crop by crop, then by time.

    Args:
        videos: The videos.
        sampling: Rule that chooses the frames.
        image_size: S.
        clips: Places in time.
        crops: Places in the frame: 3, or 1 for the middle.
        draws: `fixed` spreads the clips evenly; `random` draws each, as the official test, from
            seed and index.
        seed: Seed of the random draws.
        normalise: Normalisation of pixels; None takes ImageNet's statistics.
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
        transform = CropsTransform(image_size, crops=crops, normalise=normalise or Normalise())
        super().__init__(videos, sampling=sampling, transform=transform)
        self.clips, self.draws, self.seed = clips, draws, seed

    def choose(self, index: int, length: int) -> Indexes:
        """See `Clips`; clip by clip."""
        if self.draws == "fixed":
            return self.sampling.fixed(length, clips=self.clips).reshape(-1)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        drawn = [self.sampling.draw(length, generator=generator) for _ in range(self.clips)]
        return np.stack(drawn).reshape(-1)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Read a video, see `Clips`."""
        views, label = super().__getitem__(index)  # (crops, clips * T, 3, S, S)
        return views.reshape(-1, self.sampling.frames, *views.shape[2:]), label


def strips_of(videos: LabelledVideos) -> Callable[[int], Image.Image]:
    """Make the function that shows a video, by its index, as a strip of frames."""

    def strip(index: int) -> Image.Image:
        with videos.open(index) as video:
            return strip_of(video)

    return strip


def counted_videos(videos: LabelledVideos) -> str:
    """Say how many videos of how many classes there are, and how many are missing."""
    missing = f", {len(videos.missing):,} more are listed and not there" if videos.missing else ""
    return f"{len(videos):,} videos, {len(videos.classes):,} classes{missing}"
