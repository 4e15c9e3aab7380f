"""Pieces of HTML: escaped text, numbers, tables in a box that scrolls."""

import math
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

from eva_data.files import printable

DASH = "\N{EN DASH}"
LONG_TEXT, LONG_CELL = 4_000, 300  # characters; what is longer is cut
# not allowed in HTML, or turning round what is written after them
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff\u202a-\u202e\u2066-\u2069]")


def escaped(text: str, *, most: int = LONG_TEXT) -> str:
    """Escape a text for the body of a page and for quoted attributes.

    Args:
        text: Any text, also one with bytes that are not UTF-8.
        most: Characters that are kept.
    """
    kept = text if len(text) <= most else text[:most] + "…"
    shown = _CONTROL.sub(_code, kept.replace("\r\n", "\n"))
    return escape(printable(shown))


def _code(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def isolated(text: str, *, most: int = LONG_CELL) -> str:
    """Escape a name, so that its direction of writing does not change what is around it."""
    return f"<bdi>{escaped(text, most=most)}</bdi>"


def number(value: Any, digits: int) -> str:
    """Write a number, or a dash for None and what is not finite.

    Args:
        value: Any number.
        digits: Digits after the point of one that is not whole by its type.
    """
    if value is None or not math.isfinite(value):
        return DASH
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    text = f"{value:,.{digits}f}"
    return text.removeprefix("-") if not text.strip("-0.,") else text  # no "-0.0"


def cell(value: Any, digits: int, *, heading: bool = False) -> str:
    """Make a cell of a table: numbers to the right, names to the left.

    Args:
        value: Text, a number or None.
        digits: Digits after the point.
        heading: Whether it names its row.
    """
    name = isinstance(value, str)
    inside = isolated(value) if name else number(value, digits)
    if heading:
        return f'<th scope="row">{inside}</th>'
    return f"<td>{inside}</td>" if name else f'<td class="n">{inside}</td>'


def table(heads: Iterable[str], rows: Iterable[str], *, kind: str = "") -> str:
    """Make a table in a box of its own, which scrolls where it is too wide or too high.

    Args:
        heads: Cells of the head.
        rows: Cells of each row, as HTML.
        kind: Class of the table.
    """
    body = "".join(f"<tr>{row}</tr>\n" for row in rows)
    return (
        f'<div class="box" tabindex="0"><table class="{kind}"><thead><tr>{"".join(heads)}</tr>'
        f"</thead>\n<tbody>\n{body}</tbody></table></div>\n"
    )


def heads(titles: Sequence[str], numeric: Sequence[bool]) -> list[str]:
    """Make the cells of a head, over numbers to the right.

    Args:
        titles: Texts.
        numeric: Whether each is over numbers.
    """
    return [
        f'<th scope="col"{" class=n" if right else ""}>{escaped(title, most=LONG_CELL)}</th>'
        for title, right in zip(titles, numeric, strict=True)
    ]


def paragraph(text: str, *, kind: str = "") -> str:
    """Make a paragraph; nothing of an empty text."""
    mark = f' class="{kind}"' if kind else ""
    return f"<p{mark}>{escaped(text)}</p>\n" if text else ""
