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
import itertools
import json
import logging
import os
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from eva_contrastive.evaluation.zero_shot import Mapped
from eva_contrastive.inference.features import ClipFeatures, Frames, Media, MediaReader, is_video
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
_ROWS = 16384  # that are compared at once, and those of one more file

State = tuple[int, int]  # size of a file in bytes, and its time of change in nanoseconds


def state_of(file: str | Path) -> State:
    """Look at a file."""
    found = Path(file).stat()
    return found.st_size, found.st_mtime_ns


class Entry(NamedTuple):
    """Features of unit length of an image or video, with indexes and times of the frames."""

    state: State  # of the file when it was read
    features: NDArray[np.float16]  # (R, D)
    frames: NDArray[np.int32]  # (R,)
    times: NDArray[np.float64]  # (R,), seconds from the first frame's


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
        if self.file is not None and self.file.exists():
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
            self._changed |= self.entries.pop(path, None) is not None

    def save(self) -> None:
        """Write the library, completely or not at all, if it has changed."""
        if not self._changed or self.file is None:
            return
        begin = time.monotonic()
        write_tensors(self._arrays(), self.file, {"kind": KIND, "settings": self._settings})
        self._changed, self._saved = False, time.monotonic()
        self._pause = max(_SECONDS, _SHARE * (self._saved - begin))

    def _arrays(self) -> dict[str, NDArray[Any]]:
        entries = list(self.entries.values())
        states = np.array([entry.state for entry in entries], np.int64).reshape(-1, 2)
        none = Entry((0, 0), np.empty((0, self.width), np.float16), np.empty(0, np.int32),
                     np.empty(0))  # fmt: skip
        _, *columns = zip(none, *entries, strict=True)
        return {
            **Names.collect(self.entries).arrays(),
            **dict(zip(("features", "frames", "times"), map(np.concatenate, columns), strict=True)),
            "rows": np.array([len(entry.features) for entry in entries], np.int64),
            "sizes": states[:, 0],
            "changes": states[:, 1],
        }

    def _read(self, file: Path) -> dict[str, Entry]:
        require_regular_file(file)
        with safe_open(file, "np") as content:
            notes = content.metadata()
            arrays = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        names = list(Names(arrays))
        features, frames, times, rows, sizes, changes = parts = [arrays[name] for name in _PARTS]
        count = int(rows.sum())
        shapes = [part.shape for part in parts]
        wanted = [(count, self.width), (count,), (count,), *3 * [(len(names),)]]
        whole = (
            notes == {"kind": KIND, "settings": self._settings}
            and shapes == wanted
            and (rows > 0).all()
            and features.dtype == np.float16
            and np.isfinite(features).all()
        )
        if not whole:
            raise ValueError(f"not a library of these settings with arrays of shapes {wanted}")
        states = zip(sizes.tolist(), changes.tolist(), strict=True)
        ends = np.cumsum(rows)[:-1]
        columns = (np.split(values, ends) for values in (features, frames, times))
        return dict(zip(names, map(Entry, states, *columns), strict=False))


def absolute(file: Media) -> str:
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
    todo: dict[str, State] = {}
    problems: dict[str, str] = {}
    paths = dict.fromkeys(absolute(file) for file in files)
    for path in paths:
        try:
            state = state_of(path)
        except OSError as error:
            problems[path] = f"{path} cannot be read ({error.strerror})"
        else:
            if path not in library.entries or library.entries[path].state != state:
                todo[path] = state
    known = len(paths) - len(todo) - len(problems)
    starts = tuple(os.path.join(absolute(folder), "") for folder in folders)  # noqa: PTH118
    gone = [path for path in library.entries if path.startswith(starts) and path not in paths]
    library.drop(gone)
    try:
        if todo:
            problems |= _compute(library, clip, todo, workers=workers)
        library.drop(problems)  # its features are not those of what is there now
    finally:
        library.save()
    return Changes(known, len(todo.keys() - problems.keys()), len(gone), problems)


