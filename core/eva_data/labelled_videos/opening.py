"""Videos with labels by whatever names them, and the index of what a check has found out of them.

videos = open_videos("kinetics400/train.csv", root="kinetics400/train")
with videos.open(0) as video:
    frames = video.frames([0])
"""

import json
import logging
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eva_data.classes import (
    Spellings,
    files_of_classes,
    find_class_folders,
    labels_of_folders,
    listed,
    read_class_list,
)
from eva_data.files import VIDEO_SUFFIXES, home_expanded
from eva_data.index import INDEX_SUFFIX, VIDEO_KIND, Names, Table, damaged, require_unchanged
from eva_data.labelled_videos.lists import (
    COLUMNS,
    Clips,
    Labels,
    Shelves,
    columns_of,
    is_video,
    place_entries,
    read_path_list,
    read_table,
    read_ucf101,
)
from eva_data.labelled_videos.sources import LabelledVideos, VideoFiles, VideoShards
from eva_data.tar import (
    PLACES,
    Member,
    TarIndex,
    expand_shards,
    find_members,
    is_shard_pattern,
    table_of_members,
)
from eva_data.video.source import Backend, require_backend

logger = logging.getLogger(__name__)

FORMS = (
    "a folder with a folder of videos for each class, a list of lines `path label` (separated by a "
    "space, a comma or ::) or `folder frames label`, a csv with the columns label and youtube_id "
    "or path, tar shards such as {0000..0009}.tar, or an index of `eva data verify video`"
)
_SPLITS = frozenset({"train", "training", "val", "valid", "validate", "validation", "test"})
_FIELDS = ("cls", *COLUMNS["label"])  # of JSON
_LONGEST = 1_000_000  # bytes of a label


def open_videos(
    location: str | os.PathLike[str],
    *,
    classes: Sequence[str] | str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    backend: Backend = "pyav",
    may_lack: bool = False,
) -> LabelledVideos:
    """Open labelled videos in any form in which they lie on disks.

    Args:
        location: A folder of class folders; a list of paths or of ids, see `lists`; a pattern of
            tar shards, see `open_video_shards`; or an index of `eva data verify video`.
        classes: Names in the order of the labels, or a file with them; those of a training set
            for its validation set. None takes them from the data.
        root: Folder of a list's relative paths or ids, by default the list's own; or where the
            videos of an index have been moved to.
        backend: Decoder, see `open_video`.
        may_lack: Whether all videos of a list may be missing.

    Returns:
        The videos, in the order of the list, or sorted by class and path.

    Raises:
        ValueError: If there is no such data, it is in no known form, a label has no class, none of
            its videos is there, or the decoder is not installed.
    """
    require_backend(backend)  # at once, and not with the first video
    if isinstance(classes, str | os.PathLike):
        classes = read_class_list(classes)
    path = home_expanded(location)
    if root is not None and (path.is_dir() or is_shard_pattern(path)):
        logger.warning("root=%s has no effect on %s: it is for lists and indexes", root, path)
    if path.is_dir():
        return _open_class_folders(path, classes, backend)
    if is_shard_pattern(path):
        return open_video_shards(expand_shards(str(path)), classes=classes, backend=backend)
    below = path.parent if root is None else home_expanded(root)
    if path.suffix == INDEX_SUFFIX:
        moved = None if root is None else below
        return _open_index(path, classes, moved, backend, may_lack=may_lack)
    if not below.is_dir():
        raise ValueError(f"root must be a folder, and there is none at {below}")
    if not path.is_file() or is_video(path) or path.suffix == ".json":
        raise ValueError(f"{path} is no list of videos: name {FORMS}")
    columns = columns_of(path)
    if columns is None:
        labels = Labels(classes)
        entries = read_path_list(path, below, labels)
    else:
        labels, entries = read_table(columns, classes)
    of_ids = columns is not None and "path" not in columns.places
    finder = Clips(below) if of_ids else Shelves(below)
    return place_entries(
        entries, labels, finder, file=path, root=below, backend=backend, may_lack=may_lack
    )


