"""Inputs and outputs of demos and predictors: files, folders and patterns of images and videos.

It plans what becomes of each input, and refuses, before any work is done, a plan in which two
results have one name, an input is overwritten or an earlier result is lost. Importing it loads no
heavy library, so that a program answers mistakes in its arguments at once.
"""

import fnmatch
import glob
import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from eva_data.files import VIDEO_SUFFIXES, find_files

logger = logging.getLogger(__name__)

CAMERAS = "/dev/video"  # and the number
_ANY_DEPTH = "**"
_WRITTEN = (".jpg", ".jpeg", ".png", ".mp4")

Result = TypeVar("Result")


class Job(NamedTuple):
    """A file to read, and the files that are written of it.

    Attributes:
        source: The file, or the device of a camera.
        name: Its path below the folder or the pattern that was given, with slashes, or its own
            name; the path as it was given, where another one without targets has that name.
        targets: Files to write.
    """

    source: Path
    name: str
    targets: tuple[Path, ...]

    @property
    def is_video(self) -> bool:
        """Whether the source has the suffix of a video."""
        return self.source.suffix.lower() in VIDEO_SUFFIXES

    @property
    def is_camera(self) -> bool:
        """Whether the source is the device of a camera."""
        return str(self.source).startswith(CAMERAS)


class Plan(NamedTuple):
    """What is to be done.

    Attributes:
        jobs: Jobs in the order of the inputs.
        problems: A sentence for each input that is not there or is empty.
    """

    jobs: list[Job]
    problems: list[str]


def plan_jobs(
    inputs: Iterable[Path],
    *,
    suffixes: Collection[str],
    targets: Callable[[Path], Sequence[Path]],
    results: Sequence[Path] = (),
    kinds: str = "images",
    cameras: bool = False,
) -> Plan:
    """Plan what is read and written; a file that is given twice is done once.

    Args:
        inputs: Files, whatever their suffix; folders, which are searched through without hidden
            files; patterns such as `photos/*.jpg`, also with `**`; the number of a camera.
        suffixes: Suffixes of the files that are taken from folders and by patterns.
        targets: Function from a name below the output to the files that are written of it.
        results: Folders of earlier results, which are left out where they lie in a folder of
            `inputs`.
        kinds: Name of what is looked for, in the sentence on an empty folder.
        cameras: Whether a number is a camera, where there is no such file.

    Returns:
        The jobs, and what is wrong with single inputs.

    Raises:
        ValueError: If two inputs would be written to one file, an input would be overwritten, or
            there is no such camera.
    """
    jobs: dict[Path, Job] = {}
    problems: list[str] = []
    for path in inputs:
        found = list(_found(path, suffixes, results, cameras=cameras))
        if not found:
            there = path.is_dir() or _is_pattern(path)
            problems.append(f"{path} holds no {kinds}" if there else f"there is no {path}")
        for source, name in found:
            place = source.parent.resolve() / source.name  # a link is a file of its own
            jobs.setdefault(place, Job(source, name.as_posix(), tuple(targets(name))))
    _require_distinct([*jobs.values()])
    names = Counter(job.name for job in jobs.values())
    same = {place: job for place, job in jobs.items() if names[job.name] > 1 and not job.targets}
    jobs |= {place: job._replace(name=job.source.as_posix()) for place, job in same.items()}
    return Plan([*jobs.values()], problems)


def _require_distinct(jobs: Sequence[Job]) -> None:
    sources = {job.source.resolve() for job in jobs}
    taken: dict[Path, Path] = {}
    for job in jobs:
        for target in job.targets:
            if target.resolve() in sources:
                raise ValueError(f"{target} is an input: choose another --output")
            if target in taken:
                raise ValueError(
                    f"{taken[target]} and {job.source} would both become {target}: give the "
                    "folder that holds both, or two commands with two outputs"
                )
            taken[target] = job.source


def _found(
    path: Path, suffixes: Collection[str], results: Sequence[Path], *, cameras: bool
) -> Iterator[tuple[Path, Path]]:
    """Yield files of an input, and their names below the output."""
    number = str(path).removeprefix(CAMERAS)
    if path.is_dir():
        yield from ((path / name, name) for name in _names_below(path, suffixes, results))
    elif cameras and number.isdecimal() and not path.is_file():
        device = Path(f"{CAMERAS}{number}")
        if not device.exists():
            raise ValueError(f"there is no camera {number} on this machine (no {device})")
        yield device, Path(f"camera-{path.name}.mp4")
    elif path.exists():
        yield path, Path(path.name)
    elif _is_pattern(path):
        count = next(number for number, part in enumerate(path.parts) if _is_pattern(Path(part)))
        fixed, pattern = Path(*path.parts[:count]), path.parts[count:]
        places = [result.resolve() for result in results]
        for file in sorted(_matching(fixed, pattern, suffixes), key=str):
            inside = any(file.resolve().is_relative_to(place) for place in places)
            if file.suffix.lower() in suffixes and file.is_file() and not inside:
                yield file, file.relative_to(fixed)


