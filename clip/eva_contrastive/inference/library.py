"""Features of many pictures and videos, kept on disk between searches.

A library is one safetensors file. It holds the features of one file of weights with one
preprocessing; other weights have another library. A picture or video is known by its path, and
computed again when its size or time of change differs.

Shapes: R rows (one for a picture, one for each frame of a video), D values of a feature.
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
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from eva_data.files import require_regular_file, write_tensors
from eva_data.index import Names

logger = logging.getLogger(__name__)

KIND = "eva_contrastive library 1"
_PARTS = ("features", "frames", "times", "rows", "sizes", "changes")
_SECONDS = 30.0  # between two saves
_SHARE = 20  # and at least this many times as long as a save takes


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
    """Features of a picture or video.

    Attributes:
        state: The file when it was read.
        features: (R, D) float16, of unit length.
        frames: (R,) int32, indexes of the frames.
        times: (R,) float64, seconds from the first frame's; 0 for a picture.
    """

    state: State
    features: NDArray[np.float16]
    frames: NDArray[np.int32]
    times: NDArray[np.float64]


class Library:
    """Features by the absolute path of the file that they belong to.

    Args:
        folder: Folder of the library, which exists; None keeps it in memory alone.
        settings: What the features depend on.
        width: D.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any], *, width: int) -> None:
        self.settings, self.width = dict(settings), width
        text = json.dumps(self.settings, sort_keys=True)
        name = f"library-{hashlib.sha256(text.encode()).hexdigest()[:12]}.safetensors"
        self.file = None if folder is None else folder / name
        self._entries: dict[str, Entry] = {}
        self._changed, self._saved, self._pause = False, time.monotonic(), _SECONDS

    def load(self) -> None:
        """Read what was kept; a damaged or foreign file is not used, with a warning."""
        if self.file is None or not self.file.exists():
            return
        try:
            self._entries = _read(self.file, self.width, self.settings)
        except (OSError, ValueError, TypeError, LookupError, SafetensorError) as error:
            logger.warning("%s cannot be used and is computed again (%s)", self.file, error)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, path: str) -> Entry:
        return self._entries[path]

    def __contains__(self, path: str) -> bool:
        return path in self._entries

    def is_current(self, path: str, state: State) -> bool:
        """Whether the features of a file are those of its content, by size and time of change."""
        entry = self._entries.get(path)
        return entry is not None and entry.state == state

    def add(self, path: str, entry: Entry) -> None:
        """Keep the features of a file, in memory until `save`."""
        self._entries[path] = entry
        self._changed = True

    def drop_below(self, folders: Sequence[str], there: Collection[str]) -> int:
        """Forget the files in folders that are no longer there.

        Args:
            folders: Absolute paths.
            there: Paths of the files that are there.

        Returns:
            How many were forgotten.
        """
        starts = tuple(os.path.join(folder, "") for folder in folders)  # noqa: PTH118
        gone = [path for path in self._entries if path.startswith(starts) and path not in there]
        self.drop(gone)
        return len(gone)

    def drop(self, paths: Collection[str]) -> None:
        """Forget files."""
        for path in paths:
            if self._entries.pop(path, None) is not None:
                self._changed = True

    def save(self) -> None:
        """Write the library, completely or not at all, if it has changed.

        Raises:
            UnwritableError: If the disk is full, for example.
        """
        if not self._changed or self.file is None:
            return
        begin = time.monotonic()
        write_tensors(self._arrays(), self.file,
                      {"kind": KIND, "settings": json.dumps(self.settings)})  # fmt: skip
        self._changed, self._saved = False, time.monotonic()
        self._pause = max(_SECONDS, _SHARE * (self._saved - begin))

    def save_now_and_then(self) -> None:
        """Save, if the last time is long ago in comparison to what it takes.

        Raises:
            UnwritableError: As `save`.
        """
        if time.monotonic() - self._saved >= self._pause:
            self.save()

    def _arrays(self) -> dict[str, NDArray[Any]]:
        entries = list(self._entries.values())
        states = np.array([entry.state for entry in entries], np.int64).reshape(-1, 2)
        none = np.empty((0, self.width), np.float16)
        return {
            **Names.collect(self._entries).arrays(),
            "features": np.concatenate([none, *(entry.features for entry in entries)]),
            "frames": np.concatenate([none[:, 0], *(e.frames for e in entries)], dtype=np.int32,
                                     casting="unsafe"),
            "times": np.concatenate([none[:, 0], *(entry.times for entry in entries)],
                                    dtype=np.float64),
            "rows": np.array([len(entry.features) for entry in entries], np.int64),
            "sizes": states[:, 0],
            "changes": states[:, 1],
        }  # fmt: skip


def _read(file: Path, width: int, settings: Mapping[str, Any]) -> dict[str, Entry]:
    require_regular_file(file)
    with safe_open(file, "np") as content:
        notes = content.metadata() or {}
        if (kind := notes.get("kind")) != KIND:
            raise ValueError(f"its kind is {kind!r} and not {KIND!r}")
        if json.loads(notes["settings"]) != json.loads(json.dumps(settings)):  # tuples are lists
            raise ValueError("it was written with other settings")
        arrays = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    names = list(Names(arrays))
    features, frames, times, rows, sizes, changes = (arrays[name] for name in _PARTS)
    ends = np.cumsum(rows)
    count = int(ends[-1]) if len(ends) else 0
    shapes = [part.shape for part in (features, frames, times, rows, sizes, changes)]
    wanted = [(count, width), (count,), (count,), *3 * [(len(names),)]]
    if shapes != wanted or (len(rows) and rows.min() < 1):
        raise ValueError(f"its arrays have shapes {shapes}, expected {wanted}")
    if features.dtype != np.float16 or not np.isfinite(features).all():
        raise ValueError(f"its features are {features.dtype}, or not finite")
    starts = ends - rows
    return {
        name: Entry(
            State(int(sizes[i]), int(changes[i])),
            features[starts[i] : ends[i]],
            frames[starts[i] : ends[i]],
            times[starts[i] : ends[i]],
        )
        for i, name in enumerate(names)
    }
