"""Videos with labels: what every source of them offers."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from eva_data.index import Names
from eva_data.video.source import VideoSource


class LabelledVideos(ABC):
    """A list of videos with labels, none of which is open.

    Args:
        classes: Names of the labels 0, 1, ...
        labels: Label of each video, (number of videos,).
        missing: Paths or ids that were listed and are not there.
        unlisted: Videos that are there and were not listed, or have no label, where that is known.
    """

    def __init__(
        self,
        classes: Sequence[str],
        labels: NDArray[np.int32],
        *,
        missing: Iterable[str] = (),
        unlisted: Iterable[str] = (),
    ) -> None:
        self.classes = tuple(classes)
        self.labels = labels
        self.missing, self.unlisted = Names.collect(missing), Names.collect(unlisted)

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def sample_id(self, index: int) -> str:
        """Name the place of a video, for messages."""

    @abstractmethod
    def open(self, index: int) -> VideoSource:
        """Open a video; the caller closes it.

        Raises:
            UnreadableVideoError: If it cannot be read; an OSError that names it.
        """

    def name(self, index: int) -> str:
        """Name a video without the place of its data set, as a list would."""
        return self.sample_id(index)

    def checksum(self) -> int:
        """Compute a number that changes with the videos, their order, labels or classes.

        Where the data set lies does not matter.
        """
        value = zlib.crc32(self.labels.tobytes(), zlib.crc32("\n".join(self.classes).encode()))
        for index in range(len(self)):
            value = zlib.crc32(self.name(index).encode("utf-8", "surrogateescape") + b"\0", value)
        return value

    def subset(self, indices: Sequence[int]) -> "LabelledVideos":
        """Take some of the videos, with the same classes.

        Args:
            indices: Indexes of the videos, in the order that they are to have.

        Raises:
            IndexError: If there is no such video.
        """
        return _Subset(self, indices)


class _Subset(LabelledVideos):
    """Some of the videos of a list."""

    def __init__(self, videos: LabelledVideos, indices: Sequence[int]) -> None:
        self._places = np.asarray(indices, np.int64).reshape(-1)
        outside = (self._places < 0) | (self._places >= len(videos))
        if outside.any():
            raise IndexError(f"no video {self._places[outside][0]} among {len(videos)}")
        super().__init__(videos.classes, videos.labels[self._places])
        self._videos = videos

    def _place(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"no video {index} among {len(self)}")
        return int(self._places[index])

    def sample_id(self, index: int) -> str:
        """See `LabelledVideos`."""
        return self._videos.sample_id(self._place(index))

    def name(self, index: int) -> str:
        """See `LabelledVideos`."""
        return self._videos.name(self._place(index))

    def open(self, index: int) -> VideoSource:
        """See `LabelledVideos`."""
        return self._videos.open(self._place(index))
