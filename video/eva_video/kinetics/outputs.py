"""Files of the lists of Kinetics-722, written completely or not at all."""

import contextlib
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from eva_data.files import replacing
from eva_data.kinetics import SOURCES, TABLE, k710_labels, kinetics_classes, mapping
from eva_runs.output_folder import locked
from eva_video.kinetics.merging import Kept
from eva_video.kinetics.sources import Source, relative_to

SPLITS = ("train", "val")
STATISTICS = "statistics.json"
Write = Callable[[BinaryIO], object]


@dataclass(frozen=True, kw_only=True)
class MergedList:
    """A list that will be written.

    Attributes:
        sources: What it was made of, one after another.
        kept: What stays; its indices count through the sources.
    """

    sources: Sequence[Source]
    kept: Kept

    @property
    def labels(self) -> NDArray[np.int64]:
        """Label in Kinetics-722 of all that was read, (`kept.read`,)."""
        return np.concatenate([source.videos.labels for source in self.sources])


def file_names(given: Sequence[str], *, k710: bool) -> list[str]:
    """Name the files that are written.

    Args:
        given: Data sets that the lists are made of.
        k710: Whether lists of Kinetics-710 are among them.

    Returns:
        Names in the folder of the output.
    """
    merged = _merged(k710=k710)
    return [
        *(f"{name}_{split}.txt" for name in (*given, *merged) for split in SPLITS),
        *(f"{name}_classes.txt" for name in (*given, *merged)),
        *(f"{all_of_them}_to_{name}_mapping.npy" for all_of_them in merged for name in SOURCES),
        "classes.csv",
        STATISTICS,
    ]


def prepare(
    lists: Mapping[str, MergedList], statistics: Mapping[str, Any], *, root: Path | None, k710: bool
) -> dict[str, Write]:
    """Prepare the content of every file.

    Args:
        lists: Lists by name, such as `k722_train`.
        statistics: Content of the file of statistics.
        root: Folder that the paths shall begin in; None for complete paths.
        k710: Write the lists of Kinetics-722 with the labels of Kinetics-710 too.

    Returns:
        Name of a file -> function that writes its content to a binary stream.
    """
    contents: dict[str, Write] = {}
    for name, one in lists.items():
        data_set, _, split = name.partition("_")
        forms = _merged(k710=k710) if data_set == "k722" else (data_set,)
        for form in forms:
            labels = _labels_of(form)[one.labels]
            contents[f"{form}_{split}.txt"] = partial(_write_list, one, labels, root)
            text = "".join(f"{own}\n" for own in kinetics_classes(form))
            contents[f"{form}_classes.txt"] = _writer(text.encode())
    for merged in _merged(k710=k710):
        for name in SOURCES:
            buffer = io.BytesIO()
            np.save(buffer, mapping(merged, name))
            contents[f"{merged}_to_{name}_mapping.npy"] = _writer(buffer.getvalue())
    contents["classes.csv"] = _writer(TABLE.read_bytes())
    contents[STATISTICS] = _writer(f"{json.dumps(statistics, indent=1)}\n".encode())
    return contents


def write_together(output: Path, contents: Mapping[str, Write]) -> None:
    """Write files, of which none takes its place before all are complete.

    The statistics come last, and earlier ones go first: where they are, the rest belongs to them.

    Args:
        output: Folder; it is made if it is not there.
        contents: Result of `prepare`.

    Raises:
        FolderInUseError: A ValueError, if another process writes there.
        UnwritableError: If the disk is full or the folder read-only, for example.
    """
    with locked(output), contextlib.ExitStack() as stack:
        order = sorted(contents, key=lambda name: name != STATISTICS)  # the first is renamed last
        for name in order:
            place = stack.enter_context(replacing(output / name))
            with place.open("wb") as stream:
                contents[name](stream)
        (output / STATISTICS).unlink(missing_ok=True)


def _merged(*, k710: bool) -> tuple[str, ...]:
    return ("k722", "k710") if k710 else ("k722",)


def _labels_of(name: str) -> NDArray[np.int64]:
    """Return the label in a data set of each class of Kinetics-722, -1 for those of others."""
    if name == "k710":
        return k710_labels()
    labels = np.full(len(kinetics_classes("k722")), -1, dtype=np.int64)
    own = np.arange(len(labels)) if name == "k722" else mapping("k722", name)
    labels[own] = np.arange(len(own))
    return labels


def _write_list(
    merged: MergedList, labels: NDArray[np.int64], root: Path | None, stream: BinaryIO
) -> None:
    """Write lines `path label`."""
    begin = 0
    for source in merged.sources:
        end = begin + len(source.videos)
        first, last = np.searchsorted(merged.kept.indices, (begin, end))
        for index in merged.kept.indices[first:last].tolist():
            path = relative_to(source.path(index - begin), root)
            stream.write(os.fsencode(f"{path} {labels[index]}\n"))
        begin = end


def _writer(content: bytes) -> Write:
    return lambda stream: stream.write(content)
