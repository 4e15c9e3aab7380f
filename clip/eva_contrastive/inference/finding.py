"""Search of images and videos by sentences and images, with features that are kept on disk.

clip = ClipFeatures.from_weights("eva_clip_psz14.pt")
for hit in find(clip, "holiday/", "a dog in the snow", top=5):
    print(f"{hit.score:.2f} {hit.file}")

A library is one safetensors file. It holds the features of one file of weights with one
preprocessing; other weights have another library. An image or video is known by its path, and
computed again when its size or time of change differs.

Shapes: Q queries, N files, R rows (one for an image, one for each frame of a video), D values of a
feature.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from eva_contrastive.inference.features import ClipFeatures, Media, files_of
from eva_data.files import DEMO_IMAGE_SUFFIXES, VIDEO_SUFFIXES, require_regular_file
from eva_data.inputs import is_video
from eva_data.progress import ProgressBar
from eva_data.saving import write_tensors
from eva_engine.data.loading import evaluation_loader
from eva_engine.evaluation.counting import IndexedSamples, Mapped

logger = logging.getLogger(__name__)

KIND = "eva_contrastive library 2"
_SECONDS = 30.0  # between two saves
_SHARE = 20  # and at least this many times as long as a save takes
_FLAT = 0.02  # range of cosines that say nothing
_ROWS = 16384  # that are compared at once

State = tuple[int, int]  # size of a file in bytes, and its time of change in nanoseconds


class Entry(NamedTuple):
    """Features of unit length of an image or video, with indexes and times of the frames."""

    state: State  # of the file when it was read
    frames: Sequence[int]
    times: Sequence[float]  # in seconds from the first frame's
    features: NDArray[np.float16]  # (R, D)


class Library:
    """Features by the absolute path of the file that they belong to.

    Args:
        folder: Folder of the library, which exists; None keeps it in memory alone.
        settings: What the features depend on.
        width: D.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any], *, width: int) -> None:
        serialized = json.dumps(settings, sort_keys=True)
        name = f"library-{hashlib.sha256(serialized.encode()).hexdigest()[:12]}.safetensors"
        self.file = None if folder is None else folder / name
        self.width, self._notes = width, {"kind": KIND, "settings": serialized}
        self.entries: dict[str, Entry] = {}
        self._changed, self._saved, self._pause = False, time.monotonic(), _SECONDS
        if self.file is not None and self.file.exists():
            try:
                self.entries = self._read(self.file)
            except (OSError, ValueError, TypeError, SafetensorError) as error:
                logger.warning("%s cannot be used and is computed again (%s)", self.file, error)

    def add(self, path: str, entry: Entry) -> None:
        """Keep the features of a file, in memory until `save`, which happens now and then."""
        self.entries[path] = entry
        self._changed = True
        if time.monotonic() - self._saved >= self._pause:
            self.save()

    def drop(self, paths: Collection[str]) -> None:
        """Forget files."""
        for path in paths:
            self._changed |= self.entries.pop(path, None) is not None

    def save(self) -> None:
        """Write the library, completely or not at all, if it has changed."""
        if not self._changed or self.file is None:
            return
        begin = time.monotonic()
        files = json.dumps({path: entry[:3] for path, entry in self.entries.items()})
        none = np.empty((0, self.width), np.float16)
        arrays = {
            "files": np.frombuffer(files.encode(), np.uint8),
            "features": np.concatenate(
                [none, *(entry.features for entry in self.entries.values())]
            ),
        }
        write_tensors(arrays, self.file, self._notes | {"sha256": _digest_of(arrays)})
        self._changed, self._saved = False, time.monotonic()
        self._pause = max(_SECONDS, _SHARE * (self._saved - begin))

    def _read(self, file: Path) -> dict[str, Entry]:
        require_regular_file(file)
        with safe_open(file, "np") as content:
            notes = content.metadata()
            files, features = (content.get_tensor(name) for name in ("files", "features"))
        whole = self._notes | {"sha256": _digest_of({"files": files, "features": features})}
        if (notes, features.dtype, features.shape[1:]) != (whole, np.float16, (self.width,)):
            raise ValueError("it is not a library of these settings, or is damaged")
        entries = json.loads(files.tobytes())
        ends = np.cumsum([len(frames) for _, frames, _ in entries.values()])
        rows = iter(np.split(features, ends[:-1]))
        return {
            path: Entry((size, change), frames, times, next(rows))
            for path, ((size, change), frames, times) in entries.items()
        }


