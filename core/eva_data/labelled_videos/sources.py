"""Videos with labels as samples: in files, in shards, some of them, and their middle frames."""

import hashlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eva_data.files import require_regular_file
from eva_data.index import Names
from eva_data.tar import TarIndex
from eva_data.video.frames import RawFrames
from eva_data.video.source import (
    Backend,
    UnreadableVideoError,
    VideoSource,
    open_video,
    require_usual_shape,
)

if TYPE_CHECKING:
    from eva_data.transforms import ImageTransform  # loads torch


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

    def name(self, index: int) -> str:
        """Name a video without the place of its dataset, as a list would."""
        return self.sample_id(index)

    @abstractmethod
    def sample_id(self, index: int) -> str:
        """Name the place of a video, for messages."""

    @abstractmethod
    def open(self, index: int) -> VideoSource:
        """Open a video; the caller closes it.

        Raises:
            UnreadableVideoError: If it cannot be read; an OSError that names it.
        """

    def checksum(self) -> int:
        """Compute a number that changes with the videos, their order, labels or classes.

        Where the dataset lies does not matter.
        """
        value = zlib.crc32(self.labels.tobytes(), zlib.crc32("\n".join(self.classes).encode()))
        for index in range(len(self)):
            value = zlib.crc32(self.name(index).encode("utf-8", "surrogateescape") + b"\0", value)
        return value

    def subset(self, indices: Sequence[int]) -> "LabelledVideos":
        """Take some of the videos by their indexes, in that order, with the same classes."""
        return _Subset(self, indices)


class _Subset(LabelledVideos):
    def __init__(self, videos: LabelledVideos, indices: Sequence[int]) -> None:
        self._videos, self._places = videos, np.asarray(indices, np.int64)
        super().__init__(videos.classes, videos.labels[self._places])

    def sample_id(self, index: int) -> str:
        return self._videos.sample_id(int(self._places[index]))

    def name(self, index: int) -> str:
        return self._videos.name(int(self._places[index]))

    def open(self, index: int) -> VideoSource:
        return self._videos.open(int(self._places[index]))


class VideoFiles(LabelledVideos):
    """Videos in files below a root, each opened when it is asked for.

    `images` has the number of images of each, where some are folders of images: 0 if it is not
    known, and -1 for files of videos.
    """

    def __init__(
        self,
        root: Path,
        names: Names,
        labels: NDArray[np.int32],
        classes: Sequence[str],
        *,
        backend: Backend,
        images: NDArray[np.int32] | None = None,
        **left_out: Iterable[str],
    ) -> None:
        super().__init__(classes, labels, **left_out)
        self.root, self.names, self._backend, self.images = root, names, backend, images

    def name(self, index: int) -> str:
        """Name a video by its path below the root."""
        return self.names[index]

    def sample_id(self, index: int) -> str:
        """Name a video by its path."""
        return str(self.root / self.name(index))

    def open(self, index: int) -> VideoSource:
        """See `LabelledVideos`."""
        path = self.sample_id(index)
        if self.images is not None and self.images[index] >= 0:
            return RawFrames(path, count=int(self.images[index]) or None)
        return open_video(path, backend=self._backend)

    def digest(self, index: int) -> tuple[int, bytes]:
        """Read a video's content: its bytes, and their SHA-256; an OSError if it cannot be read."""
        path = Path(self.sample_id(index))
        files = [path]
        if self.images is not None and self.images[index] >= 0:
            files = sorted(entry for entry in path.iterdir() if entry.is_file())
        size, digest = 0, hashlib.sha256()
        for file in files:
            require_regular_file(file)
            with file.open("rb") as stream:
                hashlib.file_digest(stream, lambda: digest)
                size += stream.tell()
        return size, digest.digest()


class VideoShards(LabelledVideos):
    """Videos in tar shards, each read at its place when it is asked for."""

    def __init__(
        self,
        members: TarIndex,
        labels: NDArray[np.int32],
        classes: Sequence[str],
        *,
        backend: Backend,
        unlisted: Iterable[str] = (),
    ) -> None:
        super().__init__(classes, labels, unlisted=unlisted)
        self.members, self._backend = members, backend

    def name(self, index: int) -> str:
        """Name a video by its member in the shards."""
        return self.members.names[index]

    def sample_id(self, index: int) -> str:
        """Name shard and member, `folder/shard-0000.tar:key.mp4`."""
        return self.members.sample_id(index)

    def read(self, index: int) -> bytes:
        """Read an encoded video; an UnreadableVideoError if it cannot be read."""
        try:
            return self.members.read(index)
        except OSError as error:
            raise UnreadableVideoError(f"cannot read {error}") from error

    def digest(self, index: int) -> tuple[int, bytes]:
        """Read a video's content: its bytes, and their SHA-256."""
        content = self.read(index)
        return len(content), hashlib.sha256(content).digest()

    def open(self, index: int) -> VideoSource:
        """See `LabelledVideos`."""
        return open_video(self.read(index), name=self.sample_id(index), backend=self._backend)


class MiddleFrames:
    """A map-style dataset of the middle frames of videos: (transformed image, label)."""

    def __init__(self, videos: LabelledVideos, transform: "ImageTransform") -> None:
        self.videos, self.transform, self.classes = videos, transform, videos.classes

    def __len__(self) -> int:
        return len(self.videos)

    def sample_id(self, index: int) -> str:
        """Name a video, for messages."""
        return self.videos.sample_id(index)

    def image(self, index: int) -> Image.Image:
        """Decode the frame in the middle of a video; of an even number the later one of two."""
        with self.videos.open(index) as video:
            require_usual_shape(video, self.sample_id(index))
            return Image.fromarray(video.frames([len(video) // 2])[0])

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(self.image(index)), int(self.videos.labels[index])
