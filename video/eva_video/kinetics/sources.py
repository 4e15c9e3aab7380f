"""The lists and folders of Kinetics-400, 600 and 700 as they lie on disks."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eva_data.kinetics import TITLES, find_classes, kinetics_classes, mapping
from eva_data.labelled_videos.lists import ID_LENGTH, youtube_id
from eva_data.labelled_videos.opening import open_videos
from eva_data.labelled_videos.sources import VideoFiles
from eva_video.kinetics.merging import Videos

logger = logging.getLogger(__name__)

_SHOWN = 3  # examples in a message


@dataclass(frozen=True, kw_only=True)
class Source:
    """A list of one data set, with the place of each video.

    Attributes:
        location: The list or folder.
        files: Its videos.
        positions: Those with YouTube's id, as positions in `files`.
        videos: Their ids and labels.
        nameless: Examples of those that were left out because their names have no id.
    """

    location: str
    files: VideoFiles
    positions: NDArray[np.int64]
    videos: Videos
    nameless: tuple[str, ...] = ()

    def path(self, index: int) -> str:
        """Name the file of one of `videos`."""
        return self.files.sample_id(int(self.positions[index]))

    def summary(self) -> dict[str, Any]:
        """Describe it for the file of statistics."""
        return {
            "location": self.location,
            "videos": len(self.files),
            "not_there": len(self.files.missing),
            "not_listed": len(self.files.unlisted),
            "nameless": len(self.files) - len(self.positions),
            "nameless_examples": list(self.nameless),
        }


def read_source(
    location: str, name: str, *, root: str | None = None, leave_out_nameless: bool = False
) -> Source:
    """Read the videos of a data set, wherever their classes are written.

    Args:
        location: What `open_videos` takes, with files: a folder of class folders, a list with
            names of classes or with the official labels.
        name: `k400`, `k600` or `k700`.
        root: Folder of the videos of a list; None for that of the list.
        leave_out_nameless: Leave out files whose name does not begin with YouTube's id.

    Returns:
        The videos.

    Raises:
        ValueError: If a class is not one of the data set, the videos are not in files, or a file
            has another name.
    """
    files = open_videos(location, root=root)
    if not isinstance(files, VideoFiles):
        raise ValueError(
            f"{location} holds its videos in shards, and a list of Kinetics-722 names files: "
            "unpack them"
        )
    try:
        labels_of_classes = _labels_of_classes(files.classes, name)
    except ValueError as error:
        raise ValueError(f"{location}: {error}") from error
    ids = [youtube_id(file, sure=True) for file in files.names]
    nameless = [position for position, found in enumerate(ids) if found is None]
    examples = tuple(files.sample_id(position) for position in nameless[:_SHOWN])
    if nameless and (len(nameless) == len(ids) or not leave_out_nameless):
        advice = "" if len(nameless) == len(ids) else ", or give --leave-out-nameless"
        raise ValueError(
            f"{location}: the names of {len(nameless):,} of {len(ids):,} videos do not begin with "
            f"YouTube's id, such as {', '.join(examples)}: name them ID.mp4 or "
            f"ID_000010_000020.mp4{advice}"
        )
    if nameless:
        logger.warning(
            "%s: %d videos are left out, whose names do not begin with YouTube's id, such as %s",
            location, len(nameless), ", ".join(examples),
        )  # fmt: skip
    positions = np.array([at for at, found in enumerate(ids) if found is not None], dtype=np.int64)
    found_ids = np.array([found for found in ids if found is not None], dtype=f"S{ID_LENGTH}")
    labels = labels_of_classes[files.labels[positions]]
    return Source(
        location=location,
        files=files,
        positions=positions,
        videos=Videos(ids=found_ids, labels=labels),
        nameless=examples,
    )


def _labels_of_classes(classes: Sequence[str], name: str) -> NDArray[np.int64]:
    """Return the label in Kinetics-722 of each class of a list, named or numbered."""
    if not all(text.isdecimal() for text in classes):
        return find_classes(classes, name)
    numbers = np.array([int(text) for text in classes], dtype=np.int64)
    if numbers.max() >= (most := len(kinetics_classes(name))):
        raise ValueError(
            f"the labels go up to {numbers.max()}, and {TITLES[name]} has {most}, from 0 to "
            f"{most - 1}: is it a list of another data set?"
        )
    return mapping("k722", name)[numbers]


def relative_to(path: str, root: Path | None) -> str:
    """Write the path of a video for a list.

    Args:
        path: The path, from the working directory.
        root: Folder that it shall begin in; None writes it from the root of the file system.

    Raises:
        ValueError: If it is not in that folder, or cannot stand in a line.
    """
    written = os.path.abspath(path)  # noqa: PTH100 (links stay)
    if root is not None:
        above = os.path.join(os.path.abspath(root), "")  # noqa: PTH100, PTH118
        if not written.startswith(above):
            raise ValueError(f"{path} is not in the folder {root} of --root")
        written = written[len(above) :]
    if written != written.strip() or len(written.splitlines()) != 1:
        raise ValueError(f"{path!r} cannot stand in a list: rename it")
    return written
