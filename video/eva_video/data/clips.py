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
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from eva_data.labelled_videos.videos import LabelledVideos
from eva_engine.evaluation.own_data import notes_of_training
from eva_report.sheets import strip_of
from eva_video.config import Kind
from eva_video.data.transforms import ClipTransform

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
        is_valid = self.kind in get_args(Kind) and self.frames > 0 and self.interval > 0
        if not is_valid or (self.interval != 1 and self.kind != "dense"):
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
            starts = max(length - self.span + 1, 1)
            return self._dense(_randint(starts, 1, generator), length)[0]
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


def sampling_of(weights: str | os.PathLike[str], *, frames: int) -> Sampling:
    """Make the rule by which frames were chosen in the training of weights, or the paper's.

    Raises:
        ValueError: If a note of the file is not of its kind, or the file is damaged.
    """
    noted = notes_of_training(weights, sampling=None, frame_interval=None)
    kind: Kind = noted["sampling"] or "tsn"
    return Sampling(frames=frames, kind=kind, interval=noted["frame_interval"] or 1)


class Clips(Dataset[tuple[Tensor, int]]):
    """A map-style dataset of clips (T, 3, S, S) and labels, for validation.

    A clip has the centres of the segments of its video, or the middle one of the dense places.

    Args:
        videos: The videos.
        sampling: Rule that chooses the frames.
        transform: Makes a clip of the frames of a video.
    """

    def __init__(
        self, videos: LabelledVideos, *, sampling: Sampling, transform: ClipTransform
    ) -> None:
        self.videos, self.sampling, self.transform = videos, sampling, transform
        self.labels = videos.labels
        self.classes, self.missing = videos.classes, videos.missing

    def __len__(self) -> int:
        return len(self.videos)

    def sample_id(self, index: int) -> str:
        """Name the video of a clip, for messages."""
        return self.videos.sample_id(index)

    def image(self, index: int) -> Image.Image:
        """Show a video as a strip of frames."""
        with self.videos.open(index) as video:
            return strip_of(video)

    def checksum(self) -> int:
        """Compute a number that changes with the videos, their order, labels or classes."""
        return self.videos.checksum()

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Read a video.

        Raises:
            UnreadableVideoError: If it cannot be read.
        """
        with self.videos.open(index) as video:
            frames = video.frames(self.choose(index, len(video)).tolist())
        return self.transform(frames), int(self.videos.labels[index])

    def choose(self, index: int, length: int) -> Indexes:
        """Choose the frames of a video of this length that are decoded, (N,)."""
        return self.sampling.fixed(length)[0]


class TrainingClips(Clips):
    """A random clip (T, 3, S, S) of each video, from torch's global generator."""

    def choose(self, index: int, length: int) -> Indexes:
        """See `Clips`."""
        return self.sampling.draw(length)


class Views(Clips):
    """Several clips (V, T, 3, S, S) of each video, V = crops x clips: crop by crop, then by time.

    Args:
        videos: The videos.
        sampling: Rule that chooses the frames.
        transform: Makes crops of the frames of all clips, or one.
        clips: Places in time.
        draws: `fixed` spreads the clips evenly; `random` draws each, as the official test, from
            seed and index.
        seed: Seed of the random draws.
    """

    def __init__(
        self,
        videos: LabelledVideos,
        *,
        sampling: Sampling,
        transform: ClipTransform,
        clips: int = 4,
        draws: Literal["fixed", "random"] = "fixed",
        seed: int = 0,
    ) -> None:
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
        return views.reshape(-1, self.sampling.frames, *views.shape[-3:]), label
