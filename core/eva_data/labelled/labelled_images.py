"""Images with labels: what every source of them offers."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from eva_data.transforms import ImageTransform


class LabelledImages(Dataset[tuple[Any, int]]):
    """A map-style data set: `samples[index]` is (transformed image, label).

    Args:
        transform: Takes the PIL image in RGB; None returns it as it is.
        classes: Names of the labels 0, 1, ...
        upright: Turn images as their EXIF data say; see `eva_data.images`.
    """

    def __init__(
        self,
        transform: ImageTransform | None,
        classes: Sequence[str],
        *,
        upright: bool,
    ) -> None:
        self.transform = transform
        self.classes = tuple(classes)
        self.upright = upright

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def sample_id(self, index: int) -> str:
        """Name the place of an image, for messages."""

    @abstractmethod
    def load(self, index: int) -> tuple[Image.Image, int]:
        """Read an image in RGB, and its label.

        Raises:
            UnreadableImageError: If it cannot be read; an OSError that names it.
        """

    def image(self, index: int) -> Image.Image:
        """Read an image in RGB, whatever its label.

        Raises:
            UnreadableImageError: If it cannot be read; an OSError that names it.
        """
        return self.load(index)[0]

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = self.load(index)
        return (image if self.transform is None else self.transform(image)), label
