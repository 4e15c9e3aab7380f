"""Inputs and outputs of demos and predictors: files, folders and patterns of images and videos."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from eva_data.files import (
    ARRAY_SUFFIXES,
    DEMO_IMAGE_SUFFIXES,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    find_files,
)

CAMERAS = "/dev/video"  # and the number


def is_video(path: str | os.PathLike[str]) -> bool:
    """Return whether a path has the suffix of a video."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


class Job(NamedTuple):
    """A file to read, or the device of a camera, and the files that are written of it.

    `name` is its path below the folder or pattern that was given, or its own name; the entire path,
    where another one without targets has that name.
    """

    source: Path
    name: str
    targets: tuple[Path, ...]

    @property
    def is_video(self) -> bool:
        """Whether the source has the suffix of a video."""
        return is_video(self.source)

    @property
    def is_camera(self) -> bool:
        """Whether the source is the device of a camera."""
        return str(self.source).startswith(CAMERAS)


class JobPlan(NamedTuple):
    """Jobs in the order of the inputs, and a sentence for each input that is not there or empty."""

    jobs: list[Job]
    problems: list[str]


def plan_jobs(
    inputs: Iterable[Path],
    *,
    suffixes: Collection[str] = DEMO_IMAGE_SUFFIXES | VIDEO_SUFFIXES,
    targets: Callable[[Path], Sequence[Path]],
    results: Sequence[Path] = (),
    kinds: str = "images and no videos",
    cameras: bool = False,
    arrays: bool = True,
) -> JobPlan:
    """Plan what is read and written; a file that is given twice is done once.

    Inputs are files, whatever their suffix; folders, searched without hidden files, and patterns
    such as `photos/*.jpg`, also with `**`, both by `suffixes` and without the folders of earlier
    `results`; with `cameras` the number of a camera. A folder without images is searched for
    `arrays` of bands. `targets` are the files that are written of a name below the output, and
    `kinds` is what is looked for, for messages.

    Raises:
        ValueError: If one file would be written twice or over an input, or there is no such camera.
    """
    jobs: dict[Path, Job] = {}
    problems: list[str] = []
    for path in inputs:
        paths = list(_matching_files(path, suffixes, results, cameras=cameras, arrays=arrays))
        if not paths:
            is_group = path.is_dir() or _is_pattern(path)
            problems.append(f"{path} holds no {kinds}" if is_group else f"there is no {path}")
        for source, name in paths:
            resolved = source.parent.resolve() / source.name  # a link is a file of its own
            jobs.setdefault(resolved, Job(source, name.as_posix(), tuple(targets(name))))
    _require_distinct([*jobs.values()])
    names = Counter(job.name for job in jobs.values())
    same = {
        resolved: job for resolved, job in jobs.items() if names[job.name] > 1 and not job.targets
    }
    jobs |= {resolved: job._replace(name=job.source.as_posix()) for resolved, job in same.items()}
    return JobPlan([*jobs.values()], problems)


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


def _matching_files(
    path: Path,
    suffixes: Collection[str],
    results: Sequence[Path],
    *,
    cameras: bool = False,
    arrays: bool = True,
) -> Iterator[tuple[Path, Path]]:
    """Yield files of an input, and their names below the output."""
    number = str(path).removeprefix(CAMERAS)
    if path.is_dir():
        names: Iterable[str] = [*find_files(path, suffixes)]
        if (
            arrays and not names and {*suffixes} >= IMAGE_SUFFIXES
        ):  # others keep arrays beside their images
            names = find_files(path, ARRAY_SUFFIXES)
        yield from _files_below(path, names, results)
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
        pattern += ("*",) if pattern[-1] == "**" else ()
        files = (file for file in fixed.glob("/".join(pattern)) if file.suffix.lower() in suffixes)
        matches = [file.relative_to(fixed) for file in files if file.is_file()]
        if not _names_hidden(pattern):
            matches = [name for name in matches if not _names_hidden(name.parts)]
        yield from _files_below(fixed, map(str, matches), results)


def _names_hidden(parts: Iterable[str]) -> bool:
    return any(part.startswith(".") for part in parts)


def _files_below(
    folder: Path, names: Iterable[str], results: Sequence[Path]
) -> Iterator[tuple[Path, Path]]:
    """Yield the files of a folder but those in folders of results below it, sorted."""
    here, resolved = folder.resolve(), [result.resolve() for result in results]
    excluded = [result for result in resolved if result != here and result.is_relative_to(here)]
    for name in sorted(map(Path, names)):
        file = (folder / name).resolve()
        if not any(file.is_relative_to(result) for result in excluded):
            yield folder / name, name


def _is_pattern(path: Path) -> bool:
    return any(sign in str(path) for sign in "*?[")


def files_at(path: Path, suffixes: Collection[str]) -> list[Path]:
    """List the files of a folder or a pattern such as `photos/*.jpg`, sorted; none is an error."""
    files = [file for file, _ in _matching_files(path, suffixes, ())]
    if not files:
        raise ValueError(f"{path} holds no files that end in {', '.join(sorted(suffixes))}")
    return files


def is_several(path: Path) -> bool:
    """Return whether a path is a folder or a pattern, and not the name of one file."""
    return path.is_dir() or (_is_pattern(path) and not path.exists())


def written_name(name: Path) -> Path:
    """Name what is made of a file: `.mp4` is added to other videos, `.png` to other images."""
    suffix = name.suffix.lower()
    if suffix in (".jpg", ".jpeg", ".png", ".mp4"):
        return name
    return name.with_name(name.name + (".mp4" if suffix in VIDEO_SUFFIXES else ".png"))
