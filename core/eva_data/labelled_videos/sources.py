"""Labelled videos as samples by whatever names them, and the index of what a check found."""

import hashlib
import json
import logging
import os
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from eva_data.checks.findings import Findings
from eva_data.classes import find_class_files, list_names, read_class_list
from eva_data.files import VIDEO_SUFFIXES, expand_home, require_regular_file
from eva_data.index import (
    INDEX_SUFFIX,
    VIDEO_KIND,
    FolderFiles,
    Names,
    StoredFiles,
    Table,
    damaged,
    require_unchanged,
)
from eva_data.inputs import is_video
from eva_data.labelled_videos.lists import (
    COLUMNS,
    ClipFinder,
    DirectoryListing,
    Entry,
    Labels,
    read_path_list,
    read_table,
)
from eva_data.samples import LabelledSamples
from eva_data.tables import find_columns, text_lines
from eva_data.tar import (
    Member,
    TarIndex,
    expand_shards,
    group_members,
    index_shards,
    is_shard_pattern,
    table_of_members,
)
from eva_data.video.source import (
    RawFrames,
    UnreadableVideoError,
    VideoSource,
    open_video,
)

logger = logging.getLogger(__name__)

FORMS = (
    "a folder with a folder of videos for each class, a list of lines `path label` (separated by a "
    "space, a comma or ::) or `folder frames label`, a csv with the columns label and youtube_id "
    "or path, tar shards such as {0000..0009}.tar, or an index of `eva data verify video`"
)
_SPLITS = frozenset({"train", "training", "val", "valid", "validate", "validation", "test"})
_FIELDS = ("cls", *COLUMNS["label"])  # of JSON
_UCF101_LISTS = "ucfTrainTestlist"


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
    if root is not None and (path.is_dir() or is_shard_pattern(path)):
        logger.warning("root=%s has no effect on %s: it is for lists and indexes", root, path)
    below = path.parent if root is None else expand_home(root)
    if path.is_dir():
        return _open_class_folders(path, classes)
    if is_shard_pattern(path):
        return open_video_shards(expand_shards(str(path)), classes=classes)
    if path.suffix == INDEX_SUFFIX:
        return _open_index(path, classes, None if root is None else below, may_lack=may_lack)
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


def open_video_shards(shards: Sequence[Path], *, classes: Sequence[str] | None) -> LabelledVideos:
    """Look through tar shards for videos with labels, as webdataset and video2dataset write them.

    A sample is `KEY.mp4` with `KEY.cls` (a number or the name of a class), or with `KEY.json` that
    has a field for it.
    """
    table = index_shards(shards, _index_videos, Findings({}), kind=VIDEO_KIND)
    files, written = TarIndex(shards, table), [*Names(table, "labels")]
    first = dict[str, str]()  # where each label comes first; without one, "" does
    for index, label in enumerate(written):
        first.setdefault(label, files.sample_id(index))
    unlabelled = [files.sample_id(index) for index, label in enumerate(written) if not label]
    first.pop("", None)
    if not first:
        raise ValueError(
            f"no video with a label in {shards[0]} (and {len(shards) - 1} more shards): looked for "
            "KEY.mp4 with KEY.cls, or KEY.json that has a label"
        )
    if unlabelled:
        shown = list_names(unlabelled, 5)
        logger.warning("videos without a label of their own are left out: %s", shown)
    labels = Labels.among(first) if classes is None else Labels(classes)
    numbers = {label: labels.require(label, where) for label, where in first.items()}
    arrays = {name: table[name] for name in table if not name.startswith("labels.")}
    members = Table(arrays, table.about, kind=VIDEO_KIND)
    return LabelledVideos(
        TarIndex(shards, members.select(np.array(written) != "")),
        np.array([numbers[label] for label in written if label], np.int32),
        labels.classes(),
        unlisted=unlabelled,
    )


def _index_videos(shard: Path, _: Findings) -> Table:
    """Look through a shard for videos: arrays of `table_of_members`, and `labels.*`, the labels.

    A video has none, "", without a file of it, or behind another video of its key.
    """
    videos, labels = list[Member](), list[str]()
    with shard.open("rb") as stream:
        for members in group_members(shard, VIDEO_SUFFIXES | {".cls", ".json"}):
            label = ""
            for member in sorted(members, key=lambda member: member.suffix):
                if member.suffix in (".cls", ".json") and not label:
                    stream.seek(member.offset)
                    label = _label_of(member, stream.read(member.size), shard)
            for member in members:
                if member.suffix in VIDEO_SUFFIXES:
                    videos.append(member)
                    labels.append(label)
                    label = ""
    table = table_of_members(shard, videos, kind=VIDEO_KIND)
    arrays = {**table, **Names.collect(labels, "labels").arrays()}
    return Table(arrays, table.about, kind=VIDEO_KIND)


def _label_of(member: Member, content: bytes, shard: Path) -> str:
    try:
        label = content.decode("utf-8-sig").strip()
        fields = json.loads(label) if member.suffix == ".json" else {"cls": label}
        values = [fields.get(name) for name in _FIELDS]
    except (ValueError, RecursionError, AttributeError) as error:
        kind = member.suffix[1:]
        raise ValueError(f"{shard}:{member.name} is no {kind} with a label: {error}") from error
    value = next((candidate for candidate in values if candidate is not None), "")
    only = value[0] if isinstance(value, list) and len(value) == 1 else value  # "label": [3]
    return str(only).strip()


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


def _open_index(
    file: Path, classes: Sequence[str] | None, root: Path | None, *, may_lack: bool
) -> LabelledVideos:
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
