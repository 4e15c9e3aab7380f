"""An index of videos: all that a check has found out about them, in one file that is mapped.

tools/verify_data.py writes it, and `open_videos` opens it at once, without searching a folder.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eva_data.classes import Spellings, listed
from eva_data.index import VIDEO_KIND, Names, Table, require_unchanged
from eva_data.labelled_videos.labelled_videos import LabelledVideos
from eva_data.labelled_videos.video_files import VideoFiles
from eva_data.labelled_videos.video_shards import VideoShards
from eva_data.tar import PLACES, TarIndex
from eva_data.video.source import Backend

SUFFIX = ".safetensors"
SHA256 = 32  # bytes
_AGAIN = "write it again with tools/verify_data.py video"


def write_video_index(
    file: Path,
    videos: VideoFiles | VideoShards,
    kept: Sequence[int],
    facts: Mapping[str, NDArray[Any]],
    *,
    listed_in: Path | None = None,
    state: dict[str, Any] | None = None,
) -> None:
    """Write an index of some of the videos.

    Args:
        file: Is replaced when the new one is complete; it ends in `.safetensors`.
        videos: The videos.
        kept: Indexes of those that the index is to list.
        facts: What is known of all videos, by name: `frames`, `bytes`, `width`, `height`, (number
            of videos,), and `sha256`, (number of videos, 32) uint8.
        listed_in: List of the videos; None for a folder, shards or an index.
        state: What `state_of` gave of the list before it was read.
    """
    places = np.asarray(kept, np.int64)
    arrays = {name: np.ascontiguousarray(values[places]) for name, values in facts.items()}
    arrays["label"] = videos.labels[places]
    about: dict[str, Any] = {"classes": list(videos.classes), "shards": None}
    if isinstance(videos, VideoShards):
        table, shards = videos.members.table, videos.members.shards
        names = videos.members.names
        arrays |= {name: table[name][places] for name in PLACES}
        about["shards"] = table.about
        about["paths"] = [os.fspath(shard.absolute()) for shard in shards]
    else:
        names = videos.names
        about["root"] = os.fspath(videos.root.absolute())
        if videos.pictures is not None:
            arrays["pictures"] = videos.pictures[places]
    if listed_in is not None:
        about["list"] = [os.fspath(listed_in.absolute()), state]
    arrays |= Names.collect(names[int(place)] for place in places).arrays()
    Table(arrays, about, kind=VIDEO_KIND).save(file)


def open_video_index(
    file: Path, *, classes: Sequence[str] | None, root: Path | None, backend: Backend
) -> LabelledVideos:
    """Open an index.

    Args:
        file: The index.
        classes: Names in the order of the labels; None for those in the index.
        root: Folder of the videos or shards, if they have been moved.
        backend: See `open_video`.

    Raises:
        ValueError: If it is damaged, its list was edited since it was written, its videos are not
            where they were, or a class is unknown.
    """
    table = Table.open(file, kind=VIDEO_KIND)
    about = table.about if isinstance(table.about, dict) else {}
    known, names = about.get("classes"), Names(table)
    place = about.get("root" if about.get("shards") is None else "paths")
    if not isinstance(known, list) or not place or "label" not in table:
        raise ValueError(f"{file} is a damaged index: {_AGAIN}")
    _require_current(file, about)
    labels = np.array(table["label"])
    counts = {len(names), len(labels), *(len(table[one]) for one in ("pictures",) if one in table)}
    if len(counts) > 1 or not len(labels) or not 0 <= labels.min() <= labels.max() < len(known):
        raise ValueError(f"{file} is a damaged index of {len(names)} videos: {_AGAIN}")
    if classes is not None:
        labels, known = _relabelled(labels, known, classes, file), list(classes)
    if about.get("shards") is None:
        folder = Path(place) if root is None else root
        _require(folder, folder.is_dir(), file)
        pictures = np.array(table["pictures"]) if "pictures" in table else None
        return VideoFiles(folder, names, labels, known, backend=backend, pictures=pictures)
    shards = [Path(path) for path in place]
    if root is not None:
        shards = [root / shard.name for shard in shards]
    for shard in shards:
        _require(shard, shard.is_file(), file)
    table.about = about["shards"]
    return VideoShards(TarIndex(shards, table), labels, known, backend=backend)


def _require_current(file: Path, about: Mapping[str, Any]) -> None:
    """Refuse an index whose list was edited: it would keep the earlier labels."""
    noted = about.get("list")
    if isinstance(noted, list) and len(noted) == 2 and isinstance(noted[0], str):
        require_unchanged(Path(noted[0]), noted[1], index=file)


def _require(path: Path, is_there: bool, file: Path) -> None:
    if not is_there:
        raise ValueError(
            f"{file} is an index of videos in {path}, which is not there: name their folder as root"
        )


def _relabelled(
    labels: NDArray[np.int32], known: Sequence[str], classes: Sequence[str], file: Path
) -> NDArray[np.int32]:
    spellings = Spellings(classes)
    found = [spellings.label(name) for name in known]
    used = np.unique(labels).tolist()
    if lacking := [known[label] for label in used if found[label] is None]:
        raise ValueError(
            f"{file} has {len(lacking)} classes that are not among the {len(classes)} given: "
            f"{listed(lacking)}"
        )
    return np.array([-1 if label is None else label for label in found], np.int32)[labels]