def _compute(
    library: Library, clip: ClipFeatures, todo: dict[str, State], *, workers: int
) -> dict[str, str]:
    problems: dict[str, str] = {}
    some_video = any(is_video(path) for path in todo)
    at_once = max(1, clip.batch_size // (clip.read.frames if some_video else 1))
    with (
        ProgressBar(len(todo), what="reading", unit="file") as bar,
        evaluation_loader(
            Mapped(partial(_read, clip.read), list(todo)),
            workers=min(workers, len(todo)), batch_size=at_once, collate=list,
        ) as batches,
    ):  # fmt: skip
        for batch in batches:
            read = [(path, frames) for path, frames in batch if isinstance(frames, Frames)]
            if read:
                values = torch.cat([frames.values for _, frames in read])  # (R, 3, S, S)
                features = clip.images(values).cpu().half().numpy()
                ends = np.cumsum([len(frames.indexes) for _, frames in read])[:-1]
                for (path, (_, indexes, times)), rows in zip(
                    read, np.split(features, ends), strict=True
                ):
                    entry = Entry(todo[path], rows, np.array(indexes, np.int32), np.array(times))
                    library.add(path, entry)
            problems |= {path: why for path, why in batch if isinstance(why, str)}
            bar.update(len(batch))
    return problems


def _read(read: MediaReader, path: str) -> tuple[str, Frames | str]:
    """Read the pixels of a file, or say why it cannot be read."""
    try:
        return path, read(path)
    except OSError as error:
        return path, str(error)


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
    """A file that was found, with the cosine of the query and the image or best frame."""

    file: str
    score: float
    frame: int | None  # index of a video's best frame
    time: float | None  # of that frame, in seconds


def make_queries(
    clip: ClipFeatures, *, texts: Sequence[str], like: Sequence[Path], together: bool = False
) -> list[Query]:
    """Make a query of each sentence, image and video, or one of the mean of their features."""
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
    """Find the files with the largest scores among those that the library has, for each query.

    Hits are in falling order of their scores, files of equal scores in their own.
    """
    paths = [path for path in dict.fromkeys(map(absolute, files)) if path in library.entries]
    if not paths:
        return [[] for _ in queries]
    entries = [library.entries[path] for path in paths]
    rows = np.array([len(entry.features) for entry in entries])
    starts = np.cumsum(rows) - rows  # (N,), first row of each file
    wanted = torch.stack([query.features for query in queries]).float().cpu().numpy()  # (Q, D)
    scores = _scores(entries, starts, wanted)  # (Q, R)
    best = np.maximum.reduceat(scores, starts, axis=1)  # (Q, N)
    return [
        [
            _hit(paths[file], entries[file], row[starts[file] : starts[file] + rows[file]])
            for file in np.argsort(-of_files, kind="stable")[:top].tolist()
        ]
        for row, of_files in zip(scores, best, strict=True)
    ]


def _scores(
    entries: Sequence[Entry], starts: NDArray[np.int64], wanted: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Compute the cosines (Q, R), a part of the rows at a time."""
    parts = []
    for _, some in itertools.groupby(zip(entries, starts // _ROWS, strict=True), itemgetter(1)):
        features = np.concatenate([entry.features for entry, _ in some])
        parts.append(wanted @ features.astype(np.float32).T)
    return np.concatenate(parts, axis=1)


def _hit(path: str, entry: Entry, scores: NDArray[np.float32]) -> Hit:
    place = int(scores.argmax())
    # kept in half precision, features are not quite of unit length
    score = min(1.0, max(-1.0, float(scores[place])))
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
    wanted = [] if like is None else [Path(like)]
    queries = make_queries(clip, texts=[text] if text else [], like=wanted, together=True)
    listed: list[Path] = []
    for one in map(Path, [files] if isinstance(files, str | os.PathLike) else files):
        listed += files_at(one, DEMO_IMAGE_SUFFIXES | VIDEO_SUFFIXES) if is_several(one) else [one]
    library = Library(None, {}, width=clip.embed_dim)
    for why in update(library, clip, listed).problems.values():
        logger.warning("%s", why)
    (hits,) = search(library, listed, queries, top=top)
    return hits
