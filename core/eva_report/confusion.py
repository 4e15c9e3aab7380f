"""What was taken for what: a coloured table, a heat map, and the most frequent mistakes."""

import base64
import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eva_report.content import Confusion
from eva_report.markup import cell, escaped, heads, number, paragraph, table

IN_A_TABLE, IN_A_MAP = 20, 60  # classes
_MISTAKES = 15
_LONG_COUNT = 100_000  # from here on cells have percent
_RIGHT, _WRONG = (31, 136, 61), (207, 80, 10)  # colours; those of the style sheet
_MAP, _LETTERS = 700, 24  # pixels of a map; characters of a name beside it


class Mistake(NamedTuple):
    """A label, what it was taken for, how often, and the share of all of this label."""

    label: int
    taken_for: int
    times: int
    share: float


def confusion(content: Confusion, most: int) -> str:
    """Make the section: all counts of some classes, the top mistakes of many.

    Args:
        content: Counts.
        most: Rows of a table that are shown.

    Raises:
        ValueError: If there is not a row and a column for each class.
    """
    counts, classes = np.asarray(content.counts, np.int64), content.classes
    if counts.shape != (len(classes), len(classes)):
        raise ValueError(f"{len(classes)} classes have no confusion of shape {counts.shape}")
    picture = ""
    if len(classes) <= min(IN_A_TABLE, most):
        picture = f"<div>{_coloured_table(content, counts)}</div>"
    elif len(classes) <= min(IN_A_MAP, most):
        picture = f"<div>{_map(content, counts)}</div>"
    mistakes = f"<div>{_mistakes(content, counts, min(_MISTAKES, most))}</div>"
    note = f"All counts are in {content.complete_in}." if content.complete_in else ""
    return (
        f'{paragraph(content.text)}<div class="beside">{picture}{mistakes}</div>\n'
        f"{paragraph(note, kind='note')}"
    )


def top_mistakes(counts: NDArray[np.integer], most: int) -> list[Mistake]:
    """Return the mistakes with the highest counts.

    Args:
        counts: (K, K), labels in rows.
        most: Number of mistakes.
    """
    rows, columns = np.nonzero(counts)  # few, of many classes
    wrong = rows != columns
    rows, columns = rows[wrong], columns[wrong]
    times = counts[rows, columns].astype(np.int64)
    totals = counts.sum(axis=1)
    return [
        Mistake(*pair, int(times[place]), float(times[place] / totals[pair[0]]))
        for place in np.argsort(-times, kind="stable")[:most]
        for pair in [(int(rows[place]), int(columns[place]))]
    ]


def _mistakes(content: Confusion, counts: NDArray[np.integer], most: int) -> str:
    found = top_mistakes(counts, most)
    if not found:
        return paragraph(f"No {content.unit} were taken for another class.")
    names = content.classes
    rows = (
        cell(names[one.label], 0, heading=True)
        + cell(names[one.taken_for], 0)
        + cell(one.times, 0)
        + f'<td class="n">{one.share:.1%}</td>'
        for one in found
    )
    titles = ("label", "taken for", content.unit, "of the label")
    return "<h3>Top mistakes</h3>\n" + table(heads(titles, (False, False, True, True)), rows)


def _shares(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    totals = counts.sum(axis=1, keepdims=True)
    shares: NDArray[np.float64] = counts / np.maximum(totals, 1)
    return shares


def _coloured_table(content: Confusion, counts: NDArray[np.integer]) -> str:
    shares = _shares(counts)
    percent = counts.max(initial=0) >= _LONG_COUNT
    head = ['<th class="corner">label \\ prediction</th>']
    head += [
        f'<th scope="col" class="up"><span>{escaped(name, most=60)}</span></th>'
        for name in content.classes
    ]
    rows = []
    for row, name in enumerate(content.classes):
        cells = [cell(name, 0, heading=True)]
        for column, count in enumerate(counts[row]):
            share = shares[row, column]
            shown = number(100 * share, 1) if percent else number(count, 0)
            kind = "n right" if row == column else "n wrong"
            if count:
                cells.append(f'<td class="{kind}" style="--s:{share:.2f}">{shown}</td>')
            else:
                cells.append('<td class="n none">·</td>')
        rows.append("".join(cells))
    unit = f"percent of the {content.unit} of a label" if percent else content.unit
    note = f"Rows are labels, columns are predictions; cells are {unit}."
    return table(head, rows, kind="confusion") + paragraph(note, kind="note")


def _map(content: Confusion, counts: NDArray[np.integer]) -> str:
    """A map as SVG, whose letters take the colours of the page, around an image of K x K pixels."""
    size = len(counts)
    shares = _shares(counts)
    pixels = np.empty((size, size, 4), np.uint8)
    pixels[...] = (*_WRONG, 0)
    pixels[np.arange(size), np.arange(size), :3] = _RIGHT
    pixels[..., 3] = np.round(255 * np.sqrt(shares))
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    data = base64.b64encode(stream.getvalue()).decode()
    names = [
        name if len(name) <= _LETTERS else name[: _LETTERS - 1] + "…" for name in content.classes
    ]
    step = min(24, max(13, _MAP // size))  # pixels of a cell
    letter = min(12, step - 2)
    margin = 20 + round(0.62 * letter) * max(map(len, names))
    side = size * step
    left = "".join(
        f'<text x="{margin - 6}" y="{margin + (row + 0.75) * step:.1f}" text-anchor="end">'
        f"{escaped(name)}</text>"
        for row, name in enumerate(names)
    )
    above = "".join(
        f'<text transform="translate({margin + (column + 0.75) * step:.1f},{margin - 6}) '
        f'rotate(-90)">{escaped(name)}</text>'
        for column, name in enumerate(names)
    )
    complete = margin + side + 4
    note = (
        "Rows are labels, columns are predictions; the stronger a colour, the larger the share of "
        "the label."
    )
    return (
        f'<div class="box" tabindex="0"><svg class="map" viewBox="0 0 {complete} {complete}" '
        f'style="width:{complete}px;font-size:{letter}px" role="img" '
        f'aria-label="confusion of {size} classes">'
        f'<image x="{margin}" y="{margin}" width="{side}" height="{side}" '
        f'preserveAspectRatio="none" href="data:image/png;base64,{data}"/>'
        f'<rect class="frame" x="{margin}" y="{margin}" width="{side}" height="{side}"/>'
        f"{left}{above}</svg></div>\n"
    ) + paragraph(note, kind="note")
