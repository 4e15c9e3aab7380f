"""Labelled videos as samples."""

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from eva_data.files import require_regular_file
from eva_data.index import FolderFiles, Names, StoredFiles
from eva_data.samples import LabelledSamples
from eva_data.video.source import RawFrames, UnreadableVideoError, VideoSource, open_video


class LabelledVideos(LabelledSamples[StoredFiles]):
    """Videos with labels, in files or shards, each opened when it is asked for.

    `labels` (number of videos,) count `classes`. `images` are the numbers of images of each, where
    some are folders of images: 0 if it is not known, and -1 for files of videos. `missing` are
    paths or ids that were listed and are not there, `unlisted` videos that were not listed, or have
    no label, where that is known.
    """

    def __init__(
        self,
        files: StoredFiles,
        labels: NDArray[np.int32],
        classes: Sequence[str],
        *,
        images: NDArray[np.int32] | None = None,
        missing: Iterable[str] = (),
        unlisted: Iterable[str] = (),
    ) -> None:
        super().__init__(files)
        self.labels, self.classes, self.images = labels, tuple(classes), images
        self.missing, self.unlisted = Names.collect(missing), Names.collect(unlisted)

    def checksum(self) -> int:
        """Compute a number that changes with the videos, their order, labels or classes.

        Where the dataset lies does not matter.
        """
        value = zlib.crc32(self.labels.tobytes(), zlib.crc32("\n".join(self.classes).encode()))
        for name in map(self.name, range(len(self))):
            value = zlib.crc32(name.encode("utf-8", "surrogateescape") + b"\0", value)
        return value

    def subset(self, indices: Sequence[int] | NDArray[Any]) -> Self:
        """See `Samples`; the classes stay."""
        selected = super().subset(indices)
        if self.images is not None:
            selected.images = self.images[np.asarray(indices, np.int64)]
        selected.missing = selected.unlisted = Names.collect(())
        return selected

    def open(self, index: int) -> VideoSource:
        """Open a video, which the caller closes; an UnreadableVideoError if it cannot be."""
        name = self.sample_id(index)
        if self.images is not None and self.images[index] >= 0:
            return RawFrames(name, count=int(self.images[index]) or None)
        files, position = self.locate(index)
        content = name if isinstance(files, FolderFiles) else self._read(files, position)
        return open_video(content, name=name)

    def _read(self, files: StoredFiles, position: int) -> bytes:
        try:
            return files.read(position)
        except OSError as error:
            raise UnreadableVideoError(f"cannot read {error}") from error

    def digest(self, index: int) -> tuple[int, bytes]:
        """Read a video's content: its bytes, and their SHA-256; an OSError if it cannot be read."""
        files, position = self.locate(index)
        if not isinstance(files, FolderFiles):
            content = self._read(files, position)
            return len(content), hashlib.sha256(content).digest()
        path, size, digest = Path(self.sample_id(index)), 0, hashlib.sha256()
        paths = [path]
        if self.images is not None and self.images[index] >= 0:
            paths = sorted(entry for entry in path.iterdir() if entry.is_file())
        for file in paths:
            require_regular_file(file)
            with file.open("rb") as stream:
                hashlib.file_digest(stream, lambda: digest)
                size += stream.tell()
        return size, digest.digest()