def _open_class_folders(
    folder: Path, classes: Sequence[str] | None, backend: Backend
) -> VideoFiles:
    """Open the videos in a folder for each class, searched with its subfolders.

    A folder may write the spaces of its class as underscores.
    """
    found = find_class_folders(folder)
    if len(found) > 1 and _SPLITS.issuperset(found):
        logger.warning("%s holds the splits %s, which become classes", folder, ", ".join(found))
    names = found if classes is None else classes
    labels = labels_of_folders(found, names, folder, exact=classes is None)
    numbers = array("i")
    files = Names.collect(files_of_classes(folder, labels, numbers, suffixes=VIDEO_SUFFIXES))
    return VideoFiles(folder, files, np.array(numbers, np.int32), names, backend=backend)


def open_ucf101(
    location: Path,
    classes: Sequence[str],
    *,
    split: int = 1,
    root: Path | None = None,
    backend: Backend = "pyav",
) -> LabelledVideos:
    """Open the videos of a test list of UCF-101.

    Args:
        location: Folder of the class folders, or a list.
        classes: Names in the order of the labels, in any spelling: `Apply Eye Makeup`.
        split: Number of the test list, if `location` is a folder.
        root: Folder of the class folders, if `location` is a list and they are not beside it.
        backend: See `open_video`.
    """
    require_backend(backend)
    labels = Labels(classes)
    file, entries = read_ucf101(location, split, classes, labels)
    root = root or (location if location.is_dir() else location.parent)
    root = root / "UCF-101" if (root / "UCF-101").is_dir() else root
    return place_entries(entries, labels, Shelves(root), file=file, root=root, backend=backend)


def open_video_shards(
    shards: Sequence[Path], *, classes: Sequence[str] | None, backend: Backend
) -> VideoShards:
    """Look through tar shards for videos with labels, as webdataset and video2dataset write them.

    A sample is `KEY.mp4` with `KEY.cls` (a number or the name of a class), or with `KEY.json` that
    has a field for it.
    """
    codes, texts, unlabelled = array("i"), dict[str, int](), list[str]()
    first: dict[str, str] = {}  # where each text came first

    def found() -> Iterator[tuple[int, Member]]:
        for number, shard in enumerate(shards):
            for video, text in _labelled(shard):
                if not text:
                    unlabelled.append(f"{shard}:{video.name}")
                    continue
                first.setdefault(text, f"{shard}:{video.name}")
                codes.append(texts.setdefault(text, len(texts)))
                yield number, video

    table = table_of_members(shards, found(), kind=VIDEO_KIND)
    if not codes:
        raise ValueError(
            f"no video with a label in {shards[0]} (and {len(shards) - 1} more shards): looked for "
            "KEY.mp4 with KEY.cls, or KEY.json that has a label"
        )
    if unlabelled:
        logger.warning(
            "videos without a label of their own are left out: %s", listed(unlabelled, 5)
        )
    labels = Labels.among(first) if classes is None else Labels(classes)
    numbers = np.array([labels.require(text, first[text]) for text in texts], np.int32)
    return VideoShards(
        TarIndex(shards, table),
        numbers[np.array(codes, np.int32)],
        labels.classes(),
        backend=backend,
        unlisted=unlabelled,
    )


def _labelled(shard: Path) -> Iterator[tuple[Member, str]]:
    """Yield the videos of a shard with their labels; nothing for a second video of a key."""
    videos, again = dict[str, Member](), list[Member]()
    labels: dict[str, str] = {}
    with shard.open("rb") as stream:
        for member in find_members(shard, VIDEO_SUFFIXES | {".cls", ".json"}):
            if member.suffix in VIDEO_SUFFIXES:
                if videos.setdefault(member.key, member) is not member:
                    again.append(member)
                continue
            stream.seek(member.offset)
            text = _label_of(member, stream.read(min(member.size, _LONGEST)), shard)
            if member.suffix == ".cls" or member.key not in labels:
                labels[member.key] = text
    yield from ((video, labels.get(key, "")) for key, video in videos.items())
    yield from ((video, "") for video in again)


