"""What features are computed of: pictures and texts by their index.

Shapes: H x W pixels, L tokens of a text.
"""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from eva_data.files import find_files, read_lines
from eva_data.labelled.folders import open_labelled
from eva_data.pictures import UnreadableImageError, read_picture
from eva_data.suffixes import LISTED_PICTURES
from eva_data.suffixes import PICTURES as SUFFIXES
from eva_data.transforms import PictureTransform
from eva_engine.extraction.shards import PICTURES, TEXTS


class Samples(Dataset[tuple[int, Tensor | None, str]], ABC):
    """Samples by index: (index, tensor, ""), or (index, None, why it cannot be read).

    Attributes:
        unit: What the samples are, of `eva_engine.extraction.shards.UNITS`.
        names: Their names.
    """

    unit: str
    names: Sequence[str]

    @cached_property
    def digest(self) -> str:
        """A hash that distinguishes lists of names."""
        return hashlib.sha256("\n".join(self.names).encode("utf-8", "surrogateescape")).hexdigest()

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[int, Tensor | None, str]: ...


class Pictures(Samples):
    """Pictures as tensors (3, H, W).

    Args:
        locations: Folders, which are searched, and picture files; or one data set by name, see
            `eva_data.labelled.folders`.
        transform: Transform of a PIL picture in RGB.

    Raises:
        ValueError: If there is no picture.
    """

    unit = PICTURES

    def __init__(self, locations: Sequence[str], transform: PictureTransform) -> None:
        self.transform = transform
        self._samples = None
        if len(locations) == 1 and locations[0].startswith(("torchvision:", "hf:")):
            self._samples = open_labelled(locations[0], None, upright=True)
            self.names = [self._samples.sample_id(i) for i in range(len(self._samples))]
            return
        self.names = [path for location in locations for path in _paths(Path(location))]
        if not self.names:
            raise ValueError(
                f"{', '.join(locations)}: no picture there; looked for {LISTED_PICTURES}"
            )

    def load(self, index: int) -> Image.Image:
        """Read a picture in RGB, upright as its EXIF data say."""
        if self._samples is not None:
            return self._samples.image(index)
        return read_picture(self.names[index], upright=True)

    def __getitem__(self, index: int) -> tuple[int, Tensor | None, str]:
        try:
            return index, self.transform(self.load(index)), ""
        except UnreadableImageError as error:
            return index, None, str(error)


class Texts(Samples):
    """Texts as tokens (L,).

    Args:
        file: Text file with one text in each line.
        transform: What makes tokens of a text.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not text in UTF-8, is empty, or has a blank line between others.
    """

    unit = TEXTS

    def __init__(self, file: str | os.PathLike[str], transform: Callable[[str], Tensor]) -> None:
        self.transform = transform
        self.names = read_lines(file)

    def __getitem__(self, index: int) -> tuple[int, Tensor | None, str]:
        return index, self.transform(self.names[index]), ""


def _paths(location: Path) -> Iterator[str]:
    if location.is_dir():
        yield from (str(location / path) for path in find_files(location, SUFFIXES))
    elif location.is_file():
        yield str(location)
    else:
        raise ValueError(f"there is no folder or picture {location}")
