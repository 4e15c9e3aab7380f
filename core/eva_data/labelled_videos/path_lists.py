"""Lists of lines `path label`, as VideoMAE, V-JEPA, InternVideo, mmaction2 and EVA have them.

    abseiling/-3B32lodo2M_000059_000069.mp4 0          a space: the label is what follows the last
    videos/a, b.mp4,12                                 a comma
    videos/a b.mp4::12                                 two colons
    frames/-3B32lodo2M 300 0                           a folder of pictures, their number, the label

A list has one separator, which is found out. It has no header.
"""

import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from eva_data.files import VIDEO_SUFFIXES
from eva_data.labelled_videos.entries import Entry, Labels, text_lines
from eva_data.labelled_videos.placing import Shelves

_TRIED = 100  # lines that are looked up on the disk, to find out the form
Split = Callable[[str, Labels], "tuple[str, int] | None"]
FORMS = "`path label`, `path,label`, `path::label` or `folder number_of_frames label`"


def _at(separator: str) -> Split:
    """Make the function that splits a line at the last place of a separator."""

    def split(line: str, labels: Labels) -> tuple[str, int] | None:
        path, _, text = line.rpartition(separator)
        label = labels.read(_unquoted(text.strip()))
        return None if label is None or not path.strip() else (_unquoted(path.strip()), label)

    return split


def _at_space(line: str, labels: Labels) -> tuple[str, int] | None:
    """Split a line at a space: before a number, or before the name of a class."""
    ends = line.rsplit(None, 1)
    if len(ends) < 2:
        return None
    found = []
    for path, text in [ends] if ends[1].lstrip("+-").isdigit() else _splits(line):
        label = labels.read(_unquoted(text))
        if label is not None and not path.endswith((",", "::")):
            found.append((_unquoted(path), label))
    if len(set(found)) > 1:  # "x.mp4 tap dancing" where dancing is a class too
        found = [(path, label) for path, label in found if is_video(path)]
    return found[0] if len(set(found)) == 1 else None


def _splits(line: str) -> Iterator[list[str]]:
    for space in re.finditer(r"\s+", line):
        yield [line[: space.start()], line[space.end() :]]


SEPARATORS: dict[str, Split] = {"a space": _at_space, "','": _at(","), "'::'": _at("::")}


def is_video(path: str | Path) -> bool:
    """Test whether a path has the suffix of a video."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def _unquoted(text: str) -> str:
    """Take away the quotes in which pandas and csv write what holds the separator."""
    if len(text) > 2 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"')
    return text


def read_path_list(file: Path, root: Path, labels: Labels) -> Iterator[Entry]:
    """Read a list of lines `path label`.

    Args:
        file: The list.
        root: Folder of relative paths: it decides whether `a 300 0` is a folder of 300 pictures.
        labels: Reader of the labels.

    Yields:
        The videos, in the order of the list.

    Raises:
        ValueError: If it has no line, a line is not of its form, or a label is wrong; the message
            names the line.
    """
    separator = _find_separator(file, labels)
    split = SEPARATORS[separator]
    with_frames = _has_frames(file, root, split, labels)
    for number, line in text_lines(file):
        where = f"{file}, line {number}"
        found = split(line, labels)
        if found is None:
            raise _not_of_the_form(where, line, separator, split, labels)
        path, label = found
        frames = None
        if with_frames:
            inner = split(path, _NUMBERS)
            if inner is None or inner[1] < 1:
                raise ValueError(
                    f"{where} is {line!r}, not `folder number_of_frames label` as those before"
                )
            path, frames = inner
        yield Entry(number, path, labels.require(label, where), frames)


_NUMBERS = Labels(None)


def _find_separator(file: Path, labels: Labels) -> str:
    """Name the separator by which every line, or every line up to the first clear one, splits."""
    left = list(SEPARATORS)
    videos = dict.fromkeys(SEPARATORS, True)
    number = 0
    for number, line in text_lines(file):
        found = {name: SEPARATORS[name](line, labels) for name in left}
        fits = [name for name in left if found[name] is not None]
        if not fits:
            where = f"{file}, line {number}"
            if len(left) < len(SEPARATORS):
                raise ValueError(f"{where} is {line!r}, which is not split as those before it")
            raise _not_split(where, line, labels)
        left = fits
        if len(left) == 1:
            return left[0]
        for name in left:
            videos[name] &= is_video(found[name][0])  # type: ignore[index]
    if not number:
        raise ValueError(f"{file} is empty: it must have a line for each video, {FORMS}")
    left = [name for name in left if videos[name]]
    if len(left) != 1:
        line = next(islice(text_lines(file), 1))[1]
        raise ValueError(
            f"{file} can be split in several ways, such as {line!r}: write numbers for the labels, "
            "or '::' between path and label"
        )
    return left[0]


def _not_split(where: str, line: str, labels: Labels) -> ValueError:
    parts = line.replace("::", " ").replace(",", " ").split()
    if len(parts) > 1:
        return ValueError(f"{labels.refuse(parts[-1], where)}; a line must be {FORMS}")
    return ValueError(f"{where} is {line!r}, without a label: a line must be {FORMS}")


def _not_of_the_form(
    where: str, line: str, separator: str, split: Split, labels: Labels
) -> ValueError:
    others = [name for name, other in SEPARATORS.items() if other(line, labels) is not None]
    if others:
        return ValueError(
            f"{where} is {line!r}, split by {others[0]}, and the lines before it by {separator}: "
            "a list has one separator"
        )
    return _not_split(where, line, labels)


def _has_frames(file: Path, root: Path, split: Split, labels: Labels) -> bool:
    """Find out whether the list is of folders of pictures, `folder number_of_frames label`.

    The disk decides whether `a 3` is a folder of three pictures or a name; if nothing is there, it
    is a folder.
    """
    shelves = Shelves(root)
    for number, line in islice(text_lines(file), _TRIED):
        found = split(line, labels)
        inner = None if found is None else split(found[0], _NUMBERS)
        if found is None or inner is None:
            return False
        if is_video(inner[0]):
            raise ValueError(
                f"{file}, line {number} is {line!r}, with two numbers after the path: videos have "
                "one label"
            )
        if shelves.find(found[0]) is not None:
            return False
        if shelves.find(inner[0]) is not None:
            return True
    return True


def list_line(path: str, label: int) -> str | None:
    """Write a line `path label` that is read as it was meant; None for a path that cannot be.

    Args:
        path: Path of the video.
        label: Its label.
    """
    if not path or path.strip() != path or "\n" in path or "\r" in path:
        return None
    if path[0] == path[-1] == '"' or path.endswith((",", "::")):
        path = '"' + path.replace('"', '""') + '"'
    return f"{path} {label}"
