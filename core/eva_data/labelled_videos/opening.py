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
from typing import Any, BinaryIO

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
from eva_data.files import (
    LISTED_VIDEO_SUFFIXES,
    VIDEO_SUFFIXES,
    find_files,
    home_expanded,
)
from eva_data.index import (
    INDEX_SUFFIX,
    VIDEO_KIND,
    Names,
    Table,
    damaged,
    require_unchanged,
)
from eva_data.labelled_videos.lists import (
    COLUMNS,
    UCF101_SPLITS,
    Clips,
    Labels,
    Shelves,
    clip_name,
    columns_of,
    is_video,
    labels_of,
    place_entries,
    read_path_list,
    read_table,
    read_ucf101,
    ucf101_list,
    warn_of,
)
from eva_data.labelled_videos.sources import LabelledVideos, VideoFiles, VideoShards
from eva_data.tables import JSON_SUFFIXES
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
SHA256 = 32  # bytes
_SPLITS = frozenset({"train", "training", "val", "valid", "validate", "validation", "test"})
_LABELS = (".cls", ".json", ".txt")  # members with a label, in the order in which they count
_FIELDS = ("cls", *COLUMNS["label"])
_LONGEST = 1_000_000  # bytes of a label


def open_videos(
    location: str | os.PathLike[str],
    *,
    classes: Sequence[str] | str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    backend: Backend = "pyav",
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

    Returns:
        The videos, in the order of the list, or sorted by class and path.

    Raises:
        ValueError: If there is no such data, it is in no known form, a label has no class, none of
            its videos is there, or the decoder is not installed.
    """
    require_backend(backend)  # at once, and not with the first video
    if isinstance(classes, str | os.PathLike):
        classes = read_class_list(classes)
    if classes is not None and not len(classes):
        raise ValueError("classes is empty: name the classes in the order of the labels, or None")
    path = home_expanded(location)
    if root is not None and (path.is_dir() or is_shard_pattern(path)):
        logger.warning("root=%s has no effect on %s: it is for lists and indexes", root, path)
    if path.is_dir():
        return _open_class_folders(path, classes, backend)
    if is_shard_pattern(path):
        return open_video_shards(expand_shards(str(path)), classes=classes, backend=backend)
    if not path.is_file():
        raise ValueError(f"there is no {path}: name {FORMS}")
    if is_video(path) or path.suffix in JSON_SUFFIXES:
        raise ValueError(f"{path} is no list of videos that is known: name {FORMS}")
    below = path.parent if root is None else home_expanded(root)
    if not below.is_dir():
        raise ValueError(f"root must be a folder, and there is none at {below}")
    if path.suffix == INDEX_SUFFIX:
        return _open_index(path, classes, None if root is None else below, backend)
    columns = columns_of(path)
    finder: Shelves | Clips = Shelves(below)
    if columns is None:
        labels = Labels(classes)
        entries = read_path_list(path, below, labels)
    else:
        labels, entries = read_table(columns, classes)
        if "path" not in columns.places:
            finder = Clips(below)
    return place_entries(entries, labels, finder, file=path, root=below, backend=backend)


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

    Returns:
        The videos that are there, in the order of the list.

    Raises:
        ValueError: If there is no such folder or list, a folder is not of a class, or none of the
            videos is there.
    """
    require_backend(backend)
    if split not in UCF101_SPLITS:
        raise ValueError(f"split must be 1, 2 or 3, got {split}")
    if not location.exists():
        raise ValueError(f"there is no {location}: name the folder of UCF-101 or a list of it")
    folder = location if location.is_dir() else location.parent
    file = ucf101_list(location, split) if location.is_dir() else location
    root = folder if root is None else root
    root = root / "UCF-101" if (root / "UCF-101").is_dir() else root
    labels = Labels(classes)
    entries = read_ucf101(file, classes, labels)
    return place_entries(entries, labels, Shelves(root), file=file, root=root, backend=backend)


def video_names(
    location: str | os.PathLike[str], *, classes: str | os.PathLike[str] | None = None
) -> Iterator[str]:
    """Name the videos of a list, a folder, shards or an index, whose files need not be there.

    Args:
        location: See `open_videos`.
        classes: See `open_videos`; for lists whose labels are names.

    Yields:
        Paths, or ids with times where the list has them.

    Raises:
        ValueError: If it is in no known form.
    """
    path = home_expanded(location)
    names = None if classes is None else read_class_list(classes)
    if path.is_dir():
        yield from find_files(path, VIDEO_SUFFIXES)
    elif is_shard_pattern(path):
        for shard in expand_shards(str(path)):
            yield from (member.name for member in find_members(shard, VIDEO_SUFFIXES))
    elif not path.is_file():
        raise ValueError(f"there is no {path}: name {FORMS}")
    elif path.suffix == INDEX_SUFFIX:
        yield from Names(Table.open(path, kind=VIDEO_KIND))
    elif (columns := columns_of(path)) is not None:
        yield from map(clip_name, read_table(columns, names)[1])
    else:
        yield from map(clip_name, read_path_list(path, path.parent, Labels(names)))


# Shards


def open_video_shards(
    shards: Sequence[Path], *, classes: Sequence[str] | None, backend: Backend
) -> VideoShards:
    """Look through tar shards for videos with labels, as webdataset and video2dataset write them.

    A sample is `KEY.mp4` with `KEY.cls` (a number or the name of a class), or with `KEY.json` that
    has a field for it. Where classes are given, a caption (`KEY.txt`, or a field of the JSON) may
    name one.

    Args:
        shards: The tar files.
        classes: Names in the order of the labels; None sorts those in the shards, or takes their
            numbers.
        backend: See `open_video`.

    Raises:
        ValueError: If a shard is damaged or compressed, there is no video with a label in any, or a
            label is not of a class; the message names the member.
    """
    search = _Search(captions=classes is not None)
    found = ((number, m) for number, shard in enumerate(shards) for m in search.through(shard))
    table = table_of_members(shards, found, kind=VIDEO_KIND)
    if search.unlabelled:
        logger.warning(
            "%s videos have no label and are left out, such as %s",
            f"{len(search.unlabelled):,}", search.unlabelled[0],
        )  # fmt: skip
    if not search.codes:
        raise ValueError(
            f"no video with a label in {shards[0]} (and {len(shards) - 1} more shards): looked for "
            f"KEY.mp4 ({LISTED_VIDEO_SUFFIXES}) with KEY.cls, or KEY.json that has a label"
        )
    labels = labels_of(search.first) if classes is None else Labels(classes)
    label_of = [labels.require(text, search.first[text]) for text in search.texts]
    values = np.array(label_of, np.int32)[np.array(search.codes, np.int32)]
    return VideoShards(
        TarIndex(shards, table),
        values,
        labels.classes(),
        backend=backend,
        unlisted=search.unlabelled,
    )


class _Search:
    """Videos of shards and what their labels say.

    Args:
        captions: Whether a caption may be a label.
    """

    def __init__(self, *, captions: bool) -> None:
        self._captions = captions
        self.codes = array("i")  # of the texts, one for each video
        self.texts: dict[str, int] = {}
        self.first: dict[str, str] = {}  # where each text came first
        self.unlabelled = list[str]()

    def through(self, shard: Path) -> Iterator[Member]:
        """Yield the videos of a shard that have a label, whose codes are noted."""
        videos: dict[str, Member] = {}
        again = list[str]()
        labels: dict[str, tuple[int, str]] = {}  # key -> rank of its source, text
        with shard.open("rb") as stream:
            for member in find_members(shard, VIDEO_SUFFIXES | {*_LABELS}):
                if member.suffix in VIDEO_SUFFIXES:
                    if videos.setdefault(member.key, member) is not member:
                        again.append(member.name)
                    continue
                rank = _LABELS.index(member.suffix)
                text = self._label(stream, member, f"{shard}:{member.name}")
                if text and rank < labels.get(member.key, (len(_LABELS), ""))[0]:
                    labels[member.key] = rank, text
        warn_of(again, "%s has %s videos under keys of others, which are left out: %s", shard)
        for key, member in videos.items():
            where = f"{shard}:{member.name}"
            if key not in labels:
                self.unlabelled.append(where)
                continue
            text = labels[key][1]
            self.first.setdefault(text, where)
            self.codes.append(self.texts.setdefault(text, len(self.texts)))
            yield member

    def _label(self, stream: BinaryIO, member: Member, where: str) -> str:
        if member.suffix == ".txt" and not self._captions:
            return ""
        stream.seek(member.offset)
        content = stream.read(min(member.size, _LONGEST))
        try:
            text = content.decode("utf-8-sig").strip()
            fields = json.loads(text) if member.suffix == ".json" else {"cls": text}
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where} is not {member.suffix[1:]}: {error}") from error
        if not isinstance(fields, dict):
            raise ValueError(f"{where} is not an object of JSON with a label")
        names = (*_FIELDS, "caption") if self._captions else _FIELDS
        return next((text for name in names if (text := _label_text(fields.get(name)))), "")


