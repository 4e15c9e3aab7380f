"""Looks at picture files, several at a time: are they there, do they decode, how large are they."""

import functools
import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

from findings import progress

from eva_data.pictures import inspect_picture

SIDEWAYS = (5, 6, 7, 8)  # values with which width and height change places


class Picture(NamedTuple):
    """What is known of a picture file.

    Attributes:
        name: where it was found below the folder; differs from the name asked for if only
            leading folders of that name were wrong.
        size: width and height as stored, before EXIF's orientation; None if it is unusable.
        orientation: EXIF's, 1 if there is none.
        bits: of a value; 16 are scaled to 8, 32 (and fractions) cannot be used.
        mode: what Pillow calls the kind of its values.
        missing: whether there is no such file.
        problem: why it cannot be decoded.
    """

    name: str
    size: tuple[int, int] | None = None
    orientation: int = 1
    bits: int = 8
    mode: str = ""
    missing: bool = False
    problem: str = ""

    @property
    def seen_size(self) -> tuple[int, int] | None:
        """Width and height for a reader that applies the orientation, as detectron2 does."""
        if self.size and self.orientation in SIDEWAYS:
            return self.size[::-1]
        return self.size


def find(folder: Path, name: str) -> str | None:
    """The name itself, or without the first folders, if there is such a file below ``folder``."""
    parts = Path(name).parts
    for start in range(len(parts)):
        shorter = name if start == 0 else "/".join(parts[start:])
        if (folder / shorter).is_file():
            return shorter
    return None


def inspect(folder: Path, name: str, *, decode: bool = True) -> Picture:
    """Looks at one file.

    Args:
        folder: where pictures lie.
        name: of the file, below the folder.
        decode: read all pixels, not just the header.
    """
    found: str | None = name
    try:
        found = find(folder, name)
        if found is None:
            return Picture(name, missing=True)
        facts = inspect_picture(folder / found, decode=decode, name="it")
    except (OSError, ValueError) as error:  # of the name as well
        return Picture(found or name, problem=str(error))
    size = facts.width, facts.height
    return Picture(found, size, facts.orientation, facts.bits, facts.mode)


def inspect_all(
    folder: Path, names: Sequence[str], *, workers: int = 1, decode: bool = True
) -> Iterator[Picture]:
    """Yields ``inspect`` of all names, in order, with a progress bar on a terminal.

    Args:
        folder: where pictures lie.
        names: of the files.
        workers: number of processes.
        decode: read all pixels, not just the headers.

    Raises:
        ValueError: if a process dies.
    """
    work = functools.partial(inspect, folder, decode=decode)
    if workers == 1 or len(names) < 2:
        yield from progress(map(work, names), total=len(names), what="images")
        return
    # Not fork: the caller may hold threads.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_ignore_interrupt)
    try:
        results = pool.map(work, names, chunksize=32)
        yield from progress(results, total=len(names), what="images")
    except BrokenProcessPool as error:
        raise ValueError(
            f"one of {workers} processes that decode images died, perhaps for lack of memory; "
            "give fewer --workers, or --skip-decode"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _ignore_interrupt() -> None:
    """Leaves Ctrl-C to the parent process, which ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
