"""The index of labelled videos that a check has looked through."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eva_data.index import (
    VIDEO_KIND,
    FolderFiles,
    Names,
    Table,
    damaged,
    require_unchanged,
)
from eva_data.labelled_videos.lists import Labels
from eva_data.labelled_videos.videos import LabelledVideos
from eva_data.tar_index import TarIndex


def write_video_index(
    file: Path,
    videos: LabelledVideos,
    indices: Sequence[int],
    facts: Mapping[str, NDArray[Any]],
    *,
    listed_in: Path | None = None,
    state: list[Any] | None = None,
) -> None:
    """Write an index, `.safetensors`, of the videos of some indexes.

    `facts` are arrays about all videos, see `eva_data.checks.videos.read_videos`. Of videos that a
    list names, `state` is what `state_of` gave of it before it was read.
    """
    places, files = np.asarray(indices, np.int64), videos.source
    arrays = dict(files.table.select(places))
    arrays |= {name: np.ascontiguousarray(values[places]) for name, values in facts.items()}
    arrays["label"] = videos.labels[places]
    about: dict[str, Any] = {"classes": list(videos.classes), "shards": None}
    if isinstance(files, TarIndex):
        about["shards"] = files.table.about
        about["paths"] = [os.fspath(shard.absolute()) for shard in files.shards]
    elif isinstance(files, FolderFiles):
        about["root"] = os.fspath(files.folder.absolute())
    if videos.images is not None:
        arrays["pictures"] = videos.images[places]
    if listed_in is not None:
        about["list"] = [os.fspath(listed_in.absolute()), state]
    Table(arrays, about, kind=VIDEO_KIND).save(file)


def open_video_index(
    file: Path, classes: Sequence[str] | None, root: Path | None, *, may_lack: bool
) -> LabelledVideos:
    """Open an index that `write_video_index` has written; see `open_videos` for the arguments.

    `root` is where the videos have been moved to; without one they are where they were.
    """
    table = Table.open(file, kind=VIDEO_KIND)
    try:
        about = dict(table.about)
        indexed_classes, shards = list(about["classes"]), about["shards"]
        paths = [Path(path) for path in ([about["root"]] if shards is None else about["paths"])]
        noted, state = about.get("list") or (None, None)
        labels = np.array(table["label"])
        if not 0 <= labels.min() <= labels.max() < len(indexed_classes):
            raise IndexError(f"labels of {len(indexed_classes)} classes")
    except (TypeError, ValueError, LookupError) as error:
        raise damaged(file, repr(error)) from error
    if noted is not None:
        require_unchanged(Path(noted), state, index=file)  # it would keep earlier labels
    images = np.array(table["pictures"]) if "pictures" in table else None
    of_each = ("label", "pictures") if "pictures" in table else ("label",)
    table.require_equal_lengths(*of_each, length=len(Names(table)))
    if classes is not None:
        labels_of_classes, numbers = Labels(classes), np.zeros(len(indexed_classes), np.int32)
        for label in np.unique(labels).tolist():
            numbers[label] = labels_of_classes.require(indexed_classes[label], str(file))
        labels, indexed_classes = numbers[labels], list(classes)
    if root is not None:
        paths = [root] if shards is None else [root / path.name for path in paths]
    gone = [path for path in paths if not path.exists()]
    if gone and not may_lack:
        raise ValueError(
            f"{file} is an index of videos in {gone[0]}, which is not there: name their folder as "
            "root"
        )
    table.about = shards
    files = FolderFiles(paths[0], table) if shards is None else TarIndex(paths, table)
    return LabelledVideos(files, labels, indexed_classes, images=images)