def _names_below(folder: Path, suffixes: Collection[str], results: Sequence[Path]) -> list[Path]:
    here = folder.resolve()
    places = [result.resolve() for result in results]
    inside = [place for place in places if place != here and place.is_relative_to(here)]
    return [
        name
        for name in sorted(Path(file) for file in find_files(folder, suffixes))
        if not any((folder / name).resolve().is_relative_to(place) for place in inside)
    ]


def _matching(folder: Path, pattern: Sequence[str], suffixes: Collection[str]) -> Iterator[Path]:
    """Yield what matches; links that lead to a folder above are not followed by `**`."""
    depth = pattern.index(_ANY_DEPTH) if _ANY_DEPTH in pattern else len(pattern)
    for found in map(Path, glob.glob(str(folder.joinpath(*pattern[:depth])))):  # noqa: PTH207
        if depth == len(pattern):
            yield found
        elif found.is_dir():
            names = find_files(found, suffixes)
            yield from (found / one for one in names if _matches(one.split("/"), pattern[depth:]))


def _matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not names
    if pattern[0] == _ANY_DEPTH:
        return any(_matches(names[start:], pattern[1:]) for start in range(len(names) + 1))
    return (
        bool(names)
        and fnmatch.fnmatchcase(names[0], pattern[0])
        and _matches(names[1:], pattern[1:])
    )


def _is_pattern(path: Path) -> bool:
    return any(sign in str(path) for sign in "*?[")


def files_at(path: Path, suffixes: Collection[str]) -> list[Path]:
    """List the files of a folder or a pattern, in order of their names.

    Args:
        path: Folder, which is searched through, or pattern such as `photos/*.jpg`.
        suffixes: Suffixes of the files that are taken.

    Raises:
        ValueError: If there are none.
    """
    found = [file for file, _ in _found(path, suffixes, (), cameras=False)]
    if not found:
        raise ValueError(f"{path} holds no files that end in {', '.join(sorted(suffixes))}")
    return found


def is_several(path: Path) -> bool:
    """Return whether a path is a folder or a pattern, and not the name of one file."""
    return path.is_dir() or (_is_pattern(path) and not path.exists())


def written_name(name: Path) -> Path:
    """Name the image or video that is made of a file: it keeps its name or gains a suffix.

    Args:
        name: Name of the file.

    Returns:
        The name with `.mp4` added to other videos, and `.png` to all but JPEG and PNG.
    """
    suffix = name.suffix.lower()
    if suffix in _WRITTEN:
        return name
    return name.with_name(name.name + (".mp4" if suffix in VIDEO_SUFFIXES else ".png"))


def predicted(
    predict: Callable[[Any], Result],
    source: Any,
    *,
    suffixes: Collection[str],
    unreadable: type[OSError],
) -> Result | list[Result] | Iterator[tuple[Path, Result]]:
    """Predict for whatever a user gives.

    Args:
        predict: Function that takes one image or video: an array, a path or a PIL image.
        source: One of these; a list or tuple of them; a folder, or a pattern such as
            `photos/*.jpg`.
        suffixes: Suffixes of the files that are taken from folders and by patterns.
        unreadable: Error of a file that is passed over.

    Returns:
        One result for one image; a list for a list, in its order; for a folder or a pattern an
        iterator over pairs of file and result, one in memory at a time. It passes over files that
        cannot be read, with a warning.

    Raises:
        ValueError: If an image cannot be read, a folder or pattern has none, or the source is
            nothing of the kind: an address, a number, None.
    """
    for one in source if isinstance(source, list | tuple) else (source,):
        if (
            one is None
            or isinstance(one, int | float | dict)
            or (isinstance(one, str) and "://" in one)
        ):
            raise ValueError(
                f"{one!r} is not a path of a file here, an array or a PIL image, nor a list of "
                "these, a folder or a pattern"
            )
    if isinstance(source, list | tuple):
        return [predict(one) for one in source]
    if isinstance(source, str | os.PathLike) and is_several(path := Path(source)):
        return _each(predict, files_at(path, suffixes), unreadable)
    return predict(source)


def _each(
    predict: Callable[[Any], Result], files: list[Path], unreadable: type[OSError]
) -> Iterator[tuple[Path, Result]]:
    for file in files:
        try:
            result = predict(file)
        except unreadable as error:
            logger.warning("%s", error)
            continue
        yield file, result
