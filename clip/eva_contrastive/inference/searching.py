"""Find the pictures and videos of a library that are most like a sentence or a picture.

Shapes: Q queries, N files, R rows of all files, D values of a feature.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from eva_contrastive.inference.features import ClipFeatures
from eva_contrastive.inference.library import Library
from eva_contrastive.inference.media import is_video

_ROWS = 16384  # at once


class Query(NamedTuple):
    """What is looked for.

    Attributes:
        texts: Sentences.
        like: Pictures or videos.
        features: (D,) of unit length.
    """

    texts: tuple[str, ...]
    like: tuple[str, ...]
    features: Tensor

    @property
    def title(self) -> str:
        """What a person calls it."""
        return " + ".join([*(f'"{text}"' for text in self.texts), *self.like])


class Hit(NamedTuple):
    """A file that was found.

    Attributes:
        file: Path of the file.
        score: Cosine of query and picture, or of query and best frame.
        frame: Index of a video's best frame; None for a picture.
        time: Its time in seconds; None for a picture.
    """

    file: str
    score: float
    frame: int | None
    time: float | None


def make_queries(
    clip: ClipFeatures, *, texts: Sequence[str], like: Sequence[Path], together: bool = False
) -> list[Query]:
    """Compute the features of queries.

    Args:
        clip: The model.
        texts: Sentences.
        like: Pictures or videos.
        together: Make one query of all, the mean of their features.

    Returns:
        A query for each, or one.

    Raises:
        OSError: If a picture or video cannot be read.
        ValueError: If there is none.
    """
    if not texts and not like:
        raise ValueError("there is nothing to look for: give a text or a picture")
    queries = [Query((text,), (), clip.texts(text)[0]) for text in texts]
    for file in like:
        features = clip.videos(file) if is_video(file) else clip.images(file)
        queries.append(Query((), (str(file),), features[0]))
    if not together or len(queries) == 1:
        return queries
    mean = torch.stack([query.features for query in queries]).mean(dim=0)
    return [Query(tuple(texts), tuple(map(str, like)), F.normalize(mean, dim=0))]


def search(
    library: Library, paths: Sequence[str], queries: Sequence[Query], *, top: int
) -> list[list[Hit]]:
    """Find the files with the largest scores, for each query.

    Args:
        library: The library.
        paths: Files of it to search, each once.
        queries: The queries.
        top: Hits of a query.

    Returns:
        For each query its hits in falling order; files of equal scores in their order.
    """
    if not paths:
        return [[] for _ in queries]
    rows = np.array([len(library[path].features) for path in paths])
    starts = np.cumsum(rows) - rows  # (N,), first row of each file
    wanted = torch.stack([query.features for query in queries]).float().cpu().numpy()  # (Q, D)
    scores = _scores(library, paths, wanted)  # (Q, R)
    best = np.maximum.reduceat(scores, starts, axis=1)  # (Q, N)
    return [
        [
            _hit(library, paths[file], row[starts[file] : starts[file] + rows[file]])
            for file in np.argsort(-of_files, kind="stable")[:top].tolist()
        ]
        for row, of_files in zip(scores, best, strict=True)
    ]


def _scores(
    library: Library, paths: Sequence[str], wanted: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Compute the cosines (Q, R), a part of the rows at a time."""
    parts: list[NDArray[np.float32]] = []
    waiting: list[NDArray[np.float16]] = []
    held = 0
    for number, path in enumerate(paths, 1):
        waiting.append(library[path].features)
        held += len(waiting[-1])
        if number == len(paths) or held >= _ROWS:
            parts.append(wanted @ np.concatenate(waiting).astype(np.float32).T)
            waiting, held = [], 0
    return np.concatenate(parts, axis=1)


def _hit(library: Library, path: str, scores: NDArray[np.float32]) -> Hit:
    place = int(scores.argmax())
    # kept in half precision, features are not quite of unit length
    score, entry = min(1.0, max(-1.0, float(scores[place]))), library[path]
    if not is_video(path):
        return Hit(path, score, None, None)
    return Hit(path, score, int(entry.frames[place]), float(entry.times[place]))
