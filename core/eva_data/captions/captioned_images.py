"""Pictures with captions: what every source of them offers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from eva_data.captions.left_out import LeftOut
from eva_data.images import UnreadableImageError, read_image
from eva_data.manifests import Mixture, SourceEntry


class CaptionedImages(ABC):
    """A list of pictures, each with one caption or several; nothing is open.

    What can be seen from a list, a folder or the headers of a shard is looked at once, and what
    makes no pair is left out, counted and named. Pictures and the captions in files of their own
    are read when they are asked for: what is wrong with one of them is an OSError then, which the
    engine answers with another pair.

    Args:
        left_out: What makes no pair.
    """

    def __init__(self, left_out: LeftOut | None = None) -> None:
        self.left_out = LeftOut() if left_out is None else left_out

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def sample_id(self, index: int) -> str:
        """Name the place of a picture, for messages."""

    def name(self, index: int) -> str:
        """Name a picture without the place of its data set, as a list would."""
        return self.sample_id(index)

    @abstractmethod
    def source(self, index: int) -> Path | bytes:
        """Find a picture: the path of its file, or its content.

        Raises:
            OSError: If it cannot be read.
        """

    @abstractmethod
    def captions(self, index: int) -> tuple[str, ...]:
        """Read the captions of a picture: one at least, none of them empty.

        Raises:
            UnreadableCaptionError: If there is none, or one is not text.
        """

    @abstractmethod
    def checksum(self) -> int:
        """Compute a number that changes with the pairs and their order.

        Where the data lie does not matter. The content of files and members is not read.
        """

    def image(self, index: int) -> Image.Image:
        """Read a picture, as it is stored: EXIF's orientation is not applied.

        Returns:
            The picture, RGB.

        Raises:
            UnreadableImageError: If it cannot be read or decoded; an OSError that names it.
        """
        name = self.sample_id(index)
        try:
            return read_image(self.source(index), upright=False, name=name)
        except UnreadableImageError:
            raise
        except (OSError, ValueError) as error:  # a ValueError of a path with a zero byte
            raise UnreadableImageError(
                f"{error}" if name in str(error) else f"{name}: {error}"
            ) from error

    def require(self, index: int) -> int:
        """Give the index, if there is such a pair.

        Raises:
            IndexError: If there is none.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"no pair {index} among {len(self)}")
        return index


class MixedCaptions(CaptionedImages):
    """The pairs of several sources, as a manifest mixes them.

    Args:
        sources: The sources.
        entries: What the manifest says of each.
    """

    def __init__(self, sources: Sequence[CaptionedImages], entries: Sequence[SourceEntry]) -> None:
        super().__init__()
        self._mixture = Mixture(sources, entries)
        self.sources, self.counts = sources, self._mixture.counts
        for source in sources:
            self.left_out.merge(source.left_out)

    def __len__(self) -> int:
        return len(self._mixture)

    def _locate(self, index: int) -> tuple[CaptionedImages, int]:
        return self._mixture.locate(index)

    def sample_id(self, index: int) -> str:
        """See `CaptionedImages`."""
        source, place = self._locate(index)
        return source.sample_id(place)

    def name(self, index: int) -> str:
        """See `CaptionedImages`; which of the sources has the picture does not matter."""
        source, place = self._locate(index)
        return source.name(place)

    def source(self, index: int) -> Path | bytes:
        """See `CaptionedImages`."""
        source, place = self._locate(index)
        return source.source(place)

    def captions(self, index: int) -> tuple[str, ...]:
        """See `CaptionedImages`."""
        source, place = self._locate(index)
        return source.captions(place)

    def checksum(self) -> int:
        """See `CaptionedImages`; weights and limits count."""
        return self._mixture.checksum()
