"""Ranking and search for people: what `clip/demo.py` computes, says and writes.

Shapes: K captions, F frames of a video, D values of a feature.
"""

import argparse
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from eva_backbone.checkpoints.verification import sha256_of
from eva_contrastive.inference.features import ClipFeatures
from eva_contrastive.inference.finding import Hit, Query, make_queries, search
from eva_contrastive.inference.library import Library, absolute_path, update
from eva_contrastive.model.open_clip_files import weights_file
from eva_data.files import printable
from eva_data.images import read_image, save_image
from eva_data.inputs import Job, is_video
from eva_data.neighbours import ABOUT, Neighbours
from eva_data.saving import make_folder, write_text
from eva_data.video.source import open_video
from eva_engine.commands.options import take_options
from eva_report.demos import FILES_NAMED, run_jobs
from eva_report.drawing import clock, score_text
from eva_report.page import write_csv
from eva_report.sheets import SheetSection, Tile, draw_contact_sheet
from eva_runs.batch import index_features
from eva_runs.commands import echo
from eva_runs.output_folder import lock_folder
from eva_runs.precision import precision_of
from eva_runs.shards import read_manifest

logger = logging.getLogger(__name__)

MOST_TILES = 500  # of a contact sheet
_MOST_SECTIONS = 150  # of one: a JPEG has 65,500 px at most
_CAPTIONS, _HITS = 3, 5  # of a file and of a query, in the terminal
_TOTAL_NAMED = 10  # captions of all files together
_LONGEST = 100  # characters of a sentence, in the terminal
_FLAT = 0.75  # least probability of the captions over the largest that says nothing
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
    return sorted(ranked, key=lambda caption: -caption.cosine)


def load(options: argparse.Namespace) -> ClipFeatures:
    """Load the model of the options."""
    settings = take_options(ClipFeatures.from_weights, options)
    return ClipFeatures.from_weights(options.weights, **settings)


def _settings(options: argparse.Namespace, clip: ClipFeatures) -> dict[str, Any]:
    return {
        "weights": options.weights,
        "image_size": clip.image_size,
        "mean": clip.mean,
        "std": clip.std,
        "frames": options.frames,
        "precision": precision_of(clip.visual),
    }


def rank_files(clip: ClipFeatures, options: argparse.Namespace, jobs: Sequence[Job]) -> list[str]:
    """Rank the captions for each file; returns the reason for each that cannot be read."""
    features = clip.texts(options.text)
    if options.output is not None:
        make_folder(options.output)  # fails now, not after hours
    ranking: dict[str, list[Ranked]] = {}
    entries, unreadable, flat = list[Any](), list[Any](), list[bool]()

    def do(job: Job) -> str | None:
        try:
            ranked = rank(clip, job.source, options.text, features)
        except (OSError, FloatingPointError) as error:
            unreadable.append({"file": str(job.source), "error": str(error)})
            return str(error)
        flat.append(ranked[-1].probability > _FLAT * ranked[0].probability)
        ranking[job.name] = ranked = ranked[: options.top]
        entries.append(
            {"file": str(job.source), "captions": [entry(caption) for caption in ranked]}
        )
        return None

    sentences = run_jobs(jobs, do, title="ranking")
    for line in _ranking_lines(ranking):
        echo(printable(line))
    if len(options.text) > 1 and flat and all(flat):
        logger.warning("all captions are as probable, which says nothing: is the CLIP trained?")
    if options.output is not None:
        file = options.output / "ranking.json"
        _write_json(file, settings=_settings(options, clip), files=entries + unreadable)
        echo(f"output   {file}")
    return sentences


def _ranking_lines(ranking: Mapping[str, Sequence[Ranked]]) -> list[str]:
    """Name the captions that fit files best: a line for each file of a few, and one for all."""
    lines = []
    for name, ranked in ranking.items() if len(ranking) <= FILES_NAMED else ():
        captions = [
            f'"{_short(caption.text)}" {score_text(caption.probability)}{_at(caption.time)}'
            for caption in ranked[:_CAPTIONS]
        ]
        lines.append(f"{name}: {', '.join(captions)}")
    if len(ranking) > 1:
        first = Counter(ranked[0].text for ranked in ranking.values())
        first_captions = [
            f'{count:,} "{_short(caption)}"' for caption, count in first.most_common(_TOTAL_NAMED)
        ]
        lines.append(f"{len(ranking):,} files: {', '.join(first_captions)}")
    return lines


def search_files(clip: ClipFeatures, options: argparse.Namespace, jobs: Sequence[Job]) -> list[str]:
    """Search files by sentences and images; returns the reason for each that cannot be read."""
    queries = make_queries(clip, texts=options.text, like=options.like, together=options.together)
    settings = _settings(options, clip)
    make_folder(options.output)
    cache_settings = settings | {"weights": sha256_of(weights_file(options.weights))}
    files = [job.source for job in jobs]
    with lock_folder(options.cache):
        library = Library(options.cache, cache_settings, width=clip.embed_dim)
        folders = [folder for folder in options.inputs if folder.is_dir()]
        changes = update(library, clip, files, workers=options.workers, folders=folders)
    results = list(zip(queries, search(library, files, queries, top=options.top), strict=True))
    line = f"{changes.known + changes.computed:,} files searched: {changes.computed:,} computed"
    line += f", {changes.known:,} known from before" if changes.known else ""
    line += f", {changes.gone:,} forgotten that are gone" if changes.gone else ""
    names = {absolute_path(job.source): job.name for job in jobs}
    _show_found(results, options, clip, names=names, line=line, problems=changes.problems)
    return list(changes.problems.values())


