"""Lists of samples as people have them: tables with a header (CSV, TSV), and lines of text.

The separator is a tab, a comma, a semicolon or a bar: the one by which the header has most of the
columns that are looked for. A cell in quotes may hold separators, doubled quotes and line breaks.
"""

import codecs
import csv
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from eva_data.files import require_regular_file

_SEPARATORS = "\t,;|"


class Columns(NamedTuple):
    """Names of the columns of a table, and the number of the one for each role that is there."""

    file: Path
    separator: str
    names: list[str]
    places: dict[str, int]


def find_columns(file: Path, roles: Mapping[str, Sequence[str]]) -> Columns:
    """Find the columns of a table by its header; the first name of a role that it has counts."""
    with open_text(file) as stream:
        header = stream.readline().rstrip("\r\n")
    best = Columns(file, _SEPARATORS[0], [], {})
    for separator in _SEPARATORS:
        try:
            names = [name.strip() for name in next(csv.reader([header], delimiter=separator), [])]
        except csv.Error:  # a cell above its limit
            continue
        lower = [name.lower() for name in names]
        matches = {
            role: [name for name in candidates if name in lower]
            for role, candidates in roles.items()
        }
        places = {role: lower.index(matching[0]) for role, matching in matches.items() if matching}
        table = Columns(file, separator, names, places)
        best = max(best, table, key=lambda columns: (len(columns.places), len(columns.names)))
    return best


def rows_of_table(
    columns: Columns, *, is_row: Callable[[list[str]], bool] = lambda cells: False
) -> Iterator[tuple[int, list[str] | None]]:
    """Read the rows below a header with their line: stripped cells, None for what is no row.

    A quote that is never closed would swallow lines: such a line is no row, and the next one is a
    line again, as it is if `is_row` holds for its cells, which then are no part of a text.
    """
    width, number = len(columns.names), 0
    used, again = list[str](), deque[str]()

    def lines(stream: TextIO) -> Iterator[str]:
        while line := again.popleft() if again else stream.readline():
            used.append(line)
            yield line

    with open_text(columns.file) as stream:
        while True:
            number += len(used)
            used.clear()
            try:
                reader = csv.reader(lines(stream), delimiter=columns.separator, strict=True)
                row = next(reader, None)
                if any(is_row(line.split(columns.separator)) for line in used[1:]):
                    raise csv.Error("a quote is open")
            except csv.Error:
                again.extendleft(reversed(used[1:]))
                del used[1:]
                yield number + 1, None
                continue
            if row is None:
                return
            cells = [cell.strip() for cell in row]
            if cells and (number or not any(columns.names)):
                fits = len(cells) >= width and not any(cells[width:])
                yield number + 1, cells[:width] if fits else None


def open_text(file: Path) -> TextIO:
    """Open a list, in UTF-8 or in the UTF-16 with its mark that Excel calls Unicode text.

    Names of files need not be text: bytes that are not UTF-8 stay as they are.
    """
    require_regular_file(file)
    with file.open("rb") as stream:
        is_utf_16 = stream.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding, errors = ("utf-16", "replace") if is_utf_16 else ("utf-8-sig", "surrogateescape")
    return file.open(encoding=encoding, errors=errors, newline="")


def text_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file with their numbers, without space around them and empty ones."""
    with open_text(file) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield number, line.strip()
