"""Inputs and outputs of the demo programs.

It finds pictures and videos, plans what becomes of each, and refuses, before any work is done, a
plan in which two results have one name, an input is overwritten or an earlier result is lost.
Importing it loads no heavy library, so that a program answers mistakes in its arguments at once.
"""

import argparse
import fnmatch
import glob
import logging
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from eva_data.files import (
    UnwritableError,
    find_files,
    make_folder,
    printable,
    replacing,
    require_free,
)
from eva_data.suffixes import VIDEOS
from eva_report.terminal import ForTerminal, TerminalFormatter
from eva_runs.commands import complain
from eva_runs.interruption import EXIT_KEYBOARD

if TYPE_CHECKING:
    from PIL import Image

CAMERAS = "/dev/video"  # and the number
EXIT_WRONG_ARGUMENTS = 2
_ANY_DEPTH = "**"
_WRITTEN = (".jpg", ".jpeg", ".png", ".mp4")
_JPEG_SIDE = 65_500  # pixels, at most


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
        return self.source.suffix.lower() in VIDEOS

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
        found, problem = list(_found(path, suffixes, results, cameras=cameras)), ""
        if not found and path.is_dir():
            problem = f"{path} holds no {kinds}"
        elif not found:
            problem = f"{path} names no {kinds}" if _is_pattern(path) else f"there is no {path}"
        problems += filter(None, [problem])
        for source, name in found:
            place = source.parent.resolve() / source.name  # a link is a file of its own
            jobs.setdefault(place, Job(source, name.as_posix(), tuple(targets(name))))
    _require_distinct([*jobs.values()])
    names = Counter(job.name for job in jobs.values())
    same = {place: job for place, job in jobs.items() if names[job.name] > 1 and not job.targets}
    jobs |= {place: job._replace(name=job.source.as_posix()) for place, job in same.items()}
    return Plan([*jobs.values()], problems)


def _found(
    path: Path, suffixes: Collection[str], results: Sequence[Path], *, cameras: bool
) -> Iterator[tuple[Path, Path]]:
    """Yield files of an input, and their names below the output."""
    if path.is_dir():
        yield from ((path / name, name) for name in _names_below(path, suffixes, results))
    elif (
        cameras and (str(path).isdecimal() or str(path).startswith(CAMERAS)) and not path.is_file()
    ):
        yield _camera(str(path).removeprefix(CAMERAS)), Path(f"camera-{path.name}.mp4")
    elif path.exists():
        yield path, Path(path.name)
    elif _is_pattern(path):
        count = next(number for number, part in enumerate(path.parts) if _magic(part))
        fixed, pattern = Path(*path.parts[:count]), path.parts[count:]
        places = [result.resolve() for result in results]
        for file in sorted(_matching(fixed, pattern, suffixes), key=str):
            inside = any(file.resolve().is_relative_to(place) for place in places)
            if file.suffix.lower() in suffixes and file.is_file() and not inside:
                yield file, file.relative_to(fixed)


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


def _camera(number: str) -> Path:
    device = Path(f"{CAMERAS}{number}")
    if not device.exists():
        raise ValueError(
            f"there is no camera {number} on this machine (no {device}), nor a file of that name: "
            "give pictures, videos or folders"
        )
    return device


