"""What the demo found: lines for the terminal, JSON, CSV and a contact sheet."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from eva_contrastive.inference.indexing import Changes
from eva_contrastive.inference.ranking import Ranked
from eva_contrastive.inference.searching import Hit, Query
from eva_data.files import printable, write_text
from eva_data.images import read_image, save_image
from eva_data.video.source import Backend, open_video
from eva_report.demos import FILES_NAMED
from eva_report.drawing import clock, score_text
from eva_report.sheets import SheetSection, Tile, draw_contact_sheet

MOST_TILES = 500  # of a contact sheet
_CAPTIONS, _HITS = 3, 5  # of a file and of a query, in the terminal
_TOTAL_NAMED = 10  # captions of all files together
_LONGEST = 100  # characters of a sentence, in the terminal
_DIGITS = 6  # of a score; times are in milliseconds


def ranking_lines(names: Sequence[str], ranked: Sequence[Sequence[Ranked]]) -> list[str]:
    """Say which captions fit files best.

    Args:
        names: Names of the files.
        ranked: Captions of each, the best first.

    Returns:
        A line for each file, of up to `FILES_NAMED`, and one for all of them.
    """
    lines = []
    if len(names) <= FILES_NAMED:
        lines = [
            f"{name}: {', '.join(map(_caption, captions[:_CAPTIONS]))}"
            for name, captions in zip(names, ranked, strict=True)
        ]
    if len(names) > 1:
        first = Counter(captions[0].text for captions in ranked)
        shown = [f'{count:,} "{_short(text)}"' for text, count in first.most_common(_TOTAL_NAMED)]
        lines.append(f"{len(names):,} files: {', '.join(shown)}")
    return [printable(line) for line in lines]


def _caption(one: Ranked) -> str:
    at = "" if one.time is None else f" at {clock(one.time)}"
    return f'"{_short(one.text)}" {score_text(one.probability)}{at}'


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."


def hits_table(query: Query, hits: Sequence[Hit], *, names: Mapping[str, str]) -> str:
    """Format the first hits of a query.

    Args:
        query: The query.
        hits: Its hits, the best first.
        names: Short name of a file, by its path.

    Returns:
        A line for the query, and one for each of the first hits: score, file, time.
    """
    lines = [
        f"  {score_text(hit.score)}  {names.get(hit.file, hit.file)}{_at(hit.time)}"
        for hit in hits[:_HITS]
    ]
    if (more := len(hits) - _HITS) > 0:
        lines.append(f"  and {more:,} more")
    return printable("\n".join([_short(query.title), *(lines or ["  nothing was found"])]))


def library_line(changes: Changes) -> str:
    """Say how many files were searched, and which features were known from earlier searches."""
    line = f"{changes.known + changes.computed:,} files searched: {changes.computed:,} computed"
    line += f", {changes.known:,} known from before" if changes.known else ""
    return line + (f", {changes.gone:,} forgotten that are gone" if changes.gone else "")


def write_ranking(
    file: Path,
    ranked: Iterable[tuple[str, Sequence[Ranked]]],
    problems: Mapping[str, str],
    settings: Mapping[str, Any],
) -> None:
    """Write captions of files as JSON.

    Args:
        file: The file to write; its folder exists.
        ranked: Name of each file, and its captions.
        problems: Why other files cannot be read, by their names.
        settings: Settings of the demo.

    Raises:
        UnwritableError: If the disk is full, for example.
    """
    entries = [
        {"file": name, "captions": [_without_none(one._asdict()) for one in captions]}
        for name, captions in ranked
    ]
    _write_json(file, settings, {"files": entries + _unreadable(problems)})


def write_hits(
    folder: Path,
    found: Sequence[tuple[Query, Sequence[Hit]]],
    problems: Mapping[str, str],
    settings: Mapping[str, Any],
    *,
    names: tuple[str, str],
) -> None:
    """Write hits as JSON and as CSV.

    Args:
        folder: Folder of the files; it exists.
        found: Queries with their hits.
        problems: Why files cannot be read, by their paths.
        settings: Settings of the demo.
        names: Names of both files.

    Raises:
        UnwritableError: If the disk is full, for example.
    """
    queries = [
        {"texts": query.texts, "like": query.like,
         "hits": [_without_none(hit._asdict()) for hit in hits]}
        for query, hits in found
    ]  # fmt: skip
    _write_json(folder / names[0], settings,
                {"queries": queries, "unreadable": _unreadable(problems)})  # fmt: skip
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["query", "rank", "score", "file", "time"])
    for query, hits in found:
        for place, hit in enumerate(hits, 1):
            time = "" if hit.time is None else round(hit.time, 3)
            row = [query.title, place, round(hit.score, _DIGITS), hit.file, time]
            table.writerow([printable(str(value)) for value in row])
    write_text(folder / names[1], stream.getvalue())


def write_sheet(
    file: Path, found: Sequence[tuple[Query, Sequence[Hit]]], *, backend: Backend = "pyav"
) -> None:
    """Write a contact sheet of the best hits; videos are shown by their best frame.

    Args:
        file: The picture to write.
        found: Queries with their hits; of many, the first of each query are shown.
        backend: Decoder of the videos.

    Raises:
        UnwritableError: If the disk is full, for example.
    """
    each = max(1, MOST_TILES // max(1, len(found)))
    sections = [
        SheetSection(query.title, [_tile(hit, backend) for hit in hits[:each]])
        for query, hits in found
    ]
    save_image(draw_contact_sheet(sections), file)


def _tile(hit: Hit, backend: Backend) -> Tile:
    heading = score_text(hit.score) + _at(hit.time)
    picture = None
    try:
        if hit.frame is None:
            picture = read_image(hit.file, upright=True)
        else:
            with open_video(hit.file, backend=backend) as video:
                picture = Image.fromarray(video.frames([hit.frame])[0])
    except (OSError, IndexError):  # it changed since it was indexed
        heading += "  (cannot be read)"
    return Tile(picture, heading, "/".join(Path(hit.file).parts[-2:]))  # names of folders count


def _at(time: float | None) -> str:
    return "" if time is None else f"  at {clock(time)}"


def _unreadable(problems: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"file": name, "error": why} for name, why in problems.items()]


def _without_none(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what a picture does not have, and round numbers."""
    return {
        name: round(value, 3 if name == "time" else _DIGITS) if isinstance(value, float) else value
        for name, value in entry.items()
        if value is not None
    }


def _write_json(file: Path, settings: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    write_text(file, json.dumps({"settings": settings, **content}, indent=1) + "\n")
