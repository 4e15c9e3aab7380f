"""Checks of images: of class folders, copies among them, and the samples of manifests."""

import functools
import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from eva_data.band_files import BAND_SUFFIXES, inspect_bands
from eva_data.captions.lists import LEFT_OUT, UnreadableCaptionError
from eva_data.captions.sources import CaptionedImages
from eva_data.checks.findings import Findings, Kind
from eva_data.classes import describe_alike, find_respelled
from eva_data.files import (
    IMAGE_SUFFIXES,
    LISTED_IMAGE_SUFFIXES,
    OTHER_IMAGE_SUFFIXES,
    find_files,
)
from eva_data.images import ImageFacts, describe_dark
from eva_data.index import Table
from eva_data.manifests import SourceEntry
from eva_data.pools import map_blocks, ordered_map

if TYPE_CHECKING:
    from eva_data.image_sources import Images  # loads torch


DARK = Kind("folder of images of 16 bits with small values, which are dark", "-", note=True)
FOLDER_KINDS = {
    "unreadable": Kind("image that cannot be read", "-"),
    "depth": Kind("image of 32 bits or fractions, which only --bands trains on", "-"),
    "two_classes": Kind("image with the content of one of another class", "-"),
    "leak": Kind("image with the content of one of the other part", "-"),
    "class_unknown": Kind("class that training does not have", "-"),
    "class_respelled": Kind("class in other letters than the first part", "-", note=True),
    "class_alike": Kind("part with classes of one name but for case or spaces", "-", note=True),
    "dark": DARK,
    "transparent": Kind("image with transparency, which is shown as white", "-", note=True),
    "copy": Kind("image with the content of another of its class", "-", note=True),
    "class_empty": Kind("folder without an image, which is no class", "-", note=True),
    "class_unseen": Kind("class of training that the other part does not have", "-", note=True),
    "unread": Kind("image of a kind that no training reads", "-", note=True),
    "stray": Kind("image beside the folders of classes, which is not read", "-", note=True),
}
IMAGE_KINDS = {
    "source": Kind("source that cannot be used", "no index is written"),
    "unreadable": Kind("image that cannot be read", "left out of the index"),
}
PAIR_KINDS = {
    **IMAGE_KINDS,
    **LEFT_OUT,
    "caption": Kind("caption that cannot be read", "left out of the index"),
}
_PARTS = ("train", "training", "val", "valid", "validation", "test", "testing")


Source = TypeVar("Source", "Images", CaptionedImages)


class ImageFile(NamedTuple):
    """Result of inspecting an image file: its facts, or the problem.

    `name` differs from that asked for if only leading folders of it were wrong.
    """

    name: str
    facts: ImageFacts | None = None
    problem: str = ""


def inspect(folder: Path, name: str, *, decode: bool = True, bands: int | None = None) -> ImageFile:
    """Look at one file, also by its name without its first folders; see `inspect_bands`."""
    problem = name
    try:
        parts = Path(name).parts
        names = [name, *("/".join(parts[start:]) for start in range(1, len(parts)))]
        existing = [candidate for candidate in names if (folder / candidate).is_file()]
        if not existing:
            return ImageFile(name, problem="it is not there")
        problem = existing[0]
        facts = inspect_bands(folder / problem, decode=decode, name="it", count=bands)
    except OSError as error:  # of the name as well
        return ImageFile(problem, problem=str(error))
    return ImageFile(
        problem,
        facts,
        "it has 32 bits a value, which only --bands trains on" if facts.bits == 32 else "",
    )


def inspect_all(
    folder: Path,
    names: Sequence[str],
    *,
    workers: int = 1,
    decode: bool = True,
    bands: int | None = None,
) -> Iterator[ImageFile]:
    """Yield `inspect` of all names, in order, with a progress bar on a terminal."""
    work = functools.partial(inspect, folder, decode=decode, bands=bands)
    yield from ordered_map(work, names, workers=workers, title="images")


class Part(NamedTuple):
    """A folder of images, and how many each of its classes has, if it has classes."""

    folder: Path
    names: list[str]
    classes: dict[str, int]

    def class_of(self, name: str) -> str:
        """Name the class of an image."""
        return name.partition("/")[0] if self.classes else ""


