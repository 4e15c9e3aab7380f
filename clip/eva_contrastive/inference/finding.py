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
from torch import Tensor
from torch.utils.data import Dataset

from eva_contrastive.inference.features import ClipFeatures, Media, MediaReader, Seen, is_video
from eva_data.files import DEMO_IMAGE_SUFFIXES, VIDEO_SUFFIXES, require_regular_file, write_tensors
from eva_data.index import Names
from eva_data.inputs import files_at, is_several
from eva_data.progress import ProgressBar
from eva_engine.data.loading import evaluation_loader

logger = logging.getLogger(__name__)

KIND = "eva_contrastive library 1"
_PARTS = ("features", "frames", "times", "rows", "sizes", "changes")
_SECONDS = 30.0  # between two saves
_SHARE = 20  # and at least this many times as long as a save takes
_ROWS = 16384  # that are compared at once


class State(NamedTuple):
    """Size in bytes and time of change in nanoseconds of a file."""

    size: int
    change: int

    @classmethod
    def of(cls, file: Path) -> "State":
        """Look at a file; raises an OSError if it is not there."""
        found = file.stat()
        return cls(found.st_size, found.st_mtime_ns)


class Entry(NamedTuple):
    """Features of an image or video.

    Attributes:
        state: The file when it was read.
        features: (R, D) float16, of unit length.
        frames: (R,) int32, indexes of the frames.
        times: (R,) float64, seconds from the first frame's; 0 for an image.
    """

    state: State
    features: NDArray[np.float16]
    frames: NDArray[np.int32]
    times: NDArray[np.float64]


class Changes(NamedTuple):
    """Result of an update.

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


class Library:
    """Features by the absolute path of the file that they belong to.

    Args:
        folder: Folder of the library, which exists; None keeps it in memory alone.
        settings: What the features depend on.
        width: D.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any], *, width: int) -> None:
        self._settings, self.width = json.dumps(settings, sort_keys=True), width
        name = f"library-{hashlib.sha256(self._settings.encode()).hexdigest()[:12]}.safetensors"
        self.file = None if folder is None else folder / name
        self.entries: dict[str, Entry] = {}
        self._changed, self._saved, self._pause = False, time.monotonic(), _SECONDS

    def load(self) -> None:
        """Read what was kept; a damaged or foreign file is not used, with a warning."""
        if self.file is None or not self.file.exists():
            return
        try:
            self.entries = self._read(self.file)
        except (OSError, ValueError, TypeError, LookupError, SafetensorError) as error:
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
            if self.entries.pop(path, None) is not None:
                self._changed = True

    def save(self) -> None:
        """Write the library, completely or not at all, if it has changed.

        Raises:
            UnwritableError: If the disk is full, for example.
        """
        if not self._changed or self.file is None:
            return
        begin = time.monotonic()
        notes = {"kind": KIND, "settings": self._settings}
        write_tensors(self._arrays(), self.file, notes)
        self._changed, self._saved = False, time.monotonic()
        self._pause = max(_SECONDS, _SHARE * (self._saved - begin))

    def _arrays(self) -> dict[str, NDArray[Any]]:
        entries = list(self.entries.values())
        states = np.array([entry.state for entry in entries], np.int64).reshape(-1, 2)
        none = np.empty((0, self.width), np.float16)
        return {
            **Names.collect(self.entries).arrays(),
            "features": np.concatenate([none, *(entry.features for entry in entries)]),
            "frames": np.concatenate([np.empty(0, np.int32), *(e.frames for e in entries)]),
            "times": np.concatenate([np.empty(0), *(entry.times for entry in entries)]),
            "rows": np.array([len(entry.features) for entry in entries], np.int64),
            "sizes": states[:, 0],
            "changes": states[:, 1],
        }

    def _read(self, file: Path) -> dict[str, Entry]:
        require_regular_file(file)
        with safe_open(file, "np") as content:
            notes = content.metadata() or {}
            if (notes.get("kind"), notes.get("settings")) != (KIND, self._settings):
                raise ValueError("it is of another kind, or was written with other settings")
            arrays = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        names = list(Names(arrays))
        features, frames, times, rows, sizes, changes = (arrays[name] for name in _PARTS)
        ends = np.cumsum(rows)
        count = int(ends[-1]) if len(ends) else 0
        shapes = [part.shape for part in (features, frames, times, rows, sizes, changes)]
        wanted = [(count, self.width), (count,), (count,), *3 * [(len(names),)]]
        if shapes != wanted or (len(rows) and rows.min() < 1):
            raise ValueError(f"its arrays have shapes {shapes}, expected {wanted}")
        if features.dtype != np.float16 or not np.isfinite(features).all():
            raise ValueError(f"its features are {features.dtype}, or not finite")
        parts = zip(*(np.split(values, ends[:-1]) for values in (features, frames, times)),
                    strict=True)  # fmt: skip
        states = zip(sizes.tolist(), changes.tolist(), strict=True)
        return {
            name: Entry(State(*state), *part)
            for name, state, part in zip(names, states, parts, strict=False)
        }


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
        files: Images and videos.
        folders: Folders of which `files` has everything that is there.
        workers: Processes that load.

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
        if path not in library.entries or library.entries[path].state != state:
            todo[path] = state
    known = len(paths) - len(todo) - len(problems)
    starts = tuple(os.path.join(absolute(folder), "") for folder in folders)  # noqa: PTH118
    gone = [path for path in library.entries if path.startswith(starts) and path not in paths]
    library.drop(gone)
    try:
        problems |= _compute(library, clip, todo, workers=workers)
        library.drop(problems)  # its features are not those of what is there now
    finally:
        library.save()
    return Changes(known, len(todo.keys() - problems.keys()), len(gone), problems)


