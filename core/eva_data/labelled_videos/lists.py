"""Lists of videos with labels: lines, tables of paths or ids, UCF-101; and where the videos lie.

    abseiling/-3B32lodo2M_000059_000069.mp4 0          a space: the label is what follows the last
    videos/a, b.mp4,12                                 a comma
    videos/a b.mp4::12                                 two colons
    frames/-3B32lodo2M 300 0                           a folder of images, their number, the label

A list of lines, as VideoMAE, V-JEPA, InternVideo, mmaction2 and EVA have them, has one separator,
which is found out, and no header. A table (CSV, TSV) names its columns, any of `COLUMNS`:

    label,youtube_id,time_start,time_end,split
    testifying,---QUuC4vJs,84,94,train

The clips of a list of ids lie in a folder that is flat or has any subfolders, each as
`ID_000010_000020.mp4` (cvdf's archives), `ID_10_20.mp4`, or else `ID.mp4` (their replacements).
"""

import contextlib
import itertools
import logging
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from eva_data.classes import Spellings, listed
from eva_data.files import VIDEO_SUFFIXES, find_files
from eva_data.index import Names
from eva_data.labelled_videos.sources import VideoFiles
from eva_data.tables import Columns, find_columns, rows_of_table, text_lines
from eva_data.video.source import Backend

logger = logging.getLogger(__name__)

COLUMNS = {
    "id": ("youtube_id", "video_id", "ytid", "yt_id", "youtubeid", "videoid", "vid", "id"),
    "path": (
        *("path", "filename", "file", "file_name", "filepath", "file_path", "video", "video_path"),
        *("clip_path", "frame_dir", "video_name"),
    ),
    "label": ("label", "class", "class_name", "label_name", "action", "category", "labels"),
    "start": ("time_start", "start_time", "start", "start_sec", "clip_start"),
    "end": ("time_end", "end_time", "end", "end_sec", "clip_end"),
    "frames": ("total_frames", "num_frames"),
    "split": ("split", "subset"),
}
FORMS = "`path label`, `path,label`, `path::label` or `folder number_of_frames label`"
MOST_CLASSES = 100_000  # that numbers alone may stand for
ID_LENGTH = 11  # characters of a YouTube id
UCF101_SPLITS = (1, 2, 3)
_UCF101_LISTS = "ucfTrainTestlist"
_MOST_FRAMES = 100_000_000  # of a video; more is a mistake, and is not counted in 32 bits
_TRIED = 100  # lines that are looked at, to find out the form of a list
_SHOWN = 5  # names in a warning
_NUMBER = re.compile(r"[+-]?\d{1,18}")
_SPAN = r"_(\d+)(?:\.\d+)?_(\d+)(?:\.\d+)?"
_TIMES = re.compile(f"(.+){_SPAN}")
_NAMED = re.compile(rf"([\w-]{{{ID_LENGTH}}})(?:{_SPAN})?(?![\w-])", re.ASCII)
_SUFFIXES = (*sorted(VIDEO_SUFFIXES), *sorted(suffix.upper() for suffix in VIDEO_SUFFIXES))


class Labels:
    """Labels of a list, written as numbers or as names of classes.

    Args:
        classes: Names in the order of the labels; None if they are not known, and the list has
            numbers.
    """

    def __init__(self, classes: Sequence[str] | None) -> None:
        self._classes = classes
        self._spellings = None if classes is None else Spellings(classes)
        self._smallest, self._largest = MOST_CLASSES, -1

    def read(self, text: str) -> int | None:
        """Read a label, None if it is neither a number nor the name of a class."""
        if _NUMBER.fullmatch(text):
            return int(text)
        return None if self._spellings is None else self._spellings.label(text)

    def require(self, text: str, where: str) -> int:
        """Read a label that has a class.

        Args:
            text: The label.
            where: List and line.

        Raises:
            ValueError: If it has none.
        """
        label = self.read(text)
        most = MOST_CLASSES if self._classes is None else len(self._classes)
        if label is None or not 0 <= label < most:
            known = f"numbers from 0 to {most - 1}, as no classes are given"
            if self._classes is not None:
                known = f"0 to {most - 1} or the classes {listed(list(self._classes), 4)}"
            raise ValueError(f"{where} has the label {text!r}, and labels are {known}")
        self._smallest, self._largest = min(self._smallest, label), max(self._largest, label)
        return label

    def classes(self) -> list[str]:
        """Name the classes: as given, or by the numbers up to the largest label."""
        if self._classes is not None:
            return list(self._classes)
        if 0 < self._smallest <= self._largest:
            logger.warning(
                "labels are %d to %d, and count from 0: no video has the label 0",
                self._smallest, self._largest,
            )  # fmt: skip
        return [str(label) for label in range(self._largest + 1)]


