"""The middle frame of each video, as an image with the video's label."""

from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from eva_data.labelled_videos.sources import LabelledVideos
from eva_data.transforms import ImageTransform
from eva_data.video.source import VideoSource, require_usual_shape


def middle_frame(video: VideoSource) -> Image.Image:
    """Decode the frame in the middle of a video; of an even number the later one of two."""
    return Image.fromarray(video.frames([len(video) // 2])[0])


class MiddleFrames(Dataset[tuple[Any, int]]):
    """A map-style dataset of the middle frames of videos: (transformed image, label).

    Args:
        videos: The videos.
        transform: Takes the frame in RGB.

    Attributes:
        classes: Names of the labels.
    """

    def __init__(self, videos: LabelledVideos, transform: ImageTransform) -> None:
        self.videos, self.transform = videos, transform
        self.classes = videos.classes

    def __len__(self) -> int:
        return len(self.videos)

    def sample_id(self, index: int) -> str:
        """Name a video, for messages."""
        return self.videos.sample_id(index)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Read a frame.

        Raises:
            UnreadableVideoError: If the video cannot be read; an OSError that names it.
        """
        with self.videos.open(index) as video:
            require_usual_shape(video, self.sample_id(index))
            image = middle_frame(video)
        return self.transform(image), int(self.videos.labels[index])
