"""Videos with labels: what every source of them offers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eva_data.video.video_source import VideoSource


class LabelledVideos(ABC):
    """A list of videos with labels, none of which is open.

    Args:
        classes: Names of the labels 0, 1, ...
        labels: Label of each video, (number of videos,).
    """

    def __init__(self, classes: Sequence[str], labels: NDArray[np.int32]) -> None:
        self.classes = tuple(classes)
        self.labels = labels

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
