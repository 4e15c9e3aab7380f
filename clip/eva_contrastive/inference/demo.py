"""Ranking and search for people: what `clip/demo.py` computes, says and writes.

Shapes: K captions, F frames of a video, D values of a feature.
"""

import argparse
import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from eva_backbone.checkpoints.verification import sha256_of
from eva_contrastive.inference.features import ClipFeatures, is_video
from eva_contrastive.inference.finding import (
    Changes,
    Hit,
    Library,
    Query,
    absolute,
    make_queries,
    search,
    update,
)
from eva_contrastive.model.open_clip_files import weights_file
from eva_data.files import make_folder, printable, write_text
from eva_data.images import read_image, save_image
from eva_data.inputs import Job
from eva_data.video.source import Backend, open_video
from eva_report.demos import FILES_NAMED, do_jobs
from eva_report.drawing import clock, score_text
from eva_report.sheets import SheetSection, Tile, draw_contact_sheet
from eva_runs.commands import say
from eva_runs.output_folder import locked

RANKING = "ranking.json"
RESULTS = ("results.json", "results.csv", "contact_sheet.jpg")
MOST_TILES = 500  # of a contact sheet
_CAPTIONS, _HITS = 3, 5  # of a file and of a query, in the terminal
_TOTAL_NAMED = 10  # captions of all files together
_LONGEST = 100  # characters of a sentence, in the terminal
_DIGITS = 6  # of a score; times are in milliseconds


class Ranked(NamedTuple):
    """A caption of an image or video, whose feature is the mean of its frames'."""

    text: str
    probability: float  # see `ClipFeatures.probabilities`
    cosine: float
    time: float | None  # of the best frame of a video, in seconds


def rank(clip: ClipFeatures, file: Path, texts: Sequence[str], features: Tensor) -> list[Ranked]:
    """Rank captions with features (K, D) for an image or a video, which is read."""
    frames = clip.frames(file)
    mean = F.normalize(frames.values.mean(dim=0, keepdim=True), dim=-1)  # (1, D)
    cosines = (mean @ features.T)[0].tolist()
    probabilities = clip.probabilities(mean, features)[0].tolist()
    best = (frames.values @ features.T).argmax(dim=0).tolist()  # (K,), of the frames
    times = [frames.times[frame] if is_video(file) else None for frame in best]
    ranked = map(Ranked, texts, probabilities, cosines, times)
    return sorted(ranked, key=lambda one: -one.cosine)


def load(options: argparse.Namespace) -> ClipFeatures:
    """Load the model of the options."""
    names = ("image_size", "mean", "std", "frames", "batch_size", "device", "precision", "backend")
    given = {name: getattr(options, name) for name in names}
    return ClipFeatures.from_weights(options.weights, **given)


def _settings(options: argparse.Namespace, clip: ClipFeatures) -> dict[str, Any]:
    return {
        "weights": options.weights, "image_size": clip.image_size, "mean": clip.mean,
        "std": clip.std, "frames": options.frames,
        "precision": str(clip.dtype).removeprefix("torch."),
    }  # fmt: skip


def rank_files(clip: ClipFeatures, options: argparse.Namespace, jobs: Sequence[Job]) -> list[str]:
    """Rank the captions for each file; returns the reason for each that cannot be read."""
    features = clip.texts(options.text)
    if options.output is not None:
        make_folder(options.output)  # fails now, not after hours
    found: list[tuple[Job, list[Ranked]]] = []
    problems: dict[str, str] = {}

    def do(job: Job) -> str | None:
        try:
            found.append((job, rank(clip, job.source, options.text, features)[: options.top]))
        except (OSError, FloatingPointError) as error:
            problems[str(job.source)] = str(error)
            return str(error)
        return None

    sentences = do_jobs(jobs, do, title="ranking")
    for line in _ranking_lines(found):
        say(printable(line))
    if options.output is not None:
        files: list[Any] = [
            {"file": str(job.source), "captions": [_entry(one) for one in ranked]}
            for job, ranked in found
        ]
        content = {"files": files + _unreadable(problems)}
        _write_json(options.output / RANKING, _settings(options, clip), content)
        say(f"output   {options.output / RANKING}")
    return sentences


def _ranking_lines(found: Sequence[tuple[Job, Sequence[Ranked]]]) -> list[str]:
    """Name the captions that fit files best: a line for each file of a few, and one for all."""
    lines = []
    for job, ranked in found if len(found) <= FILES_NAMED else ():
        captions = [
            f'"{_short(one.text)}" {score_text(one.probability)}{_at(one.time, " at ")}'
            for one in ranked[:_CAPTIONS]
        ]
        lines.append(f"{job.name}: {', '.join(captions)}")
    if len(found) > 1:
        first = Counter(ranked[0].text for _, ranked in found)
        shown = [f'{count:,} "{_short(text)}"' for text, count in first.most_common(_TOTAL_NAMED)]
        lines.append(f"{len(found):,} files: {', '.join(shown)}")
    return lines