def labels_of(first: Mapping[str, str]) -> Labels:
    """Find out which classes labels mean: their numbers, or else their names, sorted.

    Args:
        first: Label -> where it comes first.

    Raises:
        ValueError: If some are numbers and some are names: one slip would change all classes.
    """
    numbers = [text for text in first if _NUMBER.fullmatch(text)]
    names = [text for text in first if not _NUMBER.fullmatch(text)]
    if names and numbers:
        raise ValueError(
            f"{first[names[0]]} has the label {names[0]!r}, and {first[numbers[0]]} has "
            f"{numbers[0]!r}: labels are all numbers or all names, unless the classes are given"
        )
    return Labels(sorted(names) if names else None)


class Entry(NamedTuple):
    """A video as a list names it.

    Attributes:
        line: Number of its line, from 1.
        path: Path as it is written there, or its id.
        label: Number of its class.
        frames: Number of its frames if it is a folder of images and the list says so.
        times: Start and end in seconds, where the list says them.
    """

    line: int
    path: str
    label: int
    frames: int | None = None
    times: tuple[int, int] | None = None


# Lines `path label`

Split = Callable[[str, Labels], "tuple[str, str] | None"]  # path and label of a line


def _at(separator: str) -> Split:
    """Make the function that splits a line at the last place of a separator."""

    def split(line: str, labels: Labels) -> tuple[str, str] | None:
        path, _, text = line.rpartition(separator)
        path, text = _unquoted(path.strip()), _unquoted(text.strip())
        return (path, text) if path and labels.read(text) is not None else None

    return split


def _at_space(line: str, labels: Labels) -> tuple[str, str] | None:
    """Split a line at a space: before a number, or before the name of a class."""
    spaces = [*re.finditer(r"\s+", line)]
    if spaces and line[spaces[-1].end() :].lstrip("+-").isdigit():
        del spaces[:-1]
    parts = [(line[: space.start()], line[space.end() :]) for space in spaces]
    found = {
        (_unquoted(path), _unquoted(text))
        for path, text in parts
        if labels.read(_unquoted(text)) is not None and not path.endswith((",", "::"))
    }
    if len(found) > 1:  # "x.mp4 tap dancing" where dancing is a class too
        found = {(path, text) for path, text in found if is_video(path)}
    return next(iter(found)) if len(found) == 1 else None


_SEPARATORS: dict[str, Split] = {"a space": _at_space, "','": _at(","), "'::'": _at("::")}
_NO_CLASSES = Labels(None)


