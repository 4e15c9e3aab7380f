"""Images without labels: what every source of them offers, and a folder as a source."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from eva_data.files import find_files, require_regular_file
from eva_data.pictures import UnreadableImageError, check_encoded_size
from eva_data.sources.decoding import decode_image
from eva_data.sources.names import Names
from eva_data.suffixes import LISTED_PICTURES, PICTURES
from eva_data.transforms import TensorTransform


class ImageSource(Dataset[Any]):
    """A map-style data set: `source[index]` reads, decodes and transforms one image.

    An image that cannot be read raises `UnreadableImageError`, which names it; what to do instead
    is the caller's decision.

    Args:
        transform: Takes the image, (3, height, width) uint8; None returns it as it is.
    """

    def __init__(self, transform: TensorTransform | None = None) -> None:
        self.transform = transform

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def sample_id(self, index: int) -> str:
        """Name the place of an image, for messages."""

    @abstractmethod
    def read(self, index: int) -> bytes:
        """Read an encoded image.

        Raises:
            UnreadableImageError: If it cannot be read.
        """

    @abstractmethod
    def checksum(self) -> int:
        """Compute a number that changes with the images' names or their order."""

    def decode(self, index: int) -> Tensor:
        """Decode an image to (3, height, width) uint8.

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
        self, folder: Path, transform: TensorTransform | None = None, *, names: Names | None = None
    ) -> None:
        super().__init__(transform)
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}")
        self.folder = folder
        self.names = Names.collect(find_files(folder, PICTURES)) if names is None else names
        if not len(self.names):
            raise ValueError(f"{folder} holds no image: looked for {LISTED_PICTURES}")

    def __len__(self) -> int:
        return len(self.names)

    def sample_id(self, index: int) -> str:
        """Name an image by its path."""
        return str(self.folder / self.names[index])

    def read(self, index: int) -> bytes:
        """Read a file."""
        path = self.folder / self.names[index]
        try:
            require_regular_file(path)
            check_encoded_size(path.stat().st_size, str(path))
            return path.read_bytes()
        except UnreadableImageError:
            raise
        except OSError as error:
            reason = f"{path}: {error.strerror}" if error.strerror else str(error)
            raise UnreadableImageError(reason) from error

    def checksum(self) -> int:
        """See `ImageSource`; the folder's own path does not matter."""
        return self.names.checksum()
