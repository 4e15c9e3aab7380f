"""Where the videos of a list lie on the disk.

Every folder that a list names is listed once; no file is looked up on its own, which on a network
drive takes minutes for a list of Kinetics.
"""

import contextlib
import logging
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from eva_data.files import VIDEO_SUFFIXES
from eva_data.index import Names
from eva_data.labelled_videos.entries import Entry, Labels
from eva_data.labelled_videos.video_files import VideoFiles
from eva_data.video.source import Backend

logger = logging.getLogger(__name__)

_SUFFIXES = (*sorted(VIDEO_SUFFIXES), *sorted(suffix.upper() for suffix in VIDEO_SUFFIXES))
TWICE = "%s has %s videos more than once: %s"
_MOST_FRAMES = 100_000_000  # of a video; more is a mistake, and is not counted in 32 bits
_SHOWN = 5  # names in a warning


class Shelves:
    """The files in folders, each of which is listed once.

    Args:
        root: Folder of relative paths.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[str, set[str]] = {}
        self._folders: dict[str, set[str]] = {}

    def find(self, path: str) -> tuple[str, bool] | None:
        """Find a video by its path, with or without the suffix, or with another one.

        Args:
            path: Its path, absolute or below the root.

        Returns:
            Its path on the disk and whether it is a folder (of pictures), or None.
        """
        folder, name = os.path.split(path.rstrip("/"))
        if folder not in self._files:
            self._list(folder)
        files = self._files[folder]
        if name in files:
            return path, False
        stem, suffix = os.path.splitext(name)  # noqa: PTH122 (millions of names)
        for known in _SUFFIXES:
            if name + known in files:
                return os.path.join(folder, name + known), False  # noqa: PTH118
            if suffix.lower() in VIDEO_SUFFIXES and stem + known in files:
                return os.path.join(folder, stem + known), False  # noqa: PTH118
        if name in self._folders[folder]:
            return path, True
        return self.find(path.replace("\\", "/")) if "\\" in path else None  # of Windows

    def _list(self, folder: str) -> None:
        files = self._files[folder] = set()
        folders = self._folders[folder] = set()
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError),  # a zero byte
            os.scandir(self._root / folder) as entries,
        ):
            for entry in entries:
                with contextlib.suppress(OSError):  # a link to itself
                    if entry.is_dir():
                        folders.add(entry.name)
                    elif entry.is_file():  # not a pipe, and not a link that leads nowhere
                        files.add(entry.name)


class Tally:
    """Names counted for one warning, of which the first are kept."""

    def __init__(self) -> None:
        self.count, self._first = 0, list[str]()

    def add(self, name: str) -> None:
        """Count a name."""
        self.count += 1
        if len(self._first) < _SHOWN:
            self._first.append(name)

    def warn(self, message: str, subject: object) -> None:
        """Warn, if anything was counted.

        Args:
            message: Text with places for the subject, the count and the names.
            subject: List or folder that it is about.
        """
        if self.count:
            logger.warning(message, subject, f"{self.count:,}", self)

    def __str__(self) -> str:
        return ", ".join(self._first) + (", ..." if self.count > len(self._first) else "")


def place_entries(
    entries: Iterable[Entry], labels: Labels, *, file: Path, root: Path, backend: Backend
) -> VideoFiles:
    """Find the videos of a list on the disk.

    Those that are not there are left out; a warning counts them and names the first.

    Args:
        entries: Videos of the list.
        labels: Reader of their labels, which knows the classes when all have been read.
        file: The list, for messages.
        root: Folder of relative paths.
        backend: See `open_video`.

    Returns:
        The videos that are there, in the order of the list; `missing` names the others.

    Raises:
        ValueError: If none is there, or one has an impossible number of frames.
    """
    numbers, frames, missing = array("i"), array("i"), array("i")
    shelves, seen, twice = Shelves(root), set[str](), Tally()
    absent: list[str] = []

    def placed() -> Iterator[str]:
        for entry in entries:
            found = shelves.find(entry.path)
            if found is None:
                absent.append(entry.path)
                missing.append(entry.line)
                continue
            path, is_folder = found
            if path in seen:
                twice.add(f"{path} (line {entry.line})")
            seen.add(path)
            numbers.append(entry.label)
            frames.append(_frames_of(entry, file) if is_folder else -1)
            yield path

    names = Names.collect(placed())
    report_absent(file, root, len(names), absent, missing)
    twice.warn(TWICE, file)
    counts = np.array(frames, np.int32)
    return VideoFiles(
        root,
        names,
        np.array(numbers, np.int32),
        labels.classes(),
        backend=backend,
        pictures=counts if (counts >= 0).any() else None,
        missing=absent,
    )


def _frames_of(entry: Entry, file: Path) -> int:
    count = entry.frames or 0
    if not 0 <= count <= _MOST_FRAMES:
        raise ValueError(
            f"{file}, line {entry.line} has {count:,} frames, and a folder of pictures has at most "
            f"{_MOST_FRAMES:,}"
        )
    return count


def report_absent(
    file: Path, root: Path, found: int, absent: Sequence[str], lines: Sequence[int]
) -> None:
    """Warn about videos of a list that are not on the disk.

    Args:
        file: The list.
        root: Where they were looked for.
        found: Number of those that are there.
        absent: Names of those that are not.
        lines: Their lines in the list.

    Raises:
        ValueError: If none is there.
    """
    first = ", ".join(
        f"{name} (line {line})" for name, line in zip(absent[:_SHOWN], lines, strict=False)
    )
    if absent and not found:
        raise ValueError(
            f"none of the {len(absent):,} videos of {file} is in {root}: looked for {first}; name "
            "their folder as root"
        )
    if absent:
        logger.warning(
            "%s of the %s videos of %s are not in %s and are left out: %s%s",
            f"{len(absent):,}", f"{len(absent) + found:,}", file, root, first,
            ", ..." if len(absent) > _SHOWN else "",
        )  # fmt: skip
