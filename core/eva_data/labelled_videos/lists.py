"""Lists of videos with labels: lines, tables of paths or ids; and where the videos lie.

A list of lines, as VideoMAE, V-JEPA, InternVideo, mmaction2 and EVA have them, has one separator (a
space, a comma, two colons) and no header; `folder 300 0` is a folder of 300 images. A table (CSV,
TSV) names its columns, any of `COLUMNS`. The clips of a list of ids lie in a folder, below it too,
as `ID_000010_000020.mp4` (cvdf's archives), `ID_10_20.mp4`, or else `ID.mp4` (replacements).
"""

import contextlib
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from eva_data.classes import Spellings, list_names
from eva_data.files import VIDEO_SUFFIXES, find_files
from eva_data.inputs import is_video
from eva_data.tables import Columns, rows_of_table, text_lines

COLUMNS = {
    "id": ("youtube_id", "video_id", "ytid", "id"),
    "path": ("path", "filename", "file_name", "file", "file_path", "filepath", "video"),
    "label": ("label", "class", "class_name", "action", "category"),
    "start": ("time_start", "start_time", "start"),
    "end": ("time_end", "end_time", "end"),
    "split": ("split", "subset"),
}
MOST_CLASSES = 100_000  # that numbers alone may stand for
ID_LENGTH = 11  # characters of a YouTube id
UCF101_SPLITS = (1, 2, 3)
_SEPARATORS = ("::", ",", " ")
_TRIED = 100  # lines that are looked at, to find out the form of a list
_NUMBER = re.compile(r"[+-]?\d{1,18}")
_COUNT = re.compile(r"[1-9]\d{0,7}")
_SPAN = r"_(\d+)(?:\.\d+)?_(\d+)(?:\.\d+)?"
_TIMES = re.compile(f"(.+){_SPAN}")
_NAMED = re.compile(rf"([\w-]{{{ID_LENGTH}}})(?:{_SPAN})?(?![\w-])", re.ASCII)


class Labels:
    """Labels of a list: numbers, or names of `classes` if they are known."""

    def __init__(self, classes: Sequence[str] | None) -> None:
        self._classes = None if classes is None else list(classes)
        self._spellings = Spellings(classes or ())
        self._largest = -1

    @classmethod
    def among(cls, first: Mapping[str, str]) -> "Labels":
        """Take as classes what labels are: numbers, or else names, which are sorted.

        Some of each are refused, as one slip would change all classes; `first` tells where a label
        comes first.
        """
        names = sorted(label for label in first if not _NUMBER.fullmatch(label))
        if names and len(names) < len(first):
            raise ValueError(
                f"{first[names[0]]} has the label {names[0]!r}, and others have numbers: labels "
                "are all numbers or all names, unless the classes are given"
            )
        return cls(names or None)

    def read(self, written: str) -> int | None:
        """Read a label, None if it is neither a number nor the name of a class."""
        return int(written) if _NUMBER.fullmatch(written) else self._spellings.label(written)

    def require(self, written: str, where: str) -> int:
        """Read a label that has a class; an error begins with `where`."""
        label = self.read(written)
        most = MOST_CLASSES if self._classes is None else len(self._classes)
        if label is None or not 0 <= label < most:
            names = "" if self._classes is None else f" or {list_names(self._classes, 4)}"
            raise ValueError(
                f"{where} has the label {written!r}, not one of 0 to {most - 1}{names}"
            )
        self._largest = max(self._largest, label)
        return label

    def classes(self) -> list[str]:
        """Name the classes: as given, or by the numbers up to the largest label."""
        return self._classes or [str(label) for label in range(self._largest + 1)]


class Entry(NamedTuple):
    """A video as a list names it: by a path, or an id with its times as cvdf's archives have it.

    `frames` is the number of images of a folder, where the list says it.
    """

    line: int
    path: str
    label: int
    frames: int | None = None