def _label_of(member: Member, content: bytes, shard: Path) -> str:
    try:
        text = content.decode("utf-8-sig").strip()
        fields = json.loads(text) if member.suffix == ".json" else {"cls": text}
        values = [fields.get(name) for name in _FIELDS]
    except (ValueError, RecursionError, AttributeError) as error:
        kind = member.suffix[1:]
        raise ValueError(f"{shard}:{member.name} is no {kind} with a label: {error}") from error
    value = next((one for one in values if one is not None), "")
    only = value[0] if isinstance(value, list) and len(value) == 1 else value  # "label": [3]
    return str(only).strip()


def write_video_index(
    file: Path,
    videos: VideoFiles | VideoShards,
    kept: Sequence[int],
    facts: Mapping[str, NDArray[Any]],
    *,
    listed_in: Path | None = None,
    state: dict[str, Any] | None = None,
) -> None:
    """Write an index of some of the videos, completely or not at all.

    Args:
        file: The index; it ends in `.safetensors`.
        videos: The videos.
        kept: Indexes of those that the index is to list.
        facts: Arrays about all videos by name, see `eva_data.checks.videos.read_videos`.
        listed_in: List of the videos; None for a folder, shards or an index.
        state: What `state_of` gave of the list before it was read.
    """
    places = np.asarray(kept, np.int64)
    arrays = {name: np.ascontiguousarray(values[places]) for name, values in facts.items()}
    arrays["label"] = videos.labels[places]
    about: dict[str, Any] = {"classes": list(videos.classes), "shards": None}
    if isinstance(videos, VideoShards):
        table = videos.members.table
        arrays |= {name: table[name][places] for name in PLACES}
        about["shards"] = table.about
        about["paths"] = [os.fspath(shard.absolute()) for shard in videos.members.shards]
    else:
        about["root"] = os.fspath(videos.root.absolute())
        if videos.images is not None:
            arrays["pictures"] = videos.images[places]
    if listed_in is not None:
        about["list"] = [os.fspath(listed_in.absolute()), state]
    arrays |= Names.collect(videos.name(int(place)) for place in places).arrays()
    Table(arrays, about, kind=VIDEO_KIND).save(file)


def _open_index(
    file: Path,
    classes: Sequence[str] | None,
    root: Path | None,
    backend: Backend,
    *,
    may_lack: bool,
) -> LabelledVideos:
    table = Table.open(file, kind=VIDEO_KIND)
    names = Names(table)
    try:
        about = dict(table.about)
        known, shards = list(about["classes"]), about["shards"]
        paths = [Path(path) for path in ([about["root"]] if shards is None else about["paths"])]
        noted, state = about.get("list") or (None, None)
        labels = np.array(table["label"])
        if not 0 <= labels.min() <= labels.max() < len(known):
            raise IndexError(f"labels of {len(known)} classes")
    except (TypeError, ValueError, LookupError) as error:
        raise damaged(file, repr(error)) from error
    if noted is not None:
        require_unchanged(Path(noted), state, index=file)  # it would keep earlier labels
    images = np.array(table["pictures"]) if "pictures" in table else None
    table.require_equal_lengths("label", *["pictures"] * ("pictures" in table), length=len(names))
    if classes is not None:
        labels, known = _relabelled(labels, known, classes, file), list(classes)
    if root is not None:
        paths = [root] if shards is None else [root / path.name for path in paths]
    if (gone := [path for path in paths if not path.exists()]) and not may_lack:
        raise ValueError(
            f"{file} is an index of videos in {gone[0]}, which is not there: name their folder as "
            "root"
        )
    if shards is None:
        return VideoFiles(paths[0], names, labels, known, backend=backend, images=images)
    table.about = shards
    return VideoShards(TarIndex(paths, table), labels, known, backend=backend)


def _relabelled(
    labels: NDArray[np.int32], known: Sequence[str], classes: Sequence[str], file: Path
) -> NDArray[np.int32]:
    """Number the labels by other classes."""
    spellings = Spellings(classes)
    found = [spellings.label(name) for name in known]
    if lacking := [known[label] for label in np.unique(labels).tolist() if found[label] is None]:
        raise ValueError(
            f"{file} has {len(lacking)} classes that are not among the {len(classes)} given: "
            f"{listed(lacking)}"
        )
    return np.array([-1 if label is None else label for label in found], np.int32)[labels]
