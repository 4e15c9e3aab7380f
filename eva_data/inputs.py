"""What a demo program does with the files that it is given and with those that it writes.

It finds pictures and videos, plans what becomes of each, and refuses, before any work is done, a
plan in which two results have one name, an input is overwritten or an earlier result is lost.
Importing it loads no heavy library, so that a program answers mistakes in its arguments at once.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from eva_data.files import UnwritableError, find_files, make_folder, replacing
from eva_data.interruption import EXIT_KEYBOARD
from eva_data.suffixes import VIDEOS

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

_WRITTEN = (".jpg", ".jpeg", ".png", ".mp4")


class Job(NamedTuple):
    """A file to read, and the files that are written of it.

    Attributes:
        source: The file.
        name: Its path below the folder that was given, with slashes, or its own name.
        targets: Files to write.
    """

    source: Path
    name: str
    targets: tuple[Path, ...]

    @property
    def is_video(self) -> bool:
        """Whether the source has the suffix of a video."""
        return self.source.suffix.lower() in VIDEOS


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
) -> Plan:
    """Plan what is read and written.

    Args:
        inputs: Files, whatever their suffix, and folders, which are searched through without
            hidden files.
        suffixes: Suffixes of the files that are taken from folders.
        targets: Function from a name below the output to the files that are written of it.
        results: Folders of earlier results, which are left out where they lie in a folder of
            `inputs`.
        kinds: Name of what is looked for, in the sentence on an empty folder.

    Returns:
        The jobs, and what is wrong with single inputs.

    Raises:
        ValueError: If two inputs would be written to one file, or an input would be overwritten.
    """
    jobs: list[Job] = []
    problems: list[str] = []
    for path in inputs:
        if path.is_dir():
            names = _names_below(path, suffixes, results)
            jobs += (Job(path / name, name.as_posix(), tuple(targets(name))) for name in names)
            if not names:
                problems.append(f"{path} holds no {kinds}")
        elif path.exists():
            jobs.append(Job(path, path.name, tuple(targets(Path(path.name)))))
        else:
            problems.append(f"there is no {path}")
    _require_distinct(jobs)
    return Plan(jobs, problems)


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


def require_free(files: Iterable[Path], *, overwrite: bool) -> None:
    """Refuse outputs that cannot be written, or that are there already.

    Args:
        files: Files to write.
        overwrite: Whether earlier files may be replaced.

    Raises:
        ValueError: If a file is there or is a folder, or its folder is a file.
    """
    for file in files:
        if above := next((folder for folder in file.parents if folder.is_file()), None):
            raise ValueError(f"{above} is a file and would have to be a folder")
        if file.is_dir():
            raise ValueError(f"{file} is a folder and would have to be a file")
        if file.exists() and not overwrite:
            raise ValueError(f"{file} is there already: give --overwrite or another name")


def save_picture(picture: "Image.Image", file: Path) -> None:
    """Write a picture, completely or not at all, and the folders that lead to it.

    Args:
        picture: The picture.
        file: A name that ends in .jpg, .jpeg or .png.

    Raises:
        UnwritableError: If the disk is full or the folder read-only, for example.
    """
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
        The sentences, which are also logged.
    """
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    problems: list[str] = []
    with logging_redirect_tqdm():
        for job in tqdm(jobs, desc=title, unit="file", dynamic_ncols=True):
            if problem := do(job):
                logger.error("%s", problem)
                problems.append(problem)
    return problems


def run_demo(
    parser: argparse.ArgumentParser,
    *,
    prepare: Callable[[], Plan],
    work: Callable[[Plan], list[str]],
) -> None:
    """Run a program: check, do what can be done, and report what could not.

    Args:
        parser: Parser of the program, for its name and its way to refuse arguments.
        prepare: Function that plans and checks; its OSError or ValueError is a mistake in the
            arguments.
        work: Function that does the jobs, if there are any, and returns a sentence for each file
            that could not be used.

    Raises:
        SystemExit: With code 2 for wrong arguments, 1 and one sentence for each input that could
            not be used or for a full disk, 130 after Ctrl-C.
    """
    try:
        plan = prepare()
    except (OSError, ValueError) as error:
        parser.error(str(error))
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for problem in plan.problems:
        logger.error("%s", problem)
    problems = list(plan.problems)
    try:
        if plan.jobs:
            problems += work(plan)
    except KeyboardInterrupt:
        sys.exit(EXIT_KEYBOARD)
    except UnwritableError as error:
        sys.exit(f"{parser.prog}: {error}")
    if problems:
        sys.exit("\n  ".join(["not everything could be read:", *problems]))


def share(text: str) -> float:
    """Read a number from 0 to 1, as a type of argparse."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be in [0, 1], got {text}")
    return value