def _label_text(value: Any) -> str:
    """Write a value of JSON as it would stand in a list; an only element stands for itself."""
    if isinstance(value, list) and len(value) == 1:  # "label": [3]
        value = value[0]
    return "" if value is None else str(value).strip()


# The index of a check: all that it has found out, in one file that is mapped


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
        table, names = videos.members.table, videos.members.names
        arrays |= {name: table[name][places] for name in PLACES}
        about["shards"] = table.about
        about["paths"] = [os.fspath(shard.absolute()) for shard in videos.members.shards]
    else:
        names = videos.names
        about["root"] = os.fspath(videos.root.absolute())
        if videos.images is not None:
            arrays["pictures"] = videos.images[places]
    if listed_in is not None:
        about["list"] = [os.fspath(listed_in.absolute()), state]
    arrays |= Names.collect(names[int(place)] for place in places).arrays()
    Table(arrays, about, kind=VIDEO_KIND).save(file)


def _open_index(
    file: Path, classes: Sequence[str] | None, root: Path | None, backend: Backend
) -> LabelledVideos:
    table = Table.open(file, kind=VIDEO_KIND)
    about = table.about if isinstance(table.about, dict) else {}
    known, names, shards = about.get("classes"), Names(table), about.get("shards")
    place = about.get("root" if shards is None else "paths")
    if not isinstance(known, list) or not known or not place:
        raise damaged(file, "it lacks classes or place")
    noted = about.get("list")
    if isinstance(noted, list) and len(noted) == 2 and isinstance(noted[0], str):
        require_unchanged(Path(noted[0]), noted[1], index=file)  # it would keep earlier labels
    counted = [one for one in ("label", "pictures") if one == "label" or one in table]
    table.require_equal_lengths(*counted, length=len(names))
    labels = np.array(table["label"])
    if not len(labels) or not 0 <= labels.min() <= labels.max() < len(known):
        raise damaged(file, f"labels of {len(known)} classes")
    if classes is not None:
        labels, known = _relabelled(labels, known, classes, file), list(classes)
    paths = [Path(place)] if shards is None else [Path(path) for path in place]
    if root is not None:
        paths = [root] if shards is None else [root / path.name for path in paths]
    for path in paths:
        if not (path.is_dir() if shards is None else path.is_file()):
            raise ValueError(
                f"{file} is an index of videos in {path}, which is not there: name their folder as "
                "root"
            )
    if shards is None:
        images = np.array(table["pictures"]) if "pictures" in table else None
        return VideoFiles(paths[0], names, labels, known, backend=backend, images=images)
    table.about = shards
    return VideoShards(TarIndex(paths, table), labels, known, backend=backend)


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