def read_path_list(file: Path, root: Path, labels: Labels) -> Iterator[Entry]:
    """Read a list of lines `path label`, whose separator and form are those of its first lines.

    The folder of relative paths decides whether `a 300 0` is a folder of 300 images. A wrong line
    is named by its number.
    """
    head = [line for _, line in itertools.islice(text_lines(file), _TRIED)]
    if not head:
        raise ValueError(f"{file} is empty: it must have a line `path label` for each video")

    def fits(separator: str) -> int:
        parts = (_split_line(line, separator, labels) for line in head)
        return sum(1 for _ in itertools.takewhile(bool, parts))

    separator = max(_SEPARATORS, key=fits)
    paths = [(_split_line(line, separator, labels) or ("",))[0] for line in head]
    with_frames = all(_split_frames(path, separator) for path in paths)
    with_frames = with_frames and DirectoryListing(root).find(paths[0]) is None
    for number, line in text_lines(file):
        where, frames = f"{file}, line {number}", None
        path, label = _split_line(line, separator, labels) or ("", "")
        if with_frames:
            path, frames = _split_frames(path, separator) or ("", None)
        if not path:
            raise ValueError(
                f"{where} is {line!r}, and not `path{separator}label` as the lines before: labels "
                "are numbers from 0, or names of given classes; or `folder frames label`"
            )
        yield Entry(number, path, labels.require(label, where), frames)


def _split_line(line: str, separator: str, labels: Labels) -> tuple[str, str] | None:
    """Split a line into path and label; at spaces, the label is as long as classes have it."""
    if separator == " ":
        spaces = [space.span() for space in re.finditer(r"\s+", line)]
        if spaces and _NUMBER.fullmatch(line[spaces[-1][1] :]):
            spaces = spaces[-1:]
        parts = [(line[:begin], line[end:]) for begin, end in spaces]
    else:
        path, _, label = line.rpartition(separator)
        parts = [(path.strip(), label.strip())]
    return next(((p, label) for p, label in parts if p and labels.read(label) is not None), None)


def _split_frames(path: str, separator: str) -> tuple[str, int] | None:
    """Split `folder number_of_frames`."""
    folder, count = _split_line(path, separator, Labels(None)) or ("", "")
    return (folder, int(count)) if _COUNT.fullmatch(count) and not is_video(folder) else None


def list_line(path: str, label: int) -> str | None:
    """Write a line `path label` that is read as it was meant; None for a path that cannot be."""
    cannot = not path or path.strip() != path or "\n" in path or "\r" in path
    return None if cannot else f"{path} {label}"


def read_table(columns: Columns, classes: Sequence[str] | None) -> tuple[Labels, Iterator[Entry]]:
    """Read a table of paths, or of ids if it has no paths.

    Without `classes`, the names in the table are sorted, or its numbers are taken. A wrong row is
    named by its line.
    """
    file, places = columns.file, columns.places
    key = places["path" if "path" in places else "id"]
    times = [places[role] for role in ("start", "end") if role in places and "path" not in places]
    rows, first, splits = list[tuple[int, str, str]](), dict[str, str](), set[str]()
    for number, cells in rows_of_table(columns):
        where = f"{file}, line {number}"
        if cells is None or not cells[key] or not cells[places["label"]]:
            raise ValueError(
                f"{where} lacks a path, an id or a label, or does not have {len(columns.names)} "
                "cells as the header"
            )
        name, label = cells[key], cells[places["label"]]
        if len(times) == 2:
            try:
                name += "".join(f"_{int(float(cells[column])):06d}" for column in times)
            except (ValueError, OverflowError) as error:
                raise ValueError(f"{where}: {error}") from error
        rows.append((number, name, label))
        first.setdefault(label, where)
        splits.add(cells[places["split"]] if "split" in places else "")
    if len(splits) != 1:
        shown = ", ".join(sorted(splits)) or "none"
        raise ValueError(f"{file} must hold the videos of one split, and it has: {shown}")
    labels = Labels.among(first) if classes is None else Labels(classes)
    numbers = {label: labels.require(label, where) for label, where in first.items()}
    return labels, (Entry(number, name, numbers[label]) for number, name, label in rows)