def _magic(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _is_pattern(path: Path) -> bool:
    return _magic(str(path))


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
        where = f"the folder {path} holds" if path.is_dir() else f"{path} matches"
        raise ValueError(f"{where} no files that end in {', '.join(sorted(suffixes))}")
    return found


def is_several(path: Path) -> bool:
    """Return whether a path is a folder or a pattern, and not the name of one file."""
    return path.is_dir() or (_is_pattern(path) and not path.exists())


def _names_below(folder: Path, suffixes: Collection[str], results: Sequence[Path]) -> list[Path]:
    here = folder.resolve()
    places = [result.resolve() for result in results]
    inside = [place for place in places if place != here and place.is_relative_to(here)]
    return [
        name
        for name in sorted(Path(file) for file in find_files(folder, suffixes))
        if not any((folder / name).resolve().is_relative_to(place) for place in inside)
    ]


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


def written_name(name: Path) -> Path:
    """Name the picture or video that is made of a file: it keeps its name or gains a suffix.

    Args:
        name: Name of the file.

    Returns:
        The name with `.mp4` added to other videos, and `.png` to all but JPEG and PNG.
    """
    suffix = name.suffix.lower()
    if suffix in _WRITTEN:
        return name
    return name.with_name(name.name + (".mp4" if suffix in VIDEOS else ".png"))


def save_picture(picture: "Image.Image", file: Path) -> None:
    """Write a picture, completely or not at all, and the folders that lead to it.

    Args:
        picture: The picture.
        file: A name that ends in .jpg, .jpeg or .png.

    Raises:
        UnwritableError: If the disk is full or the folder read-only, for example.
        ValueError: If it is larger than a JPEG can be.
    """
    if max(picture.size) > _JPEG_SIDE and file.suffix.lower() != ".png":
        raise ValueError(f"{file} would be larger than JPEG's {_JPEG_SIDE:,} pixels: give a PNG")
    make_folder(file.parent)
    with replacing(file) as part:
        picture.save(part, quality=95)  # without effect on PNG


def do_jobs(jobs: Sequence[Job], do: Callable[[Job], str | None], *, title: str) -> list[str]:
    """Do jobs one after another, with a progress bar.

    Args:
        jobs: Jobs of a plan.
        do: Function that does one; it returns a sentence if the file cannot be used.
        title: Title of the progress bar.

    Returns:
        The sentences, for the end of the program; after Ctrl-C they are said at once.
    """
    from eva_data.progress import progress

    problems: list[str] = []
    try:
        for job in progress(jobs, total=len(jobs), what=title, unit="file"):
            if problem := do(job):
                problems.append(problem)
    except KeyboardInterrupt:
        for problem in problems:
            complain(printable(problem))
        raise
    return problems


def refuse(parser: argparse.ArgumentParser, error: Exception | str) -> NoReturn:
    """End a program with one sentence on a value that was given, without the lines on its usage.

    Args:
        parser: Parser of the program, for its name.
        error: The sentence, such as that a file is not there.

    Raises:
        SystemExit: With code 2.
    """
    parser.exit(EXIT_WRONG_ARGUMENTS, printable(f"{parser.prog}: error: {error}\n"))


def run_demo(
    parser: argparse.ArgumentParser,
    *,
    prepare: Callable[[], Plan],
    work: Callable[[Plan], list[str]],
    overwrite: bool,
    results: Sequence[Path] = (),
) -> None:
    """Process every readable input and report the rest; the terminal gets warnings alone.

    Args:
        parser: Parser of the program, for its name.
        prepare: Function that plans and checks; its OSError or ValueError is a mistake in the
            arguments.
        work: Function that does the jobs, if there are any, and returns a sentence for each file
            that could not be used.
        overwrite: Replace earlier results.
        results: Files to write, besides the targets of the jobs.

    Raises:
        SystemExit: With code 2 for wrong arguments, 1 and one sentence for each input that could
            not be used or for a full disk, 130 after Ctrl-C.
    """
    try:
        plan = prepare()
        targets = [target for job in plan.jobs for target in job.targets]
        require_free([*targets, *results], overwrite=overwrite)
    except (OSError, ValueError) as error:
        refuse(parser, error)
    log_to_terminal()
    problems = list(plan.problems)
    try:
        if plan.jobs:
            problems += work(plan)
    except KeyboardInterrupt:
        sys.exit(EXIT_KEYBOARD)
    except UnwritableError as error:
        sys.exit(f"{parser.prog}: {error}")
    if not plan.jobs and len(problems) == 1:
        sys.exit(printable(f"{parser.prog}: {problems[0]}"))
    if problems:
        sys.exit(printable("\n  ".join(["not everything could be read:", *problems])))


def log_to_terminal() -> None:
    """Let warnings of the log reach the terminal, and what is meant for it, and nothing else."""
    handler = logging.StreamHandler()
    handler.addFilter(ForTerminal())
    handler.setFormatter(TerminalFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
