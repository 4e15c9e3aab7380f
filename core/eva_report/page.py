"""The page of a run: `report.html`, one self-contained file below `LIMIT` bytes.

`page.html.j2` says how it looks, `eva_report.content` what is in it.
"""

import csv
import io
import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from eva_data.files import is_there, printable
from eva_data.saving import write_text
from eva_report.content import (
    Cell,
    Confusion,
    Curves,
    Gallery,
    Link,
    Note,
    Report,
    ScoreTable,
    Section,
    Table,
)
from eva_report.curves import has_points, plot_view
from eva_report.gallery import Figure, fit_images
from eva_report.terminal import closing_lines, show
from eva_runs.interruption import StopSignal
from eva_runs.record import Kind, was_trained_in

logger = logging.getLogger(__name__)

NAME, BESIDE = "report.html", "evaluation.html"
RESULTS = "results.json"
LIMIT = 5_000_000  # bytes
DASH = "\N{EN DASH}"
_ROWS = 200  # of a table
_TILES = 4  # scores at the top of the page
_COLUMNS, _FACTS, _LINKS = 40, 80, 60
IN_A_TABLE = 20  # classes
_MISTAKES = 15
_LONG_COUNT = 100_000  # from here on cells have percent

# not allowed in HTML, or turning round what is written after them
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff\u202a-\u202e\u2066-\u2069]")


def try_report(folder: Path, make: Callable[[], Report], *, name: str = NAME) -> Path | None:
    """Write the report of a run whose results are safe already; a failure is one warning.

    A signal or Ctrl-C ends the writing, not the run, which has done everything else.

    `make` reads and draws what the report shows. Returns the file, or None if it could not be made.
    """
    stop = StopSignal()
    try:
        with stop.listen():
            stop.exit_at_once()
            report = make()
            for section in report.sections:
                if isinstance(section, Note):
                    logger.warning("%s", section.text)
            write_text(folder / name, render_page(report, folder))
            return folder / name
    except (SystemExit, KeyboardInterrupt):
        logger.warning("no %s in %s: a signal ended its writing", name, folder)
    except Exception as error:  # whatever it is: the run has succeeded
        logger.warning("no %s in %s: %s", name, folder, error or type(error).__name__)
        logger.debug("no report", exc_info=True)
    return None


def report_name(folder: Path, kind: Kind) -> str:
    """Name the page of a run: `report.html`, unless that would replace the page of a training."""
    beside = kind == "evaluation" and (folder / NAME).is_file() and was_trained_in(folder)
    return BESIDE if beside else NAME


def close_run(
    folder: Path,
    kind: Kind,
    make: Callable[[], Report],
    *,
    began: float | None,
    scores: str,
    weights: Path | None,
    next_command: Callable[[], str | None],
) -> None:
    """Write the page of a run, and show what came out.

    Args:
        folder: Output folder.
        kind: Training or evaluation.
        make: Function that reads and draws what the page shows.
        began: `time.monotonic` at the start; None if this start did nothing, which leaves the page
            of an earlier one, unless that lacks what was trained since.
        scores: A few lines, or empty.
        weights: Weights of a training.
        next_command: Function that writes the command to run next; called behind the page, which
            notes the threshold of a detector.
    """
    page: Path | None = folder / NAME
    if began is not None or not is_current(folder / NAME):
        page = try_report(folder, make, name=report_name(folder, kind))
    duration = None if began is None else time.monotonic() - began
    lines = closing_lines(
        scores=scores,
        duration=duration,
        weights=weights,
        report=page,
        next_command=next_command(),
    )
    show(*lines)


def is_current(page: Path) -> bool:
    """Return whether the page of a training is there, and is younger than its checkpoints."""
    if not page.is_file():
        return False
    checkpoints = (*page.parent.glob("checkpoints/step_*"), *page.parent.glob("*.pth"))
    return all(path.lstat().st_mtime_ns <= page.stat().st_mtime_ns for path in checkpoints)


def write_csv(file: Path, heads: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Write all rows of a table beside the report; what is not text in a name is escaped.

    Raises:
        UnwritableError: If the disk is full or the folder read-only, for example.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(rows)
    write_text(file, printable(stream.getvalue()))


def write_results(folder: Path, results: Mapping[str, Mapping[str, float | None]]) -> None:
    """Write `results.json`: task -> metric -> percent, with null in place of NaN."""
    content = {
        task: {name: finite_or_none(value) for name, value in metrics.items()}
        for task, metrics in results.items()
    }
    write_text(folder / RESULTS, json.dumps(content, indent=2) + "\n")


def finite_or_none(value: float | None) -> float | None:
    """Return a score; None where there is nothing to score (None, NaN)."""
    return None if value is None or math.isnan(value) else float(value)


def render_page(report: Report, folder: Path, *, limit: int = LIMIT) -> str:
    """Render the page, with links relative to a folder, in at most `limit` bytes.

    Images become smaller, then fewer.
    """
    sections = [section for section in report.sections if _has_content(section)]
    galleries = [section for section in sections if isinstance(section, Gallery)]
    empty = _page(report, folder, sections, [[] for _ in galleries], limit)
    figures = fit_images(galleries, limit - len(empty.encode()))
    return _page(report, folder, sections, figures, limit)


def _has_content(section: Section) -> bool:
    match section:
        case ScoreTable() | Table():
            return bool(section.rows)
        case Curves():
            return has_points(section)
        case Confusion():
            return bool(len(section.classes))
        case Gallery():
            return bool(section.examples)
        case Note():
            return True


def _page(
    report: Report,
    folder: Path,
    sections: Sequence[Section],
    figures: Sequence[Sequence[Figure]],
    limit: int,
) -> str:
    left = iter(figures)
    shown = [
        {
            "section": section,
            "kind": type(section).__name__,
            "anchor": f"s{position}",
            "figures": next(left) if isinstance(section, Gallery) else (),
        }
        for position, section in enumerate(sections)
    ]
    scores = next((section for section in sections if isinstance(section, ScoreTable)), None)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("eva_report", "."),
        autoescape=True,
        finalize=_clean,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "cut": shorten,
        "number": format_number,
        "numeric_columns": _numeric_columns,
        "plot_view": plot_view,
        "confusion_view": confusion_view,
        "are_tiles": lambda figures: len(figures) > 1 and all(one.is_tile for one in figures),
        "gallery_note": lambda gallery, figures: _note(gallery, figures, limit),
    }
    return environment.get_template("page.html.j2").render(
        report=report,
        shown=shown,
        glance=_glance(scores) if scores else [],
        facts=[(name, value) for name, value in report.facts[:_FACTS] if value],
        links=[*_links(report.links, folder)],
        most_rows=_ROWS,
    )