class DirectoryListing:
    """The files in folders below a root, each of which is listed once.

    No file is looked up on its own, which on a network drive takes minutes for a list of Kinetics.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[str, tuple[dict[str, str], set[str]]] = {}

    def find(self, path: str) -> tuple[str, bool] | None:
        """Find a video by its path, absolute or below the root; the suffix may differ or lack.

        Returns:
            The path on the disk, and whether it is a folder (of images).
        """
        folder, name = os.path.split(path.rstrip("/"))
        if folder not in self._folders:
            self._folders[folder] = self._list(folder)
        files, folders = self._folders[folder]
        file = files.get(name) or files.get(_stem(name))
        if file is None:
            return (path, True) if name in folders else None
        return (path if file == name else os.path.join(folder, file)), False  # noqa: PTH118

    def _list(self, folder: str) -> tuple[dict[str, str], set[str]]:
        """List the files of a folder, by their names and those without suffix, and its folders."""
        names, folders = list[str](), set[str]()
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError),  # a zero byte
            os.scandir(self._root / folder) as entries,
        ):
            for entry in entries:
                with contextlib.suppress(OSError):  # a link to itself
                    if entry.is_dir():
                        folders.add(entry.name)
                    elif entry.is_file():  # not a pipe or a link that leads nowhere
                        names.append(entry.name)
        stems = {_stem(name): name for name in sorted(names, reverse=True) if is_video(name)}
        return stems | {name: name for name in names}, folders


class ClipFinder:
    """The files of a folder by id and times; the folder is searched once."""

    def __init__(self, root: Path) -> None:
        self.names = list(find_files(root, VIDEO_SUFFIXES))
        self._by_key = {_key(_stem(name)): name for name in reversed(self.names)}
        ids = [clip_id(name) for name in self.names]
        alone = {name for name, count in Counter(ids).items() if count == 1}
        self._by_id = {_key(i): n for i, n in zip(ids, self.names, strict=True) if i in alone}

    def find(self, path: str) -> tuple[str, bool] | None:
        """Find a file of id and times, or else of the id alone; without times any one."""
        name, clip = clip_id(path), self._by_key.get(_key(path))
        if clip is None:
            clip = (self._by_id if name == path else self._by_key).get(_key(name))
        return None if clip is None else (clip, False)


def _stem(name: str) -> str:
    base = name.rpartition("/")[2]
    stem, _, suffix = base.rpartition(".")
    return stem if f".{suffix.lower()}" in VIDEO_SUFFIXES else base


def _key(stem: str) -> str:
    """Write times without leading zeros and fractions; an id that looks like it changes alike."""
    parts = _TIMES.fullmatch(stem)
    return f"{parts[1]}_{int(parts[2])}_{int(parts[3])}" if parts else stem


def clip_id(name: str) -> str:
    """Take the id out of the path of a clip: its name without suffix and times."""
    stem = _stem(name)
    parts = _TIMES.fullmatch(stem)
    return parts[1] if parts and len(stem) > ID_LENGTH else stem


def youtube_id(name: str, *, sure: bool = False) -> str | None:
    """Take the YouTube id out of the path of a clip, None if there is none.

    An id is 11 letters, digits, `-` and `_`. A name of eleven letters without times may be any,
    unless videos are surely YouTube's; by chance one id in 300 has no capital. Programs may have
    put anything behind it, as in `-3B32lodo2M.f137.mp4`.
    """
    if sure:
        match = _NAMED.match(name.rpartition("/")[2])
        return match and match[1]
    stem, identifier = _stem(name), clip_id(name)
    if not re.fullmatch(r"[\w-]{11}", identifier, re.ASCII):
        return None
    return identifier if identifier != stem or re.search("[A-Z]", identifier) else None