def find_parts(folder: Path) -> list[Path]:
    """Find the folders of training and of what it is evaluated on, if there is nothing else.

    Their names may be in other letters; what macOS puts beside them does not count.
    """
    folders = [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
    parts = {path.name.lower(): path for path in folders if path.name != "__MACOSX"}
    split = {*_PARTS[:2]} & parts.keys() and len(parts) > 1 and parts.keys() <= {*_PARTS}
    return [parts[name] for name in _PARTS if name in parts] if split else []


def list_part(folder: Path, findings: Findings, bands: int | None = None) -> Part:
    """List the images of a folder, also of `bands`; folders directly below are classes."""
    names = list(find_files(folder, BAND_SUFFIXES if bands else IMAGE_SUFFIXES))
    if not names:
        raise ValueError(f"{folder} holds no image ({LISTED_IMAGE_SUFFIXES})")
    unread = [f"{folder}/{name}" for name in find_files(folder, OTHER_IMAGE_SUFFIXES)]
    findings.add_many("unread", len(unread), unread)
    counts = Counter(name.partition("/")[0] for name in names if "/" in name)
    if not counts:
        return Part(folder, names, {})
    shown = (entry.name for entry in folder.iterdir() if entry.is_dir())
    folders = sorted(name for name in shown if not name.startswith("."))
    classes = {name: counts[name] for name in folders if name in counts}
    stray = [f"{folder}/{name}" for name in names if "/" not in name]
    empty = [f"{folder}/{name}" for name in folders if name not in counts]
    findings.add_many("stray", len(stray), stray)
    findings.add_many("class_empty", len(empty), empty)
    return Part(folder, [name for name in names if "/" in name], classes)


def check_parts(
    parts: Sequence[Part],
    findings: Findings,
    *,
    workers: int,
    decode: bool,
    bands: int | None = None,
) -> None:
    """Read the images of folders, find copies, and compare classes with those of the first."""
    seen: dict[bytes, tuple[Part, str]] = {}
    largest = 0
    for part in parts:
        work = functools.partial(_inspect_and_digest, part.folder, decode, bands)
        results = ordered_map(work, part.names, workers=workers, title="images")
        for name, (problem, content) in zip(part.names, results, strict=True):
            path = f"{part.folder}/{name}"
            if problem.facts is None:
                findings.add("unreadable", path, problem.problem)
                continue
            if problem.problem:
                findings.add("depth", path, f"mode {problem.facts.mode}")
            largest = max(largest, problem.facts.largest)
            findings.add_many("transparent", problem.facts.transparent, [path])
            before, first = seen.setdefault(content, (part, name)) if content else (part, name)
            if (before, first) != (part, name):
                same = before.class_of(first) == part.class_of(name)
                kind = "leak" if before is not part else "copy" if same else "two_classes"
                findings.add(kind, path, f"as {before.folder}/{first}")
    if line := describe_dark(largest):
        findings.add("dark", parts[0].folder, line)
    for part in parts:
        for line in describe_alike([*part.classes], part.folder):
            findings.add("class_alike", part.folder, line)
    for part in parts[1:]:
        if parts[0].classes and part.classes:
            train_classes, own = {*parts[0].classes}, {*part.classes}
            for name, other in find_respelled(
                sorted(own - train_classes), train_classes - own
            ).items():
                findings.add("class_respelled", f"{part.folder}/{name}, as {other}")
                own = own - {name} | {other}
            for kind, names in (
                ("class_unknown", own - train_classes),
                ("class_unseen", train_classes - own),
            ):
                places = [f"{part.folder}/{name}" for name in sorted(names)]
                findings.add_many(kind, len(places), places)


def _inspect_and_digest(
    folder: Path, decode: bool, bands: int | None, name: str
) -> tuple[ImageFile, bytes]:
    """Look at a file, and digest its content if it is decoded."""
    problem = inspect(folder, name, decode=decode, bands=bands)
    if not decode or problem.facts is None:
        return problem, b""
    with (folder / name).open("rb") as stream:
        return problem, hashlib.file_digest(stream, "sha256").digest()


def read_source(
    entry: SourceEntry,
    source: Source,
    reopen: Callable[[SourceEntry, Table], Source],
    findings: Findings,
    *,
    workers: int,
) -> NDArray[np.bool_]:
    """Read all samples of a source of a manifest as training does: which can be read, (samples,).

    `reopen` opens it by its table, which worker processes map from a file.
    """
    keep = np.ones(len(source), bool)
    samples: Source = source
    with tempfile.TemporaryDirectory() as folder:
        if workers > 1:
            source.table.save(file := Path(folder) / "source")
            samples = reopen(entry, Table.open(file, kind=source.table.kind))
        for problems in map_blocks(_problems_of, samples, workers=workers, title=entry.name):
            for index, kind, detail in problems:
                findings.add(kind, source.sample_id(index), detail)
                keep[index] = False
    return keep


def _problems_of(source: "Images | CaptionedImages", indices: range) -> list[tuple[int, str, str]]:
    """Read some samples: index, kind and detail of those that cannot be read."""
    problems = []
    for index in indices:
        try:
            if isinstance(source, CaptionedImages):
                source.captions(index)
                source.image(index)
            else:
                source.decode(index)
        except OSError as error:
            kind = "caption" if isinstance(error, UnreadableCaptionError) else "unreadable"
            detail = str(error).removeprefix(source.sample_id(index)).lstrip(": ")
            problems.append((index, kind, detail))
    return problems
