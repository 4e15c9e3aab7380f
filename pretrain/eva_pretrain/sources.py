"""Images without labels: what every source of them offers, and a folder as a source."""

import logging
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from eva_pretrain.decode import EXTENSIONS, UnreadableImageError, decode_image
from eva_pretrain.index_file import Names

logger = logging.getLogger(__name__)

Transform = Callable[[Tensor], Any]


class ImageSource(Dataset[Any]):
    """A map-style data set: `source[index]` reads, decodes and transforms one image.

    An image that cannot be read raises `UnreadableImageError`, which names it; what to do instead
    is the caller's decision.

    Args:
        transform: Takes the image, (3, height, width) uint8; None returns it as it is.
    """

    def __init__(self, transform: Transform | None = None) -> None:
        self.transform = transform

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def sample_id(self, index: int) -> str:
        """Where an image comes from, for messages."""

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The encoded image.

        Raises:
            UnreadableImageError: If it cannot be read.
        """

    @abstractmethod
    def checksum(self) -> int:
        """A number that changes with the images' names or their order."""

    def decode(self, index: int) -> Tensor:
        """The image, (3, height, width) uint8.

        Raises:
            UnreadableImageError: If it cannot be read or decoded.
        """
        return decode_image(self.read(index), self.sample_id(index))

    def __getitem__(self, index: int) -> Any:
        image = self.decode(index)
        return image if self.transform is None else self.transform(image)


class FolderImages(ImageSource):
    """The images below a folder.

    Args:
        folder: Searched with all its subfolders; links are followed.
        transform: See `ImageSource`.
        names: The images, if they are known; None searches for them.

    Raises:
        ValueError: If there is no such folder, or no image in it.
    """

    def __init__(
        self, folder: Path, transform: Transform | None = None, *, names: Names | None = None
    ) -> None:
        super().__init__(transform)
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}")
        self.folder = folder
        self.names = Names.collect(find_images(folder)) if names is None else names
        if not len(self.names):
            raise ValueError(f"{folder} holds no image: looked for {', '.join(sorted(EXTENSIONS))}")

    def __len__(self) -> int:
        return len(self.names)

    def sample_id(self, index: int) -> str:
        """The path of an image."""
        return str(self.folder / self.names[index])

    def read(self, index: int) -> bytes:
        """The file's content."""
        try:
            return (self.folder / self.names[index]).read_bytes()
        except OSError as error:
            raise UnreadableImageError(f"{self.sample_id(index)}: {error.strerror}") from error

    def checksum(self) -> int:
        """See `ImageSource`; folder's own path does not matter."""
        return self.names.checksum()


def find_images(folder: Path) -> Iterator[str]:
    """Yield the paths of all images below a folder, relative to it.

    The order is always the same: that of the names, a folder's own files before its subfolders.
    Names that start with a dot are left out. A link to a folder above itself is not followed.
    """
    yield from _find(str(folder), "", ())


def _find(folder: str, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    status = Path(folder).stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        logger.warning("%s links to a folder above itself; it is not followed", folder)
        return
    with os.scandir(folder) as listing:
        entries = sorted(
            (entry for entry in listing if not entry.name.startswith(".")),
            key=lambda entry: os.fsencode(entry.name),
        )
    subfolders = []
    for entry in entries:
        if entry.is_dir():
            subfolders.append(entry.name)
        elif entry.name.rpartition(".")[2].lower() in EXTENSIONS and "." in entry.name:
            yield prefix + entry.name
    for name in subfolders:
        yield from _find(f"{folder}/{name}", f"{prefix}{name}/", (*above, here))
