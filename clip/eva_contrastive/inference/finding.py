"""Search of images and videos by sentences and images, with the features of a library.

clip = ClipFeatures.from_weights("eva_clip_psz14.pt")
for hit in find(clip, "holiday/", "a dog in the snow", top=5):
    print(f"{hit.score:.2f} {hit.file}")

Shapes: Q queries, N files, R rows (one for an image, one for each frame of a video), D values of a
feature.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from eva_contrastive.inference.features import ClipFeatures, Media, files_of
from eva_contrastive.inference.library import Entry, Library, absolute_path, update
from eva_data.files import DEMO_IMAGE_SUFFIXES, VIDEO_SUFFIXES
from eva_data.inputs import is_video

logger = logging.getLogger(__name__)

_FLAT = 0.02  # range of cosines that say nothing
_ROWS = 16384  # that are compared at once


class Query(NamedTuple):
    """Sentences, images or videos that are looked for, as one feature (D,) of unit length."""

    texts: tuple[str, ...]
    like: tuple[str, ...]
    features: torch.Tensor

    @property
    def title(self) -> str:
        """Its name for people."""
        return " + ".join([*(f'"{sentence}"' for sentence in self.texts), *self.like])


class Hit(NamedTuple):
    """A file that was found, with the cosine of the query and the image or best frame."""

    file: str
    score: float
    frame: int | None  # index of a video's best frame
    time: float | None  # of that frame, in seconds


def make_queries(
    clip: ClipFeatures, *, texts: Sequence[str], like: Sequence[Path], together: bool = False
) -> list[Query]:
    """Make a query of each sentence, image and video, or one of the mean of their features."""
    queries = [Query((sentence,), (), clip.texts(sentence)[0]) for sentence in texts]
    for file in like:
        features = clip.videos(file) if is_video(file) else clip.images(file)
        queries.append(Query((), (str(file),), features[0]))
    if not together or len(queries) == 1:
        return queries
    mean = torch.stack([query.features for query in queries]).mean(dim=0)
    return [Query(tuple(texts), tuple(map(str, like)), F.normalize(mean, dim=0))]


def search(
    library: Library, files: Sequence[Media], queries: Sequence[Query], *, top: int
) -> list[list[Hit]]:
    """Find the files with the largest scores among those that the library has, for each query.

    Hits are in falling order of their scores, files of equal scores in their own.
    """
    paths = [path for path in dict.fromkeys(map(absolute_path, files)) if path in library.entries]
    if not paths:
        return [[] for _ in queries]
    features = np.concatenate([library.entries[path].features for path in paths])  # (R, D)
    asked = torch.stack([query.features for query in queries]).float().cpu().numpy()  # (Q, D)
    parts = range(0, len(features), _ROWS)
    scores = [asked @ features[first : first + _ROWS].astype(np.float32).T for first in parts]
    # kept in half precision, features are not quite of unit length
    cosines = np.concatenate(scores, axis=1).clip(-1, 1)  # (Q, R)
    rows = np.array([len(library.entries[path].features) for path in paths])
    starts = np.cumsum(rows) - rows  # (N,), first row of each file
    best = np.maximum.reduceat(cosines, starts, axis=1)  # (Q, N)
    if len(paths) > 1 and np.ptp(best, axis=1).max() < _FLAT:
        message = (
            "all %d files have scores from %.2f to %.2f, which say nothing: is the CLIP trained?"
        )
        logger.warning(message, len(paths), best.min(), best.max())
    hits = []
    for row, of_files in zip(cosines, best, strict=True):
        order = np.argsort(-of_files, kind="stable")[:top].tolist()
        of_frames = {at: row[starts[at] : starts[at] + rows[at]] for at in order}
        hits.append([_hit(paths[at], library.entries[paths[at]], of_frames[at]) for at in order])
    return hits


def _hit(path: str, entry: Entry, scores: NDArray[np.float32]) -> Hit:
    best = int(scores.argmax())
    if not is_video(path):
        return Hit(path, float(scores[best]), None, None)
    return Hit(path, float(scores[best]), entry.frames[best], entry.times[best])


def find(
    clip: ClipFeatures,
    files: Media | Sequence[Media],
    query: str = "",
    *,
    like: Media | None = None,
    top: int = 20,
) -> list[Hit]:
    """Find the images and videos that are most like a sentence, an image, or both together.

    Features are computed each time; `clip/demo.py search` keeps them on the disk.

    Args:
        clip: The model, with its text tower if there is a text.
        files: A file, a folder, a pattern such as `photos/*.jpg`, or a list of these.
        query: What is looked for.
        like: Image or video that is looked for.
        top: Number of hits.

    Returns:
        The hits in falling order of their scores; files that cannot be read are left out, with a
        warning.

    Raises:
        OSError: If `like` cannot be read.
        ValueError: If a folder or pattern has no files.
    """
    examples = [] if like is None else [Path(like)]
    queries = make_queries(clip, texts=[query] if query else [], like=examples, together=True)
    sources = [files] if isinstance(files, str | os.PathLike) else files
    suffixes = DEMO_IMAGE_SUFFIXES | VIDEO_SUFFIXES
    listed = [file for source in sources for file in files_of(source, suffixes)]
    library = Library(None, {}, width=clip.embed_dim)
    for why in update(library, clip, listed).problems.values():
        logger.warning("%s", why)
    return search(library, listed, queries, top=top)[0]