def search_index(clip: ClipFeatures, options: argparse.Namespace, _: Sequence[Job]) -> list[str]:
    """Search an index, or the features of a batch, which get an exact index in the cache."""
    (folder,) = options.inputs
    queries = make_queries(clip, texts=options.text, like=options.like, together=options.together)
    make_folder(options.output)
    index = open_index(folder, options.weights, options.cache)
    results = list(zip(queries, find_in_index(index, queries, top=options.top), strict=True))
    line = f"{len(index.features):,} features searched"
    _show_found(results, options, clip, names={}, line=line)
    return []


def open_index(folder: Path, weights: str, cache: Path) -> Neighbours:
    """Open an index of embeddings by these weights, or make one of a batch's in the cache.

    Raises:
        ValueError: If they are other features.
    """
    index = Neighbours(folder) if (folder / ABOUT).exists() else None
    options = dict((index.about if index else read_manifest(folder)).get("options") or {})
    kind = options.get("kind")
    if kind != "embedding":
        message = f"features of kind {kind}" if kind else "no features"
        raise ValueError(
            f"{folder} has {message}: CLIP searches eva batch features --kind embedding"
        )
    if index is None:
        with lock_folder(cache):
            name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:8]
            index_folder = cache / f"index-{name}"
            index_features(folder, index_folder, approximate=False)
        folder, index = index_folder, Neighbours(index_folder)
    if index.about.get("sha256") != sha256_of(weights_file(weights)):
        weights_of_index = options.get("weights")
        raise ValueError(f"{folder} has features of {weights_of_index}, not of {weights}")
    return index


def find_in_index(index: Neighbours, queries: Sequence[Query], *, top: int) -> list[list[Hit]]:
    """Find what an index has for each query."""
    query_features = torch.stack([query.features for query in queries]).float().cpu().numpy()
    hits = index.search(query_features, top=top)
    return [[Hit(name, score, None, None) for name, score in of] for of in hits]


def _show_found(
    results: Sequence[tuple[Query, Sequence[Hit]]],
    options: argparse.Namespace,
    clip: ClipFeatures,
    *,
    names: Mapping[str, str],
    line: str,
    problems: Mapping[str, str] | None = None,
) -> None:
    """Say and write what was found for each query."""
    output, settings = options.output, _settings(options, clip)
    for query, hits in results:
        echo(printable(_hits_table(query, hits, names=names)))
    echo(line)
    entries = [
        {"texts": query.texts, "like": query.like, "hits": [entry(hit) for hit in hits]}
        for query, hits in results
    ]
    unreadable = [{"file": name, "error": why} for name, why in (problems or {}).items()]
    _write_json(output / "results.json", settings=settings, queries=entries, unreadable=unreadable)
    heads = ["query", "rank", "score", "file", "time"]
    rows = [
        (query.title, rank, hit["score"], hit["file"], hit.get("time", ""))
        for query, hits in results
        for rank, hit in enumerate(map(entry, hits), 1)
    ]
    write_csv(output / "results.csv", heads, rows)
    each = max(1, MOST_TILES // len(results))
    sections = [
        SheetSection(query.title, [tile(hit) for hit in hits[:each]])
        for query, hits in results[:_MOST_SECTIONS]
    ]
    left_out = len(results) - len(sections)
    if left_out > 0:
        echo(f"contact_sheet.jpg leaves {left_out} queries out")
    save_image(draw_contact_sheet(sections), output / "contact_sheet.jpg")
    echo(f"output   {output} (contact_sheet.jpg, results.csv, results.json)")


def _hits_table(query: Query, hits: Sequence[Hit], *, names: Mapping[str, str]) -> str:
    """Format a query and its first hits: score, file by its short name, time."""
    lines = [
        f"  {score_text(hit.score)}  {names.get(hit.file, hit.file)}{_at(hit.time)}"
        for hit in hits[:_HITS]
    ]
    left_out = len(hits) - _HITS
    if left_out > 0:
        lines.append(f"  and {left_out:,} more")
    return "\n".join([_short(query.title), *(lines or ["  nothing was found"])])


def tile(hit: Hit) -> Tile:
    """Show a hit, of a video its best frame."""
    heading, image = score_text(hit.score) + _at(hit.time), None
    try:
        if hit.frame is None:
            image = read_image(hit.file, upright=True)
        else:
            with open_video(hit.file) as video:
                image = Image.fromarray(video.frames([hit.frame])[0])
    except (OSError, IndexError):  # it changed since it was indexed
        heading += "  (cannot be read)"
    return Tile(image, heading, "/".join(Path(hit.file).parts[-2:]))  # names of folders count


def _short(sentence: str) -> str:
    return shorten(sentence, _LONGEST, placeholder=" ...")


def _at(time: float | None) -> str:
    return "" if time is None else f"  at {clock(time)}"


def entry(result: Ranked | Hit) -> dict[str, Any]:
    """Leave out what an image does not have, and round numbers."""
    return {
        name: round(value, 3 if name == "time" else _DIGITS) if isinstance(value, float) else value
        for name, value in result._asdict().items()
        if value is not None
    }


def _write_json(file: Path, **content: Any) -> None:
    write_text(file, json.dumps(content, indent=1) + "\n")