def is_video(path: str | Path) -> bool:
    """Test whether a path has the suffix of a video."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def _unquoted(text: str) -> str:
    """Take away the quotes in which pandas and csv write what holds the separator."""
    if len(text) > 2 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"')
    return text


def read_path_list(file: Path, root: Path, labels: Labels) -> Iterator[Entry]:
    """Read a list of lines `path label`.

    Args:
        file: The list.
        root: Folder of relative paths: it decides whether `a 300 0` is a folder of 300 images.
        labels: Reader of the labels.

    Yields:
        The videos, in the order of the list.

    Raises:
        ValueError: If it has no line, a line is not of its form, or a label is wrong; the message
            names the line.
    """
    head = [line for _, line in itertools.islice(text_lines(file), _TRIED)]
    if not head:
        raise ValueError(f"{file} is empty: it must have a line for each video, {FORMS}")
    separator = _find_separator(file, head, labels)
    split = _SEPARATORS[separator]
    with_frames = _has_frames(head, root, split, labels)
    for number, line in text_lines(file):
        where = f"{file}, line {number}"
        found = split(line, labels)
        if found is None:
            parts = line.replace("::", " ").replace(",", " ").split()
            if len(parts) > 1:
                labels.require(parts[-1], where)
            raise ValueError(
                f"{where} is {line!r}, and not split by {separator} as others: expected {FORMS}"
            )
        path, frames = found[0], None
        if with_frames:
            inner = split(path, _NO_CLASSES)
            if inner is None or int(inner[1]) < 1 or is_video(inner[0]):
                raise ValueError(f"{where} is {line!r}, and not `folder number_of_frames label`")
            path, frames = inner[0], int(inner[1])
        yield Entry(number, path, labels.require(found[1], where), frames)


def _find_separator(file: Path, head: Sequence[str], labels: Labels) -> str:
    """Name the separator that splits the first lines, or as many of them as possible."""
    paths: dict[str, list[str]] = {}
    for name, split in _SEPARATORS.items():
        found = itertools.takewhile(bool, (split(line, labels) for line in head))
        paths[name] = [one[0] for one in found if one]
    most = max(map(len, paths.values()))
    best = [name for name in paths if len(paths[name]) == most]
    if len(best) > 1 and most:
        best = [name for name in best if all(map(is_video, paths[name]))]
        if len(best) != 1:
            raise ValueError(
                f"{file} can be split in several ways, such as {head[0]!r}: write numbers for the "
                "labels, or '::' between path and label"
            )
    return best[0]


def _has_frames(head: Sequence[str], root: Path, split: Split, labels: Labels) -> bool:
    """Find out whether the list is of folders of images, `folder number_of_frames label`.

    The disk decides whether `a 3` is a folder of three images or a name; if nothing is there, it
    is a folder.
    """
    shelves = Shelves(root)
    for line in head:
        found = split(line, labels)
        inner = None if found is None else split(found[0], _NO_CLASSES)
        if found is None or inner is None or shelves.find_path(found[0]) is not None:
            return False
        if shelves.find_path(inner[0]) is not None:
            return True
    return True


def list_line(path: str, label: int) -> str | None:
    """Write a line `path label` that is read as it was meant; None for a path that cannot be.

    Args:
        path: Path of the video.
        label: Its label.
    """
    if not path or path.strip() != path or "\n" in path or "\r" in path:
        return None
    if path[0] == path[-1] == '"' or path.endswith((",", "::")):
        path = '"' + path.replace('"', '""') + '"'
    return f"{path} {label}"


# Tables of paths or ids


def columns_of(file: Path) -> Columns | None:
    """Find the columns of a table of videos; None for a list of lines."""
    with contextlib.suppress(ValueError):  # of what is no table
        columns = find_columns(file, COLUMNS)
        if len(columns.places) > 1 or (columns.places and len(columns.names) == 1):
            return columns
    return None


def read_table(columns: Columns, classes: Sequence[str] | None) -> tuple[Labels, Iterator[Entry]]:
    """Read a table of paths, or of ids if it has no paths.

    Args:
        columns: Its columns.
        classes: Names in the order of the labels; None sorts the names in the table, or takes its
            numbers.

    Returns:
        The reader of the labels, and the videos in the order of the table.

    Raises:
        ValueError: If it lacks a column, has no row, several splits, or labels of two kinds; while
            it is read, if a row is incomplete or its label is wrong.
    """
    key = columns.places.get("path")
    key = columns.require("id", COLUMNS["id"]) if key is None else key
    label, split = columns.require("label", COLUMNS["label"]), columns.places.get("split")
    first, splits = dict[str, str](), set[str]()
    for where, _, cells in _rows(columns, key, label):
        first.setdefault(cells[label], where)
        splits.add("" if split is None else cells[split])
    if not first:
        raise ValueError(f"{columns.file} has a header and no video")
    if len(splits) > 1:
        shown = ", ".join(sorted(one or "(empty)" for one in splits))
        raise ValueError(f"{columns.file} holds several splits, {shown}: write a list for each")
    labels = labels_of(first) if classes is None else Labels(classes)
    return labels, _entries(columns, key, label, labels)


def _rows(columns: Columns, key: int, label: int) -> Iterator[tuple[str, int, list[str]]]:
    for number, row in rows_of_table(columns, is_row=lambda cells: True):
        where = f"{columns.file}, line {number}"
        if row is None:
            raise ValueError(
                f"{where} does not have {len(columns.names)} cells as the header: what holds "
                f"{columns.separator!r} must be in quotes"
            )
        cells = [cell.strip() for cell in row]
        if not cells[key] or not cells[label]:
            raise ValueError(f"{where} lacks its {columns.names[label if cells[key] else key]}")
        yield where, number, cells


def _entries(columns: Columns, key: int, label: int, labels: Labels) -> Iterator[Entry]:
    def integer(role: str) -> int | None:
        place = columns.places.get(role)
        if place is None:
            return None
        try:
            return int(float(cells[place]))
        except (ValueError, OverflowError):
            raise ValueError(
                f"{where} has {columns.names[place]} {cells[place]!r}, which is not a number"
            ) from None

    for where, number, cells in _rows(columns, key, label):
        start, end = integer("start"), integer("end")
        times = None if start is None or end is None else (start, end)
        yield Entry(
            number, cells[key], labels.require(cells[label], where), integer("frames"), times
        )


# Where the videos lie


class Finder(Protocol):
    """Finds the videos of a list on the disk."""

    def find(self, entry: Entry) -> tuple[str, bool] | None:
        """Return a path on the disk and whether it is a folder (of images), or None."""


class Shelves:
    """The files in folders, each of which is listed once.

    No file is looked up on its own, which on a network drive takes minutes for a list of Kinetics.

    Args:
        root: Folder of relative paths.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[str, set[str]] = {}
        self._folders: dict[str, set[str]] = {}

    def find(self, entry: Entry) -> tuple[str, bool] | None:
        """See `Finder`."""
        return self.find_path(entry.path)

    def find_path(self, path: str) -> tuple[str, bool] | None:
        """Find a video by its path, absolute or below the root; the suffix may differ or lack."""
        folder, name = os.path.split(path.rstrip("/"))
        if folder not in self._files:
            self._list(folder)
        files = self._files[folder]
        if name in files:
            return path, False
        stem, suffix = os.path.splitext(name)  # noqa: PTH122 (millions of names)
        stems = (name, stem) if suffix.lower() in VIDEO_SUFFIXES else (name,)
        for known in _SUFFIXES:
            for start in stems:
                if start + known in files:
                    return os.path.join(folder, start + known), False  # noqa: PTH118
        if name in self._folders[folder]:
            return path, True
        return self.find_path(path.replace("\\", "/")) if "\\" in path else None  # of Windows

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