def _clean(value: Any) -> Any:
    """Escape what is not text, and control characters; called for whatever the page shows."""
    if isinstance(value, str) and not isinstance(value, Markup):
        shown = _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), value)
        return printable(shown)
    return value


def shorten(string: str, most: int = 300) -> str:
    """Leave out the end of a long text."""
    string = string.replace("\r\n", "\n")
    return string if len(string) <= most else f"{string[:most]}…"


def format_number(value: Any, digits: int) -> str:
    """Write a number with so many digits, of a float; a dash for None and what is not finite."""
    if value is None or not math.isfinite(value):
        return DASH
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    return f"{value:z,.{digits}f}"


def _numeric_columns(table: Table, most: int) -> list[bool]:
    """Return for each column whether it has numbers and nothing else."""
    kinds = [
        {type(row[column]) for row in table.rows[:most] if column < len(row)} - {type(None)}
        for column in range(min(len(table.heads), _COLUMNS))
    ]
    return [bool(types) and str not in types for types in kinds]


def _glance(scores: ScoreTable) -> list[dict[str, str]]:
    """Return the first scores, which the page shows in large type."""
    tiles = []
    for row in scores.rows:
        for column, value in zip(scores.columns, row.values, strict=True):
            if value is not None and math.isfinite(value):
                column = column if len(scores.columns) > 1 else ""
                name = f"{row.name}, {column}" if " " in column else f"{row.name} {column}".strip()
                shown = format_number(value, scores.digits)
                tiles.append({"value": shown, "name": name, "meaning": row.meaning})
    return tiles[:_TILES]


def _note(gallery: Gallery, figures: Sequence[Figure], limit: int) -> str:
    """Say what the page had no room for."""
    notes = []
    if len(figures) < len(gallery.examples):
        notes.append(f"{len(figures)} of {len(gallery.examples)} are shown")
    if not figures or any(figure.smaller for figure in figures):
        notes.append("the images are smaller than they could be")
    reason = f", so that the page stays below {limit / 1e6:g} MB." if notes else ""
    return " and ".join(notes).capitalize() + reason


def _links(links: Sequence[Link], folder: Path) -> Iterator[dict[str, str]]:
    """Links to files that are there, by relative paths, whose bytes need not be UTF-8."""
    for link in links[:_LINKS]:
        if is_there(str(folder / link.path)):
            path = os.path.relpath(folder / link.path, folder)
            yield {"title": link.title, "path": path, "address": quote(os.fsencode(path))}


# ---- confusion -----------------------------------------------------------------------------------
class Mistake(NamedTuple):
    """A label, what it was taken for, how often, and the share of all of this label."""

    label: int
    taken_for: int
    times: int
    share: float


class ConfusionView(NamedTuple):
    """What the page shows of a confusion."""

    cells: list[list[tuple[float, str, bool]]]  # share, text, whether it is right; or nothing
    unit: str  # what the cells are
    mistakes: list[Mistake]  # the most frequent ones


def confusion_view(content: Confusion, most: int) -> ConfusionView:
    """Choose what a page shows: all counts of some classes, the top mistakes of many.

    `most` rows of a table are shown.
    """
    counts, size = np.asarray(content.counts, np.int64), len(content.classes)
    assert counts.shape == (size, size), (counts.shape, size)
    percent = counts.max(initial=0) >= _LONG_COUNT
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def cell(row: int, column: int) -> tuple[float, str, bool]:
        count, share = counts[row, column], float(shares[row, column])
        label = f"{100 * share:.1f}" if percent else f"{count:,}"
        return share, label if count else "", row == column

    places = range(size if size <= min(IN_A_TABLE, most) else 0)
    return ConfusionView(
        cells=[[cell(row, column) for column in places] for row in places],
        unit=f"percent of a label's {content.unit}" if percent else f"numbers of {content.unit}",
        mistakes=top_mistakes(counts, min(_MISTAKES, most)),
    )


def top_mistakes(counts: NDArray[np.integer], most: int) -> list[Mistake]:
    """Return the mistakes with the highest of (K, K) counts, labels in rows."""
    rows, columns = np.nonzero(counts)  # few, of many classes
    wrong = rows != columns
    rows, columns = rows[wrong], columns[wrong]
    times = counts[rows, columns].astype(np.int64)
    shares = times / counts.sum(axis=1)[rows]
    order = np.argsort(-times, kind="stable")[:most]
    ordered = (values[order].tolist() for values in (rows, columns, times, shares))
    return [Mistake(*values) for values in zip(*ordered, strict=True)]
