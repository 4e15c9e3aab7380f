"""Videos with labels as samples: in files, in shards, and some of them."""

import hashlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eva_data.files import require_regular_file
from eva_data.index import Names
from eva_data.tar import TarIndex
from eva_data.video.frames import RawFrames
from eva_data.video.source import (
    Backend,
    UnreadableVideoError,
    VideoSource,
    open_video,
)


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
        """Name a video without the place of its dataset, as a list would."""
        return self.sample_id(index)

    def checksum(self) -> int:
        """Compute a number that changes with the videos, their order, labels or classes.

        Where the dataset lies does not matter.
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
        return self._videos.sample_id(self._place(index))

    def name(self, index: int) -> str:
        return self._videos.name(self._place(index))

    def open(self, index: int) -> VideoSource:
        return self._videos.open(self._place(index))


class VideoFiles(LabelledVideos):
    """Videos in files, each opened when it is asked for.

    Names and labels are arrays, which the processes of a loader share.

    Args:
        root: Folder of relative names.
        names: Paths of the files.
        labels: Label of each, (number of videos,).
        classes: Names of the labels.
        backend: See `open_video`.
        images: Number of images of each, where some are folders of images: 0 if it is not known,
            and -1 for files of videos.
        missing: See `LabelledVideos`.
        unlisted: See `LabelledVideos`.
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
        missing: Iterable[str] = (),
        unlisted: Iterable[str] = (),
    ) -> None:
        super().__init__(classes, labels, missing=missing, unlisted=unlisted)
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
        """Read a video's content: its bytes, and their SHA-256.

        Raises:
            OSError: If it cannot be read.
        """
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
    """Videos in tar shards, each read at its place when it is asked for.

    Args:
        members: The videos.
        labels: Label of each, (number of videos,).
        classes: Names of the labels.
        backend: See `open_video`.
        unlisted: Videos without a label.
    """

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
        """Read an encoded video.

        Raises:
            UnreadableVideoError: If it cannot be read.
        """
        try:
            return self.members.read(index)
        except OSError as error:
            raise UnreadableVideoError(f"cannot read {error}") from error

    def digest(self, index: int) -> tuple[int, bytes]:
        """Read a video's content: its bytes, and their SHA-256.

        Raises:
            OSError: If it cannot be read.
        """
        content = self.read(index)
        return len(content), hashlib.sha256(content).digest()

    def open(self, index: int) -> VideoSource:
        """See `LabelledVideos`."""
        return open_video(self.read(index), name=self.sample_id(index), backend=self._backend)