class Clips:
    """The files of a folder by id and times; the folder is searched once.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self._names = list(find_files(root, VIDEO_SUFFIXES))
        self._by_key: dict[str, str] = {}
        self._by_id: dict[str, str | None] = {}  # None for several
        copies = []
        for name in self._names:
            if self._by_key.setdefault(_key(_stem(name)), name) != name:
                copies.append(name)
            found = clip_id(name)
            self._by_id[found] = None if found in self._by_id else name
        warn_of(copies, "%s has %s videos under names that mean the same clip: %s", root)

    def find(self, entry: Entry) -> tuple[str, bool] | None:
        """See `Finder`: a file of id and times, or else of the id alone; without times any one."""
        keys = [entry.path]
        if entry.times is not None:
            keys.insert(0, f"{entry.path}_{entry.times[0]}_{entry.times[1]}")
        found = next((self._by_key[k] for key in keys if (k := _key(key)) in self._by_key), None)
        if found is None and entry.times is None:
            found = self._by_id.get(entry.path)
        return None if found is None else (found, False)

    def others(self, used: Iterable[str]) -> list[str]:
        """Name the files that were not found."""
        known = set(used)
        return [name for name in self._names if name not in known]


def _stem(name: str) -> str:
    base = name.rpartition("/")[2]
    stem, _, suffix = base.rpartition(".")
    return stem if f".{suffix.lower()}" in VIDEO_SUFFIXES else base


def _key(stem: str) -> str:
    """Write times without leading zeros and fractions; an id that looks like it changes alike."""
    parts = _TIMES.fullmatch(stem)
    return f"{parts[1]}_{int(parts[2])}_{int(parts[3])}" if parts else stem


def clip_id(name: str) -> str:
    """Take the id out of the path of a clip: its name without suffix and times.

    Args:
        name: Path such as `abseiling/-3B32lodo2M_000059_000069.mp4`.
    """
    stem = _stem(name)
    parts = _TIMES.fullmatch(stem)
    return parts[1] if parts and len(stem) > ID_LENGTH else stem


def clip_name(entry: Entry) -> str:
    """Name a video as the list does; by id and times as cvdf's archives do, without suffix."""
    if entry.times is None:
        return entry.path
    return f"{entry.path}_{entry.times[0]:06d}_{entry.times[1]:06d}"


def youtube_id(name: str, *, sure: bool = False) -> str | None:
    """Take the YouTube id out of the path of a clip, None if there is none.

    An id is 11 letters, digits, `-` and `_`, and may begin with each of them. A name of eleven
    letters without times may be any; by chance one id in 300 has no capital.

    Args:
        name: Path such as `abseiling/-3B32lodo2M_000059_000069.mp4`.
        sure: Whether the videos are YouTube's: then eleven letters are an id, and programs may have
            put anything behind them, as in `-3B32lodo2M.f137.mp4`.
    """
    if sure:
        match = _NAMED.match(name.rpartition("/")[2])
        return match and match[1]
    stem, found = _stem(name), clip_id(name)
    if not re.fullmatch(r"[\w-]{11}", found, re.ASCII):
        return None
    return found if found != stem or re.search("[A-Z]", found) else None


