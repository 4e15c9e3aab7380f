r"""Lists of samples as people have them: tables with a header (CSV, TSV), JSON, and lines of text.

    filepath\ttitle                      open_clip's names and separator
    image,caption
    label,youtube_id,time_start,time_end,split

A line ends with a line feed; the separator is a tab, a comma, a semicolon or a bar: the one by
which the header has most of the columns that are looked for. A cell in quotes may hold the
separator, quotes (doubled) and line breaks.

A quote that is never closed would swallow lines until the next one, and make a wrong sample of
them: such a line is no row, and the next line is a line again.
"""

import csv
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

LONGEST = 1_000_000  # bytes of a row, or of a text
JSON_SUFFIXES = (".json", ".jsonl")
_SEPARATORS = "\t,;|"


class Columns(NamedTuple):
    """Where a table has what.

    Attributes:
        file: The table.
        separator: Character between cells.
        names: Names of the columns.
        places: Role -> number of its column, for those that are there.
    """

    file: Path
    separator: str
    names: list[str]
    places: dict[str, int]

    def require(self, role: str, known: Sequence[str]) -> int:
        """Return the column of a role.

        Args:
            role: The role.
            known: Names that it may have.

        Raises:
            ValueError: If there is none.
        """
        if role not in self.places:
            shown = ", ".join(self.names)[:200].encode("utf-8", "backslashreplace").decode()
            raise ValueError(
                f"{self.file} has the columns {shown}, and none for the {role}: expected one of "
                f"{', '.join(known)}"
            )
        return self.places[role]


def find_columns(file: Path, roles: Mapping[str, Sequence[str]]) -> Columns:
    """Find the columns of a table by its header.

    Args:
        file: The table.
        roles: Role -> names that its column may have, in lower case; the first of them counts.

    Raises:
        ValueError: If it is empty or not text.
    """
    with open_text(file) as stream:
        header = next((line for line in _short_lines(stream) if line.strip()), "").rstrip("\r\n")
    if not header:
        raise ValueError(f"{file} is empty: its first line must name its columns")
    if "\0" in header:
        raise ValueError(f"{file} is not text in UTF-8 (but maybe in UTF-16): save it as UTF-8")
    if "\r" in header:
        raise ValueError(f"{file} ends its lines by CR alone: save it with LF, or CR and LF")
    best = Columns(file, _SEPARATORS[0], [], {})
    for separator in _SEPARATORS:
        names = [name.strip() for name in _cells(header, separator) or []]
        lower = [name.lower() for name in names]
        firsts = {
            role: next((n for n in known if n in lower), None) for role, known in roles.items()
        }
        places = {role: lower.index(name) for role, name in firsts.items() if name is not None}
        one = Columns(file, separator, names, places)
        best = max(best, one, key=lambda columns: (len(columns.places), len(columns.names)))
    return best


def rows_of_table(
    columns: Columns, *, is_row: Callable[[Sequence[str]], bool], text: int | None = None
) -> Iterator[tuple[int, list[str] | None]]:
    """Read the rows below the header.

    Args:
        columns: See `find_columns`.
        is_row: Tells by its cells whether a line that follows an open quote is a row of its own,
            and not a part of a text.
        text: Column that may hold the separator without quotes, if it is the last of two.

    Yields:
        Number of the first line of a row, and its cells, as many as there are columns; None for
        what is no row.
    """
    with open_text(columns.file) as stream:
        lines = _Lines(stream)
        rows = _read_rows(lines, columns, is_row, text)
        next(rows, None)  # the header
        yield from rows


def _read_rows(
    lines: "_Lines", columns: Columns, is_row: Callable[[Sequence[str]], bool], text: int | None
) -> Iterator[tuple[int, list[str] | None]]:
    while (line := lines.take()) is not None:
        number = lines.number
        if '"' in line:
            yield number, _quoted(line, lines, columns, is_row, text)
        elif line.strip():
            cells = line.rstrip("\r\n").split(columns.separator)
            yield number, _fitted(cells, columns, is_row, text)


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


def _quoted(
    line: str,
    lines: _Lines,
    columns: Columns,
    is_row: Callable[[Sequence[str]], bool],
    text: int | None,
) -> list[str] | None:
    """Read a row with quotes, which may go on in the next lines."""
    parts, size = [line], len(line)
    cells = _cells(line.rstrip("\r\n"), columns.separator)
    while cells == []:  # a quote is open
        more = lines.take()
        if more is None:
            break
        parts.append(more)
        size += len(more)
        others = more.rstrip("\r\n").split(columns.separator)
        # with an odd number of quotes it may be the end of the text
        stands_alone = len(others) >= len(columns.names) and not more.count('"') % 2
        if size > LONGEST or (stands_alone and is_row(others)):
            break
        if '"' in more:
            cells = _cells("".join(parts).rstrip("\r\n"), columns.separator)
    fitted = _fitted(cells, columns, is_row, text) if cells else None
    if fitted is None:
        lines.give_back(parts[1:])
    return fitted


def _fitted(
    cells: list[str], columns: Columns, is_row: Callable[[Sequence[str]], bool], text: int | None
) -> list[str] | None:
    """Return the cells, if they fit the header."""
    width = len(columns.names)
    if len(cells) > width and not any(cell.strip() for cell in cells[width:]):
        return cells[:width]
    if len(cells) > width == 2 and text == 1 and is_row(cells):
        return [cells[0], columns.separator.join(cells[1:])]
    return cells if len(cells) == width else None


def _cells(row: str, separator: str) -> list[str] | None:
    """Split a row; an empty list if a quote is open at its end, None if it has stray quotes."""
    limit = csv.field_size_limit(max(2 * LONGEST, csv.field_size_limit()))
    try:
        return next(csv.reader([row], delimiter=separator, strict=True), None)
    except csv.Error as error:
        return [] if "unexpected end of data" in str(error) else None
    finally:
        csv.field_size_limit(limit)


def open_text(file: Path) -> TextIO:
    """Open a list; names of files need not be text: bytes that are not UTF-8 stay as they are."""
    return file.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n")


def _short_lines(stream: TextIO) -> Iterator[str]:
    while line := stream.readline(LONGEST):
        yield line


def text_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file with their numbers, without space around them and empty ones."""
    with open_text(file) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield number, line.strip()


def read_json_list(file: Path) -> Any:
    """Read a JSON file; of JSON lines the list of them.

    Raises:
        ValueError: If it is not JSON; the message names the line.
    """
    place, entries = f"{file}", []
    try:
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix.lower() != ".jsonl":
            return json.loads(text)
        for number, line in enumerate(text.split("\n"), 1):
            place = f"{file}, line {number},"
            if line.strip():
                entries.append(json.loads(line))
    except json.JSONDecodeError as error:
        raise ValueError(f"{place} is not JSON ({error.msg}, character {error.pos})") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is not JSON: {error}") from error
    return entries
