"""Features of images and videos that are kept on disk, for searches and other questions to them.

A library is one safetensors file. It holds the features of one file of weights with one
preprocessing; other weights have another library. An image or video is known by its path, and
computed again when its size or time of change differs.

Shapes: R rows (one for an image, one for each frame of a video), D values of a feature.
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
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from eva_contrastive.inference.features import ClipFeatures, Media
from eva_data.files import require_regular_file
from eva_data.inputs import is_video
from eva_data.progress import ProgressBar
from eva_data.saving import write_tensors
from eva_engine.data.loading import evaluation_loader
from eva_engine.evaluation.counting import IndexedSamples, Mapped

logger = logging.getLogger(__name__)

KIND = "eva_contrastive library 2"
_SECONDS = 30.0  # between two saves
_SHARE = 20  # and at least this many times as long as a save takes

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


def absolute_path(file: Media) -> str:
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
    states = {path: _state_of(path) for path in map(absolute_path, files)}
    todo = {
        path: state
        for path, state in states.items()
        if path not in library.entries or library.entries[path].state != state
    }
    starts = tuple(os.path.join(absolute_path(folder), "") for folder in folders)  # noqa: PTH118
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