def _compute(
    library: Library, clip: ClipFeatures, todo: dict[str, State], *, workers: int
) -> dict[str, str]:
    problems: dict[str, str] = {}
    if not todo:
        return problems
    some_video = any(is_video(path) for path in todo)
    at_once = max(1, clip.batch_size // (clip.read.frames if some_video else 1))
    with (
        ProgressBar(len(todo), what="reading", unit="file") as bar,
        evaluation_loader(
            _Files(list(todo), clip.read),
            workers=min(workers, len(todo)), batch_size=at_once, collate=list,
        ) as batches,
    ):  # fmt: skip
        for batch in batches:
            good = [(path, seen) for path, seen, _ in batch if seen is not None]
            for path, entry in _entries(clip, todo, good):
                library.add(path, entry)
            problems |= {path: why for path, _, why in batch if why}
            bar.update(len(batch))
    return problems


def _entries(
    clip: ClipFeatures, todo: dict[str, State], seen: Sequence[tuple[str, Seen]]
) -> list[tuple[str, Entry]]:
    """Compute all frames of several files at once."""
    if not seen:
        return []
    features = clip.images(torch.cat([one.pixels for _, one in seen])).cpu().half().numpy()
    ends = np.cumsum([len(one.frames) for _, one in seen])
    return [
        (path, Entry(todo[path], rows, np.array(one.frames, np.int32), np.array(one.times)))
        for (path, one), rows in zip(seen, np.split(features, ends[:-1]), strict=True)
    ]


class _Files(Dataset[tuple[str, Seen | None, str]]):
    """Path and input of each file, or None and why it cannot be read."""

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


class Query(NamedTuple):
    """Sentences, images or videos that are looked for, as one feature (D,) of unit length."""

    texts: tuple[str, ...]
    like: tuple[str, ...]
    features: Tensor

    @property
    def title(self) -> str:
        """Its name for people."""
        return " + ".join([*(f'"{text}"' for text in self.texts), *self.like])


class Hit(NamedTuple):
    """A file that was found.

    Attributes:
        file: Path of the file.
        score: Cosine of query and image, or of query and best frame.
        frame: Index of a video's best frame; None for an image.
        time: Its time in seconds; None for an image.
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
        like: Images or videos.
        together: Make one query of all, the mean of their features.

    Raises:
        OSError: If an image or video cannot be read.
    """
    queries = [Query((text,), (), clip.texts(text)[0]) for text in texts]
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
    """Find the files with the largest scores, for each query.

    Args:
        library: The library.
        files: Files to search; those that it lacks are passed over.
        queries: The queries.
        top: Hits of a query.

    Returns:
        For each query its hits in falling order; files of equal scores in their order.
    """
    paths = [path for path in dict.fromkeys(map(absolute, files)) if path in library.entries]
    if not paths:
        return [[] for _ in queries]
    rows = np.array([len(library.entries[path].features) for path in paths])
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
        waiting.append(library.entries[path].features)
        held += len(waiting[-1])
        if number == len(paths) or held >= _ROWS:
            parts.append(wanted @ np.concatenate(waiting).astype(np.float32).T)
            waiting, held = [], 0
    return np.concatenate(parts, axis=1)


def _hit(library: Library, path: str, scores: NDArray[np.float32]) -> Hit:
    place = int(scores.argmax())
    # kept in half precision, features are not quite of unit length
    score, entry = min(1.0, max(-1.0, float(scores[place]))), library.entries[path]
    if not is_video(path):
        return Hit(path, score, None, None)
    return Hit(path, score, int(entry.frames[place]), float(entry.times[place]))


def find(
    clip: ClipFeatures,
    files: Media | Sequence[Media],
    text: str = "",
    *,
    like: Media | None = None,
    top: int = 20,
) -> list[Hit]:
    """Find the images and videos that are most like a sentence, an image, or both together.

    Features are computed each time; `clip/demo.py search` keeps them on the disk.

    Args:
        clip: The model, with its text tower if there is a text.
        files: A file, a folder, a pattern such as `photos/*.jpg`, or a list of these.
        text: What is looked for.
        like: Image or video that is looked for.
        top: Number of hits.

    Returns:
        The hits in falling order of their scores; files that cannot be read are left out, with a
        warning.

    Raises:
        OSError: If `like` cannot be read.
        ValueError: If nothing is looked for, or a folder or pattern has no files.
    """
    if not text and like is None:
        raise ValueError("there is nothing to look for: give a text or an image")
    given = [files] if isinstance(files, str | os.PathLike) else files
    wanted = [] if like is None else [Path(like)]
    queries = make_queries(clip, texts=[text] if text else [], like=wanted, together=True)
    listed: list[Path] = []
    for one in map(Path, given):
        listed += files_at(one, DEMO_IMAGE_SUFFIXES | VIDEO_SUFFIXES) if is_several(one) else [one]
    library = Library(None, {}, width=clip.embed_dim)
    for why in update(library, clip, listed).problems.values():
        logger.warning("%s", why)
    (hits,) = search(library, listed, queries, top=top)
    return hits
