r"""Tables of pairs: CSV and TSV with a header, as open_clip, Kaggle and spreadsheets have them.

    filepath\ttitle                      open_clip's names and separator
    image,caption                        several lines of one picture are several captions of it

A line ends with a line feed; the separator is a tab, a comma, a semicolon or a bar: the one by
which the header has both columns. A cell in quotes may hold the separator, quotes (doubled) and
line breaks. Without quotes, the caption may hold the separator if it is the last of two columns and
the path ends as a picture does.

A quote that is never closed would swallow lines until the next one, and give a wrong pair: such a
line is left out, and named, and the next line is a line again.
"""

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from eva_data.captions.left_out import LONGEST, LeftOut
from eva_data.captions.listed import accepted
from eva_data.files import DEMO_IMAGE_SUFFIXES

IMAGES = (
    *("filepath", "image", "image_path", "path", "file_name", "filename", "file", "file_path"),
    *("img", "image_name", "img_path", "image_file", "picture"),
)
CAPTIONS = ("title", "caption", "text", "captions", "comment", "sentence", "description", "raw")
_SEPARATORS = "\t,;|"


class Columns(NamedTuple):
    """Where a table has its pairs.

    Attributes:
        separator: Character between cells.
        width: Number of columns.
        image: Number of the column with the paths.
        caption: Number of the column with the captions.
    """

    separator: str
    width: int
    image: int
    caption: int


def find_columns(file: Path, *, image: str | None, caption: str | None) -> Columns:
    """Find the columns of a table by its header.

    Args:
        file: The table.
        image: Name of the column with the paths; None takes the first of `IMAGES`.
        caption: Name of the column with the captions; None takes the first of `CAPTIONS`.

    Raises:
        ValueError: If it has no such columns.
    """
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as stream:
        header = stream.readline(LONGEST).rstrip("\r\n")
    if "\0" in header:
        raise ValueError(f"{file} is not text in UTF-8 (but maybe in UTF-16): save it as UTF-8")
    if "\r" in header:
        raise ValueError(f"{file} ends its lines by CR alone: save it with LF, or CR and LF")
    best: list[str] = []
    for separator in _SEPARATORS:
        names = [name.strip() for name in _cells(header, separator) or []]
        places = _place(names, image, IMAGES), _place(names, caption, CAPTIONS)
        if None not in places and places[0] != places[1]:
            return Columns(separator, len(names), *places)  # type: ignore[arg-type]
        best = max(best, names, key=len)
    if not header:
        raise ValueError(f"{file} is empty: its first line must name its columns")
    wanted = [
        repr(given) if given else f"one of {', '.join(known)}"
        for given, known in ((image, IMAGES), (caption, CAPTIONS))
    ]
    shown = ", ".join(best)[:200].encode("utf-8", "backslashreplace").decode()
    raise ValueError(
        f"{file} has the columns {shown}: one with the paths of the pictures is needed "
        f"({wanted[0]}) and one with the captions ({wanted[1]}); name them by image_column and "
        "caption_column"
    )


def _place(names: Sequence[str], given: str | None, known: Sequence[str]) -> int | None:
    if given is not None:
        return names.index(given) if given in names else None
    lower = [name.lower() for name in names]
    return next((lower.index(name) for name in known if name in lower), None)


def pairs_of_table(file: Path, columns: Columns, left_out: LeftOut) -> Iterator[tuple[str, str]]:
    """Read the pairs of a table.

    Args:
        file: The table.
        columns: See `find_columns`.
        left_out: Filled with the lines that are not pairs.

    Yields:
        Path of the picture, and a caption.
    """
    records = _records(file, columns)
    next(records, None)  # the header
    for number, cells in records:
        where = f"{file}, line {number}"
        if cells is None:
            left_out.add("malformed", where)
        else:
            path = cells[columns.image].strip()
            yield from accepted(path, cells[columns.caption], where, left_out)


def _records(file: Path, columns: Columns) -> Iterator[tuple[int, list[str] | None]]:
    """Yield the number of the first line of each record, and its cells, or None if it has not.

    The lines of a record in quotes are joined; if the quotes do not end well, only the first is
    given up.
    """
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as stream:
        lines = _Lines(stream)
        while (text := lines.take()) is not None:
            number = lines.number
            if not text.strip():
                continue
            if '"' in text:
                yield number, _quoted(text, lines, columns)
            else:
                yield number, _fitted(text.rstrip("\r\n").split(columns.separator), columns)


class _Lines:
    """Lines of a file, some of which are given back."""

    def __init__(self, stream: Iterable[str]) -> None:
        self._stream, self._waiting, self.number = iter(stream), deque[str](), 0

    def take(self) -> str | None:
        """Take a line, whose number is `number` then; None at the end."""
        line = self._waiting.popleft() if self._waiting else next(self._stream, None)
        self.number += line is not None
        return line

    def give_back(self, lines: Sequence[str]) -> None:
        """Give back the last lines."""
        self._waiting.extendleft(reversed(lines))
        self.number -= len(lines)


def _quoted(text: str, lines: _Lines, columns: Columns) -> list[str] | None:
    """Read a record with quotes, which may go on in the next lines."""
    parts, size = [text], len(text)
    cells = _cells(text.rstrip("\r\n"), columns.separator)
    while cells == []:  # a quote is open
        more = lines.take()
        if more is None:
            break
        parts.append(more)
        size += len(more)
        if size > LONGEST or _is_row(more, columns):
            break
        if '"' in more:
            cells = _cells("".join(parts).rstrip("\r\n"), columns.separator)
    fitted = _fitted(cells, columns) if cells else None
    if fitted is None:
        lines.give_back(parts[1:])
    return fitted


def _is_row(line: str, columns: Columns) -> bool:
    """Test whether a line looks like a record, and not like a part of a caption."""
    if line.count('"') % 2:  # it may be the end of the caption
        return False
    cells = line.rstrip("\r\n").split(columns.separator)
    return len(cells) >= columns.width and _ends_as_picture(cells[columns.image])


def _ends_as_picture(path: str) -> bool:
    return Path(path.strip().strip('"')).suffix.lower() in DEMO_IMAGE_SUFFIXES


def _cells(record: str, separator: str) -> list[str] | None:
    """Split a record; an empty list if a quote is open at its end, None if it has stray quotes."""
    limit = csv.field_size_limit(max(2 * LONGEST, csv.field_size_limit()))
    try:
        return next(csv.reader([record], delimiter=separator, strict=True), None)
    except csv.Error as error:
        return [] if "unexpected end of data" in str(error) else None
    finally:
        csv.field_size_limit(limit)


def _fitted(cells: list[str], columns: Columns) -> list[str] | None:
    """Give the cells, if they fit the header."""
    if len(cells) == columns.width:
        return cells
    if len(cells) > columns.width and not any(cell.strip() for cell in cells[columns.width :]):
        return cells[: columns.width]
    is_last = columns.width == 2 and columns.caption == 1
    if len(cells) > columns.width and is_last and _ends_as_picture(cells[0]):
        return [cells[0], columns.separator.join(cells[1:])]
    return None
