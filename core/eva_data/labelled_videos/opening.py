"""Videos with labels by whatever names them.

videos = open_videos("kinetics400/train.csv", root="kinetics400/train")
with videos.open(0) as video:
    frames = video.frames([0])
"""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from eva_data.classes import find_class_folders, read_class_list
from eva_data.files import VIDEO_SUFFIXES, find_files, home_expanded
from eva_data.index import VIDEO_KIND, Names, Table
from eva_data.labelled_videos.clip_ids import clip_name, place_clips
from eva_data.labelled_videos.entries import Labels
from eva_data.labelled_videos.labelled_videos import LabelledVideos
from eva_data.labelled_videos.path_lists import is_video, read_path_list
from eva_data.labelled_videos.placing import place_entries
from eva_data.labelled_videos.tables import TableList, has_columns
from eva_data.labelled_videos.video_files import open_class_folders
from eva_data.labelled_videos.video_index import SUFFIX, open_video_index
from eva_data.labelled_videos.video_shards import open_video_shards
from eva_data.tar import expand_shards, find_members, is_shard_pattern
from eva_data.video.source import Backend, require_backend
from eva_runs.required_data import require_data

logger = logging.getLogger(__name__)

FORMS = (
    "a folder with a folder of videos for each class, a list of lines `path label` (separated by a "
    "space, a comma or ::) or `folder frames label`, a csv with the columns label and youtube_id "
    "or path, a JSON list of filename and label, tar shards such as {0000..0009}.tar, or an index "
    "of tools/verify_data.py video"
)


def require_videos(location: str, *, name: str) -> None:
    """Refuse a place where no labelled videos can be, before anything heavy is imported.

    Args:
        location: See `open_videos`.
        name: Option or setting that names it.

    Raises:
        ValueError: If nothing is there, or a folder without class folders.
    """
    require_data(location, name=name, forms=FORMS)
    path = home_expanded(location)
    if path.is_dir():
        find_class_folders(path, warn=False)


def open_videos(
    location: str | os.PathLike[str],
    *,
    classes: Sequence[str] | str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    backend: Backend = "pyav",
) -> LabelledVideos:
    """Open labelled videos in any form in which they lie on disks.

    Args:
        location: A folder of class folders; a list of paths or of ids, see `path_lists`,
            `tables` and `clip_ids`; a pattern of tar shards, see `video_shards`; or an index of
            tools/verify_data.py, see `video_index`.
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
    if path.is_dir():
        _warn_of_root(root, path)
        return open_class_folders(path, classes=classes, backend=backend)
    if is_shard_pattern(path):
        _warn_of_root(root, path)
        return open_video_shards(expand_shards(str(path)), classes=classes, backend=backend)
    if not path.is_file():
        raise ValueError(f"there is no {path}: name {FORMS}")
    if is_video(path):
        raise ValueError(f"{path} is a video and not a list of videos: name {FORMS}")
    below = path.parent if root is None else home_expanded(root)
    if not below.is_dir():
        raise ValueError(f"root must be a folder, and there is none at {below}")
    if path.suffix == SUFFIX:
        given = None if root is None else below
        return open_video_index(path, classes=classes, root=given, backend=backend)
    if has_columns(path):
        return _open_table(TableList(path), below, classes, backend)
    labels = Labels(classes)
    entries = read_path_list(path, below, labels)
    return place_entries(entries, labels, file=path, root=below, backend=backend)


def _warn_of_root(root: str | os.PathLike[str] | None, path: Path) -> None:
    if root is not None:
        logger.warning("root=%s has no effect on %s: it is for lists and indexes", root, path)


def _open_table(
    table: TableList, root: Path, classes: Sequence[str] | None, backend: Backend
) -> LabelledVideos:
    labels = table.labels(classes)
    if table.by_id:
        return place_clips(table, labels, root=root, backend=backend)
    entries = table.entries(labels)
    return place_entries(entries, labels, file=table.file, root=root, backend=backend)


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
    if path.is_dir():
        yield from find_files(path, VIDEO_SUFFIXES)
    elif is_shard_pattern(path):
        for shard in expand_shards(str(path)):
            yield from (member.name for member in find_members(shard, VIDEO_SUFFIXES))
    elif not path.is_file():
        raise ValueError(f"there is no {path}: name {FORMS}")
    elif path.suffix == SUFFIX:
        yield from Names(Table.open(path, kind=VIDEO_KIND))
    elif has_columns(path):
        for row in TableList(path).rows():
            yield row.path if row.times is None else clip_name(row.path, row.times)
    else:
        labels = Labels(None if classes is None else read_class_list(classes))
        yield from (entry.path for entry in read_path_list(path, path.parent, labels))
