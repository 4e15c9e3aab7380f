"""Facts about many picture files: whether they are there and decode, and how large they are."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from eva_data.images import SIDEWAYS, inspect_image
from eva_data.pools import ordered_map


class Picture(NamedTuple):
    """Result of inspecting a picture file.

    Attributes:
        name: Place below the folder; differs from the name asked for if only leading folders of
            that name were wrong.
        size: Width and height as stored, before EXIF's orientation; None if it is unusable.
        orientation: EXIF's orientation, 1 if there is none.
        bits: Bits of a value; 16 are scaled to 8, 32 (and fractions) cannot be used.
        mode: Pillow's name for the kind of its values.
        missing: Whether there is no such file.
        problem: Why it cannot be decoded; empty if it can.
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
    """Find a file by its name below a folder, or by the name without its first folders.

    Args:
        folder: Folder of the pictures.
        name: Name of the file, below the folder.

    Returns:
        The name under which the file is there, or None.
    """
    parts = Path(name).parts
    for start in range(len(parts)):
        shorter = name if start == 0 else "/".join(parts[start:])
        if (folder / shorter).is_file():
            return shorter
    return None


def inspect(folder: Path, name: str, *, decode: bool = True) -> Picture:
    """Look at one file.

    Args:
        folder: Folder of the pictures.
        name: Name of the file, below the folder.
        decode: Read all pixels, not just the header.
    """
    found: str | None = name
    try:
        found = find(folder, name)
        if found is None:
            return Picture(name, missing=True)
        facts = inspect_image(folder / found, decode=decode, name="it")
    except OSError as error:  # of the name as well
        return Picture(found or name, problem=str(error))
    return Picture(found, facts[:2], facts.orientation, facts.bits, facts.mode)


def inspect_all(
    folder: Path, names: Sequence[str], *, workers: int = 1, decode: bool = True
) -> Iterator[Picture]:
    """Yield `inspect` of all names, in order, with a progress bar on a terminal.

    Args:
        folder: Folder of the pictures.
        names: Names of the files.
        workers: Number of processes.
        decode: Read all pixels, not just the headers.

    Raises:
        ValueError: If a process dies.
    """
    work = functools.partial(inspect, folder, decode=decode)
    yield from ordered_map(work, names, workers=workers, what="images")
