"""Scores and tables of a report."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from eva_data.files import printable, write_text
from eva_report.content import Cell, ScoreTable, Table
from eva_report.markup import cell, escaped, heads, isolated, number, paragraph, table

_GLANCE = 4  # scores at the top of the page
_COLUMNS = 40


def glance(scores: ScoreTable) -> str:
    """Make large numbers of the first scores.

    Args:
        scores: The first table of scores in the report.
    """
    numbers = [
        (value, _named(row.name, column if len(scores.columns) > 1 else ""), row.meaning)
        for row in scores.rows
        for column, value in zip(scores.columns, row.values, strict=True)
        if value is not None and math.isfinite(value)
    ]
    tiles = "".join(
        f'<div class="tile" title="{escaped(meaning, most=300)}"><b>'
        f"{number(value, scores.digits)}</b> {isolated(name, most=60)}</div>"
        for value, name, meaning in numbers[:_GLANCE]
    )
    return f'<div class="glance">{tiles}</div>\n' if tiles else ""


def _named(row: str, column: str) -> str:
    return f"{row}, {column}" if " " in column else f"{row} {column}".strip()


def score_table(scores: ScoreTable, most: int) -> str:
    """Make a table of scores and their meaning.

    Args:
        scores: The scores.
        most: Rows that are shown.
    """
    columns = [title if title else "score" for title in scores.columns]
    titles = ["score", *columns, "what it measures"]
    head = heads(titles, [False, *[True] * len(columns), False])
    rows = (
        cell(row.name, 0, heading=True)
        + "".join(cell(value, scores.digits) for value in row.values)
        + f'<td class="meaning">{escaped(row.meaning, most=600)}</td>'
        for row in scores.rows[:most]
    )
    shown = table(head, rows, kind="scores").replace(
        "<table", f'<table style="--n:{len(columns)}"', 1
    )
    return paragraph(scores.text) + shown + more(len(scores.rows) - most)


def any_table(content: Table, most: int) -> str:
    """Make a table of anything.

    Args:
        content: The table.
        most: Rows that are shown; the others are counted.
    """
    titles = list(content.heads[:_COLUMNS])
    shown = [list(row[: len(titles)]) for row in islice(content.rows, most)]
    numeric = [_is_numeric([row[column] for row in shown]) for column in range(len(titles))]
    rows = (
        "".join(
            cell(value, content.digits, heading=column == 0) for column, value in enumerate(row)
        )
        for row in shown
    )
    left = more(len(content.rows) - most, content.complete_in)
    return paragraph(content.text) + table(heads(titles, numeric), rows) + left


def write_csv(file: Path, heads: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Write all rows of a table beside the report; what is not text in a name is escaped.

    Args:
        file: The file; its folder exists.
        heads: Title of each column.
        rows: Cells.

    Raises:
        UnwritableError: If the disk is full or the folder read-only, for example.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(rows)
    write_text(file, printable(stream.getvalue()))


def more(count: int, complete_in: str = "") -> str:
    """Say how many rows are not shown, and which file has them.

    Args:
        count: Rows that are not shown; nothing is said of none.
        complete_in: Name of the file.
    """
    if count <= 0:
        return ""
    place = f", in {complete_in}" if complete_in else ""
    return paragraph(f"and {count:,} more{place}", kind="note")


def _is_numeric(values: Sequence[object]) -> bool:
    return any(value is not None for value in values) and not any(
        isinstance(value, str) for value in values
    )
