"""Labelled videos by whatever names them: folders, lists, shards, an index."""

import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from eva_data.classes import find_class_files, list_names, read_class_list
from eva_data.files import VIDEO_SUFFIXES, expand_home
from eva_data.index import INDEX_SUFFIX, FolderFiles, Names, Table
from eva_data.inputs import is_video
from eva_data.labelled_videos.index import open_video_index
from eva_data.labelled_videos.lists import (
    COLUMNS,
    ClipFinder,
    DirectoryListing,
    Entry,
    Labels,
    read_path_list,
    read_table,
)
from eva_data.labelled_videos.shards import open_video_shards
from eva_data.labelled_videos.videos import LabelledVideos
from eva_data.tables import find_columns, text_lines
from eva_data.tar import expand_shards, shard_pattern

logger = logging.getLogger(__name__)

FORMS = (
    "a folder with a folder of videos for each class, a list of lines `path label` (separated by a "
    "space, a comma or ::) or `folder frames label`, a csv with the columns label and youtube_id "
    "or path, tar shards such as {0000..0009}.tar or a folder of them, or an index of "
    "`eva data verify video`"
)
_SPLITS = frozenset({"train", "training", "val", "valid", "validate", "validation", "test"})
_UCF101_LISTS = "ucfTrainTestlist"


def open_videos(
    location: str | os.PathLike[str],
    *,
    classes: Sequence[str] | str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    may_lack: bool = False,
) -> LabelledVideos:
    """Open labelled videos in any form in which they lie on disks, in a list's order or sorted.

    Args:
        location: A folder of class folders; a list of paths or of ids, see `lists`; a pattern of
            tar shards, see `open_video_shards`; or an index of `eva data verify video`.
        classes: Names in the order of the labels, or a file with them; those of a training set for
            its validation set. None takes them from the data.
        root: Folder of a list's relative paths or ids, by default the list's own; or where the
            videos of an index have been moved to.
        may_lack: Whether all videos of a list may be missing.
    """
    if isinstance(classes, str | os.PathLike):
        classes = read_class_list(classes)
    path = expand_home(location)
    shards = shard_pattern(path)
    if root is not None and (path.is_dir() or shards):
        logger.warning("root=%s has no effect on %s: it is for lists and indexes", root, path)
    below = path.parent if root is None else expand_home(root)
    if shards:
        return open_video_shards(expand_shards(shards), classes=classes)
    if path.is_dir():
        return _open_class_folders(path, classes)
    if path.suffix == INDEX_SUFFIX:
        return open_video_index(path, classes, None if root is None else below, may_lack=may_lack)
    return _open_list(path, classes, below, may_lack=may_lack)


def _open_list(
    file: Path, classes: Sequence[str] | None, root: Path, *, may_lack: bool
) -> LabelledVideos:
    if not root.is_dir() or not file.is_file() or is_video(file) or file.suffix == ".json":
        raise ValueError(f"{file} is no list of videos, or {root} not their folder: name {FORMS}")
    columns = find_columns(file, COLUMNS)
    is_table = "label" in columns.places and not {"path", "id"}.isdisjoint(columns.places)
    finder: DirectoryListing | ClipFinder = DirectoryListing(root)
    if is_table:
        labels, entries = read_table(columns, classes)
        finder = finder if "path" in columns.places else ClipFinder(root)
    else:
        labels = Labels(classes)
        entries = read_path_list(file, root, labels)
    return _place_entries(entries, labels, finder, file=file, root=root, may_lack=may_lack)


def _place_entries(
    entries: Iterable[Entry],
    labels: Labels,
    finder: DirectoryListing | ClipFinder,
    *,
    file: Path,
    root: Path,
    may_lack: bool = False,
) -> LabelledVideos:
    """Find the videos of a list on the disk; a warning counts those that are not there.

    `missing` of the result names them, `unlisted` the clips of the folder that a list of ids does
    not have. Without any video it is an error, unless all `may_lack`.
    """
    paths, numbers, frames = list[str](), list[int](), list[int]()
    seen, again, absent = set[str](), list[str](), list[Entry]()
    for entry in entries:
        clip = finder.find(entry.path)
        if clip is None:
            absent.append(entry)
            continue
        path, is_folder = clip
        if path in seen:
            again.append(f"{path} (line {entry.line})")
        seen.add(path)
        paths.append(path)
        numbers.append(entry.label)
        frames.append((entry.frames or 0) if is_folder else -1)
    absent_lines = [f"{entry.path} (line {entry.line})" for entry in absent]
    if not numbers and not may_lack:
        raise ValueError(
            f"none of the {len(absent):,} videos of {file} is in {root}: looked for "
            f"{list_names(absent_lines, 5)}; name their folder as root"
        )
    for lines, problem in ((absent_lines, "are not there and left out"), (again, "come again")):
        if lines:
            count = f"{len(lines):,} of {len(absent) + len(numbers)}"
            logger.warning("%s: %s videos %s: %s", file, count, problem, list_names(lines, 5))
    unlisted = finder.names if isinstance(finder, ClipFinder) else []
    return LabelledVideos(
        FolderFiles(root, Table(Names.collect(paths).arrays())),
        np.array(numbers, np.int32),
        labels.classes(),
        images=np.array(frames, np.int32) if max(frames, default=-1) >= 0 else None,
        missing=[entry.path for entry in absent],
        unlisted=[name for name in unlisted if name not in seen],
    )


def _open_class_folders(folder: Path, classes: Sequence[str] | None) -> LabelledVideos:
    """Open the videos of class folders, which may write the spaces of given classes in any way.

    Folders named by numbers are in their order, in which lists have numbers for labels.
    """
    listed = find_class_files(folder, VIDEO_SUFFIXES, classes=classes, exact=classes is None)
    if classes is None and all(map(str.isdecimal, listed.classes)):
        numbered = sorted(listed.classes, key=lambda name: (int(name), name))
        listed = find_class_files(folder, VIDEO_SUFFIXES, classes=numbered)
    if classes is None and len(listed.classes) > 1 and _SPLITS.issuperset(listed.classes):
        splits = ", ".join(listed.classes)
        logger.warning("%s holds the splits %s, which become classes", folder, splits)
    files = FolderFiles(folder, Table(listed.names.arrays()))
    return LabelledVideos(files, listed.labels, listed.classes)


def open_ucf101(
    location: Path, classes: Sequence[str], *, split: int = 1, root: Path | None = None
) -> LabelledVideos:
    """Open a test list of UCF-101: `ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi` in each line.

    The folder says the class, in any spelling (`Apply Eye Makeup`). The list of a `split` is in or
    beside the folder that is named; or a list is named, and `root` if the class folders are not
    beside it.
    """
    file, above = location, location.parent
    if location.is_dir():
        folders = (location, location / _UCF101_LISTS, above / _UCF101_LISTS, above)
        files = [folder / f"testlist{split:02}.txt" for folder in folders]
        file = next((path for path in files if path.is_file()), files[0])
    labels = Labels(classes)
    by_key = {_letters(name): str(label) for label, name in enumerate(classes)}
    entries = []
    for number, line in text_lines(file):
        path = re.sub(r"\s+\d+$", "", line)  # the label of a training list
        folder_label = by_key.get(_letters(Path(path).parent.name), path)
        entries.append(Entry(number, path, labels.require(folder_label, f"{file}, line {number}")))
    root = root or (location if location.is_dir() else above)
    root = root / "UCF-101" if (root / "UCF-101").is_dir() else root
    return _place_entries(entries, labels, DirectoryListing(root), file=file, root=root)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