def _digest_of(arrays: Mapping[str, NDArray[Any]]) -> str:
    return hashlib.sha256(arrays["files"].tobytes() + arrays["features"].tobytes()).hexdigest()


def absolute_paths(file: Media) -> str:
    """Give the path by which a library knows a file; links in it stay."""
    return os.path.abspath(file)  # noqa: PTH100 (which `absolute` leaves as it is: a/../b)


class Changes(NamedTuple):
    """Numbers of files in an update, and the reason for each file that cannot be read."""

    known: int
    computed: int  # new or changed
    gone: int
    problems: dict[str, str]


def update(
    library: Library,
    clip: ClipFeatures,
    files: Sequence[Path],
    *,
    folders: Sequence[Path] = (),
    workers: int = 0,
) -> Changes:
    """Compute the features of files that the library lacks, and save it now and then.

    An interrupted update continues. Files below `folders` that are not among `files` are forgotten.
    """
    states = {path: _state_of(path) for path in map(absolute_paths, files)}
    todo = {
        path: state
        for path, state in states.items()
        if path not in library.entries or library.entries[path].state != state
    }
    starts = tuple(os.path.join(absolute_paths(folder), "") for folder in folders)  # noqa: PTH118
    gone = [path for path in library.entries if path.startswith(starts) and path not in states]
    library.drop(gone)
    problems: dict[str, str] = {}
    try:
        if todo:
            problems = _compute(library, clip, todo, workers=workers)
        library.drop(problems)  # its features are not those of what is there now
    finally:
        library.save()
    return Changes(len(states) - len(todo), len(todo) - len(problems), len(gone), problems)


def _state_of(path: str) -> State:
    try:
        status = Path(path).stat()
    except OSError:  # reading it says what is wrong
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _compute(
    library: Library, clip: ClipFeatures, todo: dict[str, State], *, workers: int
) -> dict[str, str]:
    """Add the features of files to a library; return the reasons for those that cannot be read."""
    problems: dict[str, str] = {}
    paths = list(todo)
    at_once = max(1, clip.batch_size // (clip.read.frames if any(map(is_video, paths)) else 1))
    batches = [part.tolist() for part in torch.arange(len(paths)).split(at_once)]
    with (
        ProgressBar(len(todo), title="reading", unit="file") as bar,
        evaluation_loader(
            IndexedSamples(Mapped(clip.read, paths)),
            workers=min(workers, len(todo)),
            batches=batches,
            collate=list,
        ) as loaded,
    ):
        for batch in loaded:
            problems |= {paths[index]: why for _, _, index, why in batch if why}
            read = [(paths[index], frames) for frames, _, index, why in batch if not why]
            if read:
                values = torch.cat([frames.values for _, frames in read])  # (R, 3, S, S)
                features = clip.images(values).cpu().half().numpy()
                ends = np.cumsum([len(frames.indexes) for _, frames in read])[:-1]
                for (path, frames), rows in zip(read, np.split(features, ends), strict=True):
                    library.add(path, Entry(todo[path], frames.indexes, frames.times, rows))
            bar.update(len(batch))
    return problems


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
    paths = [path for path in dict.fromkeys(map(absolute_paths, files)) if path in library.entries]
    if not paths:
        return [[] for _ in queries]
    features = np.concatenate([library.entries[path].features for path in paths])  # (R, D)
    query_features = (
        torch.stack([query.features for query in queries]).float().cpu().numpy()
    )  # (Q, D)
    parts = range(0, len(features), _ROWS)
    scores = [
        query_features @ features[first : first + _ROWS].astype(np.float32).T for first in parts
    ]
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
    return [
        [
            _hit(
                paths[index],
                library.entries[paths[index]],
                row[starts[index] : starts[index] + rows[index]],
            )
            for index in np.argsort(-of_files, kind="stable")[:top].tolist()
        ]
        for row, of_files in zip(cosines, best, strict=True)
    ]


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