def place_entries(
    entries: Iterable[Entry],
    labels: Labels,
    finder: Shelves | Clips,
    *,
    file: Path,
    root: Path,
    backend: Backend,
) -> VideoFiles:
    """Find the videos of a list on the disk.

    Those that are not there are left out; a warning counts them and names the first.

    Args:
        entries: Videos of the list.
        labels: Reader of their labels, which knows the classes when all have been read.
        finder: Finds them.
        file: The list, for messages.
        root: Folder of relative paths.
        backend: See `open_video`.

    Returns:
        The videos that are there, in the order of the list; `missing` names the others, `unlisted`
        the clips of the folder that a list of ids does not have.

    Raises:
        ValueError: If none is there, or one has an impossible number of frames.
    """
    numbers, frames, seen = array("i"), array("i"), set[str]()
    twice, absent, absent_lines = list[str](), list[str](), list[str]()

    def placed() -> Iterator[str]:
        for entry in entries:
            count, found = entry.frames or 0, finder.find(entry)
            if not 0 <= count <= _MOST_FRAMES:
                raise ValueError(f"{file}, line {entry.line} has {count:,} frames")
            if found is None:
                absent.append(clip_name(entry))
                absent_lines.append(f"{absent[-1]} (line {entry.line})")
                continue
            path, is_folder = found
            if path in seen:
                twice.append(f"{path} (line {entry.line})")
            seen.add(path)
            numbers.append(entry.label)
            frames.append(count if is_folder else -1)
            yield path

    names = Names.collect(placed())
    if not numbers:
        raise ValueError(
            f"none of the {len(absent):,} videos of {file} is in {root}: looked for "
            f"{', '.join(absent_lines[:_SHOWN]) or 'nothing'}; name their folder as root"
        )
    everything = f"of {len(absent) + len(numbers):,} videos of {file}"
    warn_of(absent_lines, f"%s lacks %s {everything}, which are left out: %s", root)
    warn_of(twice, "%s has %s videos more than once: %s", file)
    unlisted = finder.others(seen) if isinstance(finder, Clips) else []
    ids = {clip_id(name) for name in absent}
    others = [name for name in unlisted if clip_id(name) in ids]
    warn_of(others, "%s has %s clips of missing ids at other times: %s", root)
    counts = np.array(frames, np.int32)
    return VideoFiles(
        root,
        names,
        np.array(numbers, np.int32),
        labels.classes(),
        backend=backend,
        images=counts if (counts >= 0).any() else None,
        missing=absent,
        unlisted=unlisted,
    )


def warn_of(names: Sequence[str], message: str, subject: object) -> None:
    """Warn of names, if there are any.

    Args:
        names: The names, of which the first are shown.
        message: Text with places for the subject, the count and the names.
        subject: List or folder that it is about.
    """
    if names:
        first = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        logger.warning(message, subject, f"{len(names):,}", first)


# UCF-101 as it is published: class folders of videos, and lists of its three splits


def ucf101_list(folder: Path, split: int) -> Path:
    """Find a test list of UCF-101, in its folder or beside it.

    Args:
        folder: Folder of the class folders.
        split: Number of the list.

    Raises:
        ValueError: If it is not there.
    """
    name = f"testlist{split:02}.txt"
    places = (folder, folder / _UCF101_LISTS, folder.parent / _UCF101_LISTS, folder.parent)
    for place in places:
        if (place / name).is_file():
            return place / name
    raise ValueError(
        f"{folder} has no {name}: put the lists of UCF101TrainTestSplits beside the class folders "
        f"(looked in {', '.join(str(place) for place in places)})"
    )


def read_ucf101(file: Path, classes: Sequence[str], labels: Labels) -> Iterator[Entry]:
    """Read a list of UCF-101: `ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi` in each line.

    The folder says the class, in any spelling; a number behind it, as in training lists, does not.

    Raises:
        ValueError: If a folder is not of a class.
    """
    by_key = {_letters(name): label for label, name in enumerate(classes)}
    for number, line in text_lines(file):
        path = re.sub(r"\s+\d+$", "", line)
        folder = path.replace("\\", "/").rpartition("/")[0].rpartition("/")[2]
        where = f"{file}, line {number}"
        if _letters(folder) not in by_key:
            raise ValueError(
                f"{where} is {line!r}, and {folder!r} is not among the {len(classes)} classes: "
                "expected a line such as 'Archery/v_Archery_g01_c01.avi'"
            )
        yield Entry(number, path, labels.require(str(by_key[_letters(folder)]), where))


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
