r"""Tables of pairs: CSV and TSV with a header, as open_clip, Kaggle and spreadsheets have them.

    filepath\ttitle                      open_clip's names and separator
    image,caption                        several lines of one picture are several captions of it

The separator is a tab, a comma, a semicolon or a bar: the one by which the header has both columns.
A cell in quotes may hold the separator, quotes (doubled) and line breaks. Without quotes, the
caption may hold the separator if it is the last of two columns and the path ends as a picture does.

A quote that is never closed would swallow lines until the next one, and give a wrong pair: such a
line is left out, and named, and the next line is a line again.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from eva_data.captions.left_out import LONGEST, LeftOut
from eva_data.captions.listed import accepted
from eva_data.suffixes import SHOWN_PICTURES

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
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        header = stream.readline(LONGEST).rstrip("\r\n")
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
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        waiting: list[tuple[int, str]] = []  # lines that belong to no record yet
        lines, line = enumerate(stream, 1), (0, "")
        while waiting or (line := next(lines, (0, ""))) != (0, ""):
            number, text = waiting.pop(0) if waiting else line
            if not text.strip():
                continue
            if '"' not in text:
                yield number, _fitted(text.rstrip("\r\n").split(columns.separator), columns)
                continue
            yield number, _quoted(text, waiting, lines, columns)


def _quoted(
    text: str, waiting: list[tuple[int, str]], lines: Iterator[tuple[int, str]], columns: Columns
) -> list[str] | None:
    """Read a record with quotes, which may go on in the next lines."""
    taken = 0  # lines of `waiting` that belong to the record
    cells = _cells(text.rstrip("\r\n"), columns.separator)
    while cells == []:  # a quote is open
        if taken == len(waiting):
            following = next(lines, None)
            if following is None:
                return None
            waiting.append(following)
        more = waiting[taken][1]
        text, taken = text + more, taken + 1
        if len(text) > LONGEST or _is_row(more, columns):
            return None
        if '"' in more:
            cells = _cells(text.rstrip("\r\n"), columns.separator)
    fitted = None if cells is None else _fitted(cells, columns)
    if fitted is not None:
        del waiting[:taken]
    return fitted


def _is_row(line: str, columns: Columns) -> bool:
    """Test whether a line looks like a record, and not like a part of a caption."""
    cells = line.rstrip("\r\n").split(columns.separator)
    return len(cells) >= columns.width and _ends_as_picture(cells[columns.image])


def _ends_as_picture(path: str) -> bool:
    return Path(path.strip().strip('"')).suffix.lower() in SHOWN_PICTURES


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
    is_last = columns.width == 2 and columns.caption == 1
    if len(cells) > columns.width and is_last and _ends_as_picture(cells[0]):
        return [cells[0], columns.separator.join(cells[1:])]
    if len(cells) > columns.width and not any(cell.strip() for cell in cells[columns.width :]):
        return cells[: columns.width]
    return None
