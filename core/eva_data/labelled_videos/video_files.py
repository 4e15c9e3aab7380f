"""Videos in files with labels."""

import hashlib
import logging
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eva_data.classes import files_of_classes, find_class_folders, labels_of_folders
from eva_data.files import VIDEO_SUFFIXES, require_regular_file
from eva_data.index import Names
from eva_data.labelled_videos.labelled_videos import LabelledVideos
from eva_data.video.frames import RawFrames
from eva_data.video.source import Backend, VideoSource, open_video

logger = logging.getLogger(__name__)

_SPLITS = frozenset({"train", "training", "val", "valid", "validate", "validation", "test"})


class VideoFiles(LabelledVideos):
    """Videos in files, each opened when it is asked for.

    Names and labels are arrays, which the processes of a loader share.

    Args:
        root: Folder of relative names.
        names: Paths of the files.
        labels: Label of each, (number of videos,).
        classes: Names of the labels.
        backend: See `open_video`.
        pictures: Number of pictures of each, where some are folders of pictures: 0 if it is not
            known, and -1 for files of videos.
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
        pictures: NDArray[np.int32] | None = None,
        missing: Iterable[str] = (),
        unlisted: Iterable[str] = (),
    ) -> None:
        super().__init__(classes, labels, missing=missing, unlisted=unlisted)
        self.root, self.names, self._backend, self.pictures = root, names, backend, pictures

    def name(self, index: int) -> str:
        """Name a video by its path below the root."""
        if not 0 <= index < len(self):
            raise IndexError(f"no video {index} among {len(self)}")
        return self.names[index]

    def sample_id(self, index: int) -> str:
        """Name a video by its path."""
        return str(self.root / self.name(index))

    def open(self, index: int) -> VideoSource:
        """See `LabelledVideos`."""
        path = self.sample_id(index)
        if self.pictures is not None and self.pictures[index] >= 0:
            return RawFrames(path, count=int(self.pictures[index]) or None)
        return open_video(path, backend=self._backend)

    def digest(self, index: int) -> tuple[int, bytes]:
        """Read a video's content: its bytes, and their SHA-256.

        Raises:
            OSError: If it cannot be read.
        """
        path = Path(self.sample_id(index))
        if self.pictures is None or self.pictures[index] < 0:
            files = [path]
        else:
            files = sorted(entry for entry in path.iterdir() if entry.is_file())
        size, digest = 0, hashlib.sha256()
        for file in files:
            require_regular_file(file)
            with file.open("rb") as stream:
                hashlib.file_digest(stream, lambda: digest)
                size += stream.tell()
        return size, digest.digest()


def open_class_folders(
    folder: Path, *, classes: Sequence[str] | None, backend: Backend
) -> VideoFiles:
    """Open the videos in a folder for each class, searched with its subfolders.

    Args:
        folder: Folder of the class folders.
        classes: Names in the order of the labels; None sorts the folders. A folder may write the
            spaces of its class as underscores.
        backend: See `open_video`.

    Raises:
        ValueError: If there is no such folder, no class, no video, or an unknown class.
    """
    found = find_class_folders(folder)
    if len(found) > 1 and _SPLITS.issuperset(found):
        logger.warning("%s holds the splits %s, which become classes", folder, ", ".join(found))
    names = found if classes is None else classes
    labels = labels_of_folders(found, names, folder, exact=classes is None)
    numbers = array("i")
    files = Names.collect(files_of_classes(folder, labels, numbers, suffixes=VIDEO_SUFFIXES))
    return VideoFiles(folder, files, np.array(numbers, np.int32), names, backend=backend)
