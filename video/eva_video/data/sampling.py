"""Which frames of a video a clip has.

Sparse (TSN, https://arxiv.org/abs/1608.00859), as the paper: the video is cut into T segments of
equal length, and each gives one frame. Dense (https://arxiv.org/abs/1812.03982): T frames at a
fixed distance. The rules are those of mmaction2, on which the official code stands.

Shapes: V clips of T frames.
"""

from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from eva_video.config import Kind

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
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        for name in ("frames", "interval"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

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

    def drawn(self, length: int, *, clips: int, generator: torch.Generator) -> Indexes:
        """Choose the frames of clips by independent draws, as the official multi-view test.

        Args:
            length: Number of frames of the video.
            clips: V.
            generator: Source of random numbers.

        Returns:
            (V, T).
        """
        return np.stack([self.draw(length, generator=generator) for _ in range(clips)])

    def _dense(self, starts: Indexes, length: int) -> Indexes:
        return (starts[:, None] + np.arange(self.frames) * self.interval) % length


def _randint(high: int, count: int, generator: torch.Generator | None) -> Indexes:
    drawn: Indexes = torch.randint(high, (count,), generator=generator).numpy()
    return drawn
