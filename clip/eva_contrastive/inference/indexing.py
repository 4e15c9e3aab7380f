"""Bring a library up to date: compute what is new or changed, forget what is gone.

Shapes: R rows of a file, D values of a feature.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from eva_contrastive.inference.features import ClipFeatures
from eva_contrastive.inference.library import Entry, Library, State
from eva_contrastive.inference.media import Media, MediaReader, Seen, is_video
from eva_data.progress import ProgressBar
from eva_engine.data.loading import evaluation_loader


class Changes(NamedTuple):
    """What an update did.

    Attributes:
        known: Files that had their features.
        computed: Files that are new or changed.
        gone: Files that are no longer there.
        problems: A sentence for each file that cannot be read, by its path.
    """

    known: int
    computed: int
    gone: int
    problems: dict[str, str]


def absolute(file: Media) -> str:
    """Give the path by which a library knows a file; links in it stay."""
    return os.path.abspath(file)  # noqa: PTH100 (which `absolute` leaves as it is: a/../b)


def update(
    library: Library,
    clip: ClipFeatures,
    files: Sequence[Path],
    *,
    folders: Sequence[Path] = (),
    workers: int = 0,
) -> Changes:
    """Compute the features of files that the library lacks, and save it.

    It is saved now and then, so that an interrupted update continues.

    Args:
        library: The library.
        clip: The model.
        files: Pictures and videos.
        folders: Folders of which `files` has everything that is there.
        workers: Processes that load.

    Returns:
        What was done.

    Raises:
        UnwritableError: If the library cannot be written.
        FloatingPointError: If the number format is too small for the model.
    """
    todo: dict[str, State] = {}
    problems: dict[str, str] = {}
    paths = dict.fromkeys(absolute(file) for file in files)
    for path in paths:
        try:
            state = State.of(Path(path))
        except OSError as error:
            problems[path] = f"{path} cannot be read ({error.strerror})"
            continue
        if not library.is_current(path, state):
            todo[path] = state
    known = len(paths) - len(todo) - len(problems)
    gone = library.drop_below([absolute(folder) for folder in folders], paths)
    try:
        problems |= _compute(library, clip, todo, workers=workers)
        library.drop(problems)  # what was there before is not what is there now
    finally:
        library.save()
    return Changes(known, len(todo.keys() - problems.keys()), gone, problems)


def _compute(
    library: Library, clip: ClipFeatures, todo: dict[str, State], *, workers: int
) -> dict[str, str]:
    problems: dict[str, str] = {}
    files = _Files(list(todo), clip.read)
    some_video = any(is_video(path) for path in todo)
    at_once = max(1, clip.batch_size // (clip.read.frames if some_video else 1))
    if not todo:
        return problems
    with (
        ProgressBar(len(todo), what="reading", unit="file") as bar,
        evaluation_loader(
            files, workers=min(workers, len(todo)), batch_size=at_once, collate=list
        ) as batches,
    ):
        for batch in batches:
            good = [(path, seen) for path, seen, _ in batch if seen is not None]
            for path, entry in zip([p for p, _ in good], _entries(clip, todo, good), strict=True):
                library.add(path, entry)
            for path, _, why in batch:
                if why:
                    problems[path] = why
            library.save_now_and_then()
            bar.update(len(batch))
    return problems


def _entries(
    clip: ClipFeatures, todo: dict[str, State], seen: Sequence[tuple[str, Seen]]
) -> list[Entry]:
    """Compute all frames of several files at once."""
    if not seen:
        return []
    features = clip.images(torch.cat([one.pixels for _, one in seen])).cpu().half().numpy()
    ends = np.cumsum([len(one.frames) for _, one in seen])
    return [
        Entry(todo[path], rows, np.array(one.frames, np.int32), np.array(one.times, np.float64))
        for (path, one), rows in zip(seen, np.split(features, ends[:-1]), strict=True)
    ]


class _Files(Dataset[tuple[str, Seen | None, str]]):
    """What the tower sees of each file, or None and why it cannot be read."""

    def __init__(self, paths: Sequence[str], read: MediaReader) -> None:
        self.paths, self.read = paths, read

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, Seen | None, str]:
        path = self.paths[index]
        try:
            return path, self.read(path), ""
        except OSError as error:
            return path, None, str(error)
