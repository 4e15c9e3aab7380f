"""The HTML page of a report: self-contained, escaped, below `LIMIT` bytes."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

from eva_data.files import is_there, make_folder, write_text
from eva_report.confusion import confusion
from eva_report.content import (
    Confusion,
    Curves,
    Gallery,
    Link,
    Report,
    ScoreTable,
    Section,
    Table,
)
from eva_report.curves import plot
from eva_report.markup import escaped, paragraph
from eva_report.pictures import Shown, fitted, gallery_markup
from eva_report.style import STYLE
from eva_report.tables import any_table, glance, score_table
from eva_runs.interruption import StopSignal
from eva_runs.record import Kind, was_trained_in

logger = logging.getLogger(__name__)

NAME, BESIDE = "report.html", "evaluation.html"
LIMIT = 5_000_000  # bytes
_ROWS = (200, 60, 20, 5)  # of a table, until the text leaves room
_TEXT_SHARE = 0.5  # of the limit, which the text may have where there are pictures
_FACTS, _LINKS, _STEPS = 80, 60, 20
_CODE = ("command",)  # facts that are read letter by letter
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(folder: Path, report: Report, *, name: str = NAME) -> Path:
    """Write `report.html` into a folder, completely or not at all.

    Args:
        folder: Folder of the run or evaluation.
        report: What it says.
        name: Name of the file.

    Returns:
        The file.

    Raises:
        UnwritableError: If the disk is full or the folder read-only, for example.
    """
    make_folder(folder)
    file = folder / name
    write_text(file, rendered(report, folder))
    return file


def try_report(folder: Path, make: Callable[[], Report], *, name: str = NAME) -> Path | None:
    """Write the report of a run whose results are safe already; a failure is one warning.

    A signal or Ctrl-C ends the writing, not the run, which has done everything else.

    Args:
        folder: Folder of the run or evaluation.
        make: Function that reads and draws what the report shows.
        name: Name of the file.

    Returns:
        The file, or None if it could not be made.
    """
    stop = StopSignal()
    try:
        with stop.listen():
            stop.exit_at_once()
            return write_report(folder, make(), name=name)
    except (SystemExit, KeyboardInterrupt):
        logger.warning(
            "no %s in %s: a signal has ended its writing; all else is done", name, folder
        )
        return None
    except Exception as error:  # whatever it is: the run has succeeded
        logger.warning("no %s in %s: %s", name, folder, error or type(error).__name__)
        logger.debug("no report", exc_info=True)
        return None


def report_name(folder: Path, kind: Kind) -> str:
    """Name the page of a run: `report.html`, unless that would replace the page of a training.

    Args:
        folder: Folder of the run or evaluation.
        kind: Which of both it is.
    """
    beside = kind == "evaluation" and (folder / NAME).is_file() and was_trained_in(folder)
    return BESIDE if beside else NAME


def rendered(report: Report, folder: Path, *, limit: int = LIMIT) -> str:
    """Make the page.

    Args:
        report: What it says.
        folder: Folder that links are relative to.
        limit: Bytes of the page. Long tables are cut first, then pictures become smaller, then
            fewer; of what is left, sections at the end go last.

    Returns:
        The page.
    """
    count = len(report.sections)
    for kept in (count, count // 2, count // 4, count // 8, 0):
        left_out = f"{count - kept} sections are left out: they are too long."
        summary = report.summary if kept == count else f"{report.summary}\n{left_out}"
        shorter = replace(report, sections=report.sections[:kept], summary=summary)
        page = _within(shorter, folder, limit)
        if page is not None:
            return page
    raise ValueError(f"the texts of a report take more than {limit:,} bytes")


def _within(report: Report, folder: Path, limit: int) -> str | None:
    """Make the page with fewer rows, and what room is left for pictures; None without room."""
    galleries = [one for one in report.sections if isinstance(one, Gallery) and one.examples]
    share = _TEXT_SHARE if galleries else 1.0
    for rows in _ROWS:
        empty = _page(report, folder, [Shown([], True)] * len(galleries), rows, limit)
        room = limit - len(empty.encode())
        if room >= limit * (1 - share):
            break
    return _page(report, folder, fitted(galleries, room), rows, limit) if room >= 0 else None


def _page(report: Report, folder: Path, shown: Sequence[Shown], rows: int, limit: int) -> str:
    title = escaped(report.title, most=300)
    scores = next((one for one in report.sections if isinstance(one, ScoreTable)), None)
    body = list(_sections(report.sections, iter(shown), rows, limit))
    links = _links(report.links, folder)
    steps = "".join(
        f"{paragraph(step.text)}<pre><code>{escaped(step.command)}</code></pre>\n"
        for step in report.next_steps[:_STEPS]
    )
    ends = [
        ("Files", "files", links),
        ("Next", "next", steps),
    ]
    body += [
        (f'<a href="#{anchor}">{name}</a>', _section(name, anchor, text))
        for name, anchor, text in ends
        if text
    ]
    contents = "\n".join(entry for entry, _ in body if entry)
    return "".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            '<meta name="color-scheme" content="light dark">\n',
            '<meta name="referrer" content="no-referrer">\n<link rel="icon" href="data:,">\n',
            f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n",
            f"<h1>{title}</h1>\n{paragraph(report.summary, kind='summary')}",
            glance(scores) if scores else "",
            f'<nav aria-label="sections">\n{contents}\n</nav>\n' if len(body) > 1 else "",
            _facts(report.facts),
            *(text for _, text in body),
            "</main>\n</body>\n</html>\n",
        ]
    )


def _section(title: str, anchor: str, inside: str) -> str:
    heading = f"<h2>{escaped(title, most=200)}</h2>\n"
    return f'<section id="{anchor}">\n{heading}{inside}</section>\n'


def _sections(
    sections: Sequence[Section], shown: Iterator[Shown], rows: int, limit: int
) -> Iterator[tuple[str, str]]:
    """Yield the entry of the contents, and the HTML, of each section; plots stand side by side."""
    numbered = enumerate(sections)
    for plots, group in groupby(numbered, lambda pair: isinstance(pair[1], Curves)):
        made = []
        for number, one in group:
            inside = _inside(one, shown, rows, limit)
            if inside:
                entry = f'<a href="#s{number}">{escaped(one.title, most=80)}</a>'
                made.append((entry, _section(one.title, f"s{number}", inside)))
        if plots and made:
            entries = "\n".join(entry for entry, _ in made)
            yield entries, f'<div class="plots">{"".join(text for _, text in made)}</div>\n'
        else:
            yield from made


def _inside(one: Section, shown: Iterator[Shown], rows: int, limit: int) -> str:
    match one:
        case ScoreTable():
            return score_table(one, rows) if one.rows else ""
        case Table():
            return any_table(one, rows) if one.rows else ""
        case Curves():
            return plot(one)
        case Confusion():
            return confusion(one, rows) if len(one.classes) else ""
        case Gallery():
            return gallery_markup(one, next(shown), limit) if one.examples else ""


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    def value(name: str, text: str) -> str:
        shown = escaped(text)
        return f"<code>{shown}</code>" if name in _CODE else shown

    pairs = "".join(
        f"<dt>{escaped(name, most=100)}</dt><dd>{value(name, text)}</dd>\n"
        for name, text in facts[:_FACTS]
        if text
    )
    return f'<dl class="facts">\n{pairs}</dl>\n' if pairs else ""


def _links(links: Sequence[Link], folder: Path) -> str:
    """Links to files that are there, by relative paths, whose bytes need not be UTF-8."""
    items = []
    for link in links[:_LINKS]:
        if is_there(str(folder / link.path)):
            path = os.path.relpath(folder / link.path, folder)
            address = quote(os.fsencode(path))
            place = "" if path in link.title else f" <small>{escaped(path, most=200)}</small>"
            items.append(f'<li><a href="{address}">{escaped(link.title)}</a>{place}</li>\n')
    return f'<ul class="links">\n{"".join(items)}</ul>\n' if items else ""
