"""Lists with named columns: CSV with a header as DeepMind and cvdf have it, and JSON.

    label,youtube_id,time_start,time_end,split
    testifying,---QUuC4vJs,84,94,train

    [{"filename": "abseiling/-3B32lodo2M.mp4", "label": 0}, ...]

A column may have any of the names below, in any case. A list of ids has labels by name, one of
paths labels by name or number.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eva_data.labelled_videos.entries import Entry, Labels, label_text, labels_of, text_lines

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
_ABOUT = "label,youtube_id,time_start,time_end,split"


class Row(NamedTuple):
    """A row of a list with named columns.

    Attributes:
        where: The list and the place of the row, for messages.
        line: Number of its line, or of its entry, from 1.
        path: Path of the video, or its id.
        label: Number or name of its class.
        times: Start and end in seconds, where the list says them.
        frames: Number of frames, where the list says it.
    """

    where: str
    line: int
    path: str
    label: str
    times: tuple[int, int] | None = None
    frames: int | None = None


class TableList:
    """A list with named columns.

    Args:
        file: A CSV file with a header, or a JSON file (also with an object in each line).

    Raises:
        ValueError: If it lacks a column or has no row.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._is_json = file.suffix.lower() in (".json", ".jsonl")
        self._header = _names_of_json(file) if self._is_json else _names_of_csv(file)
        self._columns = _columns(self._header, file)
        self.by_id = "path" not in self._columns

    def rows(self) -> Iterator[Row]:
        """Yield the rows.

        Raises:
            ValueError: If one lacks its path, id, label or times, and names it.
        """
        key, label = self._columns["id" if self.by_id else "path"], self._columns["label"]
        start, end = (self._columns.get(name, -1) for name in ("start", "end"))
        count = self._columns.get("frames", -1)
        for number, cells in self._cells():
            where = self._where(number)
            if not cells[key] or not cells[label]:
                lacking = self._header[label if cells[key] else key]
                raise ValueError(f"{where} lacks its {lacking}")
            if self._is_json and cells[label].startswith("["):
                raise ValueError(f"{where} has the labels {cells[label]}: a video has one")
            times = None
            if self.by_id and start >= 0:
                times = (self._integer(cells, start, where), self._integer(cells, end, where))
            frames = self._integer(cells, count, where) if count >= 0 else None
            yield Row(where, number, cells[key], cells[label], times, frames)

    def labels(self, classes: Sequence[str] | None) -> Labels:
        """Find out which classes there are.

        Args:
            classes: Names in the order of the labels; None sorts the names in the list, or takes
                its numbers.

        Raises:
            ValueError: If there is no row, more than one split, or labels of two kinds.
        """
        label, split = self._columns["label"], self._columns.get("split", -1)
        first, splits = dict[str, str](), set[str]()
        for number, cells in self._cells():
            if cells[label] not in first:
                first[cells[label]] = self._where(number)
            splits.add(cells[split] if split >= 0 else "")
        if not first:
            raise ValueError(f"{self.file} has a header and no video")
        if len(splits) > 1:
            shown = ", ".join(sorted(one or "(empty)" for one in splits))
            raise ValueError(f"{self.file} holds several splits, {shown}: write a list for each")
        if classes is not None:
            return Labels(classes)
        first.pop("", None)  # `rows` names it
        return labels_of(first)

    def _cells(self) -> Iterator[tuple[int, Sequence[str]]]:
        read = _rows_of_json if self._is_json else _rows_of_csv
        return read(self.file, self._header)

    def _where(self, number: int) -> str:
        return f"{self.file}, {'entry' if self._is_json else 'line'} {number}"

    def _integer(self, cells: Sequence[str], column: int, where: str) -> int:
        try:
            return int(float(cells[column]))
        except (ValueError, OverflowError):
            name, text = self._header[column], cells[column]
            raise ValueError(f"{where} has {name} {text!r}, which is not a number") from None

    def entries(self, labels: Labels) -> Iterator[Entry]:
        """Yield the videos of a list of paths.

        Args:
            labels: Reader of their labels.

        Raises:
            ValueError: If a row is incomplete or its label is wrong, with its place.
        """
        for row in self.rows():
            yield Entry(row.line, row.path, labels.of(row.label, row.where), row.frames)


def has_columns(file: Path) -> bool:
    """Test whether a file is a list with named columns."""
    if file.suffix.lower() in (".json", ".jsonl"):
        return True
    first = next(_lines(file), None)
    if first is None:
        return False
    reader = csv.reader([first[1]], delimiter=_delimiter(first[1]))
    cells = [cell.strip().lower() for cell in next(reader)]
    known = {name for names in COLUMNS.values() for name in names}
    return len(known & {*cells}) > 1 or (len(cells) == 1 and cells[0] in known)


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    return text_lines(file, around=" \r\n")  # a tab there is between columns


def _delimiter(header: str) -> str:
    return max(",;\t", key=header.count)


def _columns(header: Sequence[str], file: Path) -> dict[str, int]:
    given = {name.strip().lower(): place for place, name in reversed([*enumerate(header)])}
    found = {
        key: given[next(name for name in names if name in given)]
        for key, names in COLUMNS.items()
        if any(name in given for name in names)
    }
    has = f"{file} has the columns {', '.join(header)}"
    if "path" not in found and "id" not in found:
        raise ValueError(f"{has}, and none with a path or an id: expected {_ABOUT}")
    if "label" not in found:
        raise ValueError(f"{has}, and no label (test sets may have none): expected {_ABOUT}")
    if ("start" in found) != ("end" in found):
        raise ValueError(f"{has}, and only one of start and end: expected {_ABOUT}")
    return found


def _names_of_csv(file: Path) -> list[str]:
    header = next(_lines(file))[1]
    return [name.strip() for name in next(csv.reader([header], delimiter=_delimiter(header)))]


def _rows_of_csv(file: Path, header: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    lines = _lines(file)
    delimiter, width = _delimiter(next(lines)[1]), len(header)
    number = 0

    def counted() -> Iterator[str]:
        nonlocal number
        for number, line in lines:  # noqa: B007 (read below)
            yield line

    try:
        for cells in csv.reader(counted(), delimiter=delimiter):
            if any(cell.strip() for cell in cells[width:]):
                raise ValueError(
                    f"{file}, line {number} has {len(cells)} cells, and the header names {width} "
                    f"columns: what holds {delimiter!r} must be in quotes"
                )
            cells += [""] * (width - len(cells))
            yield number, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise ValueError(f"{file}, line {number} is not CSV: {error}") from error


def _names_of_json(file: Path) -> list[str]:
    entries = _load(file)
    if not entries:
        raise ValueError(f"{file} has no video")
    return list(entries[0])


def _rows_of_json(file: Path, header: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    for number, entry in enumerate(_load(file), 1):
        yield number, [label_text(entry.get(name)) for name in header]


def _load(file: Path) -> list[dict[str, Any]]:
    try:
        if file.suffix.lower() == ".jsonl":
            entries = [json.loads(line) for _, line in text_lines(file)]
        else:
            entries = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if isinstance(entries, dict):  # mmaction2 1.x
        entries = entries.get("data_list")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(
            f"{file} is not a list of videos: expected "
            '[{"filename": "a.mp4", "label": 0}, ...], or such a list as "data_list"'
        )
    return entries