def search_files(clip: ClipFeatures, options: argparse.Namespace, jobs: Sequence[Job]) -> list[str]:
    """Search files by sentences and images; returns the reason for each that cannot be read."""
    queries = make_queries(clip, texts=options.text, like=options.like, together=options.together)
    settings, output = _settings(options, clip), options.output
    make_folder(output)
    known = settings | {"weights": sha256_of(weights_file(options.weights))}
    files = [job.source for job in jobs]
    with locked(options.cache):
        library = Library(options.cache, known, width=clip.embed_dim)
        folders = [folder for folder in options.inputs if folder.is_dir()]
        changes = update(library, clip, files, workers=options.workers, folders=folders)
    found = list(zip(queries, search(library, files, queries, top=options.top), strict=True))
    names = {absolute(job.source): job.name for job in jobs}
    for query, hits in found:
        say(printable(_hits_table(query, hits, names=names)))
    say(_library_line(changes))
    _write_hits(output, found, changes.problems, settings)
    _write_sheet(output / RESULTS[2], found, backend=options.backend)
    say(f"output   {output} ({', '.join(reversed(RESULTS))})")
    return list(changes.problems.values())


def _hits_table(query: Query, hits: Sequence[Hit], *, names: Mapping[str, str]) -> str:
    """Format a query and its first hits: score, file by its short name, time."""
    lines = [
        f"  {score_text(hit.score)}  {names.get(hit.file, hit.file)}{_at(hit.time)}"
        for hit in hits[:_HITS]
    ]
    if (more := len(hits) - _HITS) > 0:
        lines.append(f"  and {more:,} more")
    return "\n".join([_short(query.title), *(lines or ["  nothing was found"])])


def _library_line(changes: Changes) -> str:
    """Count the files that were searched, and those whose features were known before."""
    line = f"{changes.known + changes.computed:,} files searched: {changes.computed:,} computed"
    line += f", {changes.known:,} known from before" if changes.known else ""
    return line + (f", {changes.gone:,} forgotten that are gone" if changes.gone else "")


def _write_hits(
    folder: Path,
    found: Sequence[tuple[Query, Sequence[Hit]]],
    problems: Mapping[str, str],
    settings: Mapping[str, Any],
) -> None:
    """Write hits as JSON, with the files that cannot be read, and as CSV."""
    queries = [
        {"texts": query.texts, "like": query.like, "hits": [_entry(hit) for hit in hits]}
        for query, hits in found
    ]
    content = {"queries": queries, "unreadable": _unreadable(problems)}
    _write_json(folder / RESULTS[0], settings, content)
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["query", "rank", "score", "file", "time"])
    for query, hits in found:
        for place, hit in enumerate(hits, 1):
            time = "" if hit.time is None else round(hit.time, 3)
            row = [query.title, place, round(hit.score, _DIGITS), hit.file, time]
            table.writerow([printable(str(value)) for value in row])
    write_text(folder / RESULTS[1], stream.getvalue())


def _write_sheet(
    file: Path, found: Sequence[tuple[Query, Sequence[Hit]]], *, backend: Backend
) -> None:
    """Write a contact sheet of the best hits; videos are shown by their best frame."""
    each = max(1, MOST_TILES // max(1, len(found)))
    sections = [
        SheetSection(query.title, [_tile(hit, backend) for hit in hits[:each]])
        for query, hits in found
    ]
    save_image(draw_contact_sheet(sections), file)


def _tile(hit: Hit, backend: Backend) -> Tile:
    heading, image = score_text(hit.score) + _at(hit.time), None
    try:
        if hit.frame is None:
            image = read_image(hit.file, upright=True)
        else:
            with open_video(hit.file, backend=backend) as video:
                image = Image.fromarray(video.frames([hit.frame])[0])
    except (OSError, IndexError):  # it changed since it was indexed
        heading += "  (cannot be read)"
    return Tile(image, heading, "/".join(Path(hit.file).parts[-2:]))  # names of folders count


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."


def _at(time: float | None, words: str = "  at ") -> str:
    return "" if time is None else f"{words}{clock(time)}"


def _unreadable(problems: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"file": name, "error": why} for name, why in problems.items()]


def _entry(one: Ranked | Hit) -> dict[str, Any]:
    """Leave out what an image does not have, and round numbers."""
    return {
        name: round(value, 3 if name == "time" else _DIGITS) if isinstance(value, float) else value
        for name, value in one._asdict().items()
        if value is not None
    }


def _write_json(file: Path, settings: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    write_text(file, json.dumps({"settings": settings, **content}, indent=1) + "\n")
