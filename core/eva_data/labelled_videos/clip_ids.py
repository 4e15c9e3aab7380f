"""Videos of a list of YouTube ids and times: which file of a folder is which clip.

The folder is flat or has any subfolders. A clip is `ID_000010_000020.mp4`, as cvdf's archives have
it, `ID_10_20.mp4`, or else `ID.mp4`, as their replacements are named; with any suffix of a video.
"""

import logging
import re
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from eva_data.files import VIDEO_SUFFIXES, find_files
from eva_data.index import Names
from eva_data.labelled_videos.entries import Labels
from eva_data.labelled_videos.placing import TWICE, Tally, report_absent
from eva_data.labelled_videos.tables import Row, TableList
from eva_data.labelled_videos.video_files import VideoFiles
from eva_data.video.source import Backend

logger = logging.getLogger(__name__)

ID_LENGTH = 11  # characters
_SPAN = r"_(\d+)(?:\.\d+)?_(\d+)(?:\.\d+)?"
_TIMES = re.compile(f"(.+){_SPAN}")
_NAMED = re.compile(rf"([\w-]{{{ID_LENGTH}}})(?:{_SPAN})?(?![\w-])", re.ASCII)


class Clips:
    """The files of a folder by id and times; the folder is searched once.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.names = Names.collect(find_files(root, VIDEO_SUFFIXES))
        self._places: dict[str, int] = {}
        self._by_id: dict[str, int | None] | None = None
        self.copies = Tally()
        for place, name in enumerate(self.names):
            if self._places.setdefault(_key(_stem(name)), place) != place:
                self.copies.add(name)

    def find(self, row: Row) -> int | None:
        """Find the file of a clip: its place in `names`, or None."""
        if row.times is not None:
            found = self._places.get(_key(f"{row.path}_{row.times[0]}_{row.times[1]}"))
            if found is not None:
                return found
        found = self._places.get(_key(row.path))
        return self._only(row.path) if found is None and row.times is None else found

    def _only(self, wanted: str) -> int | None:
        """Find the file of an id, if there is one file of it, at whatever times."""
        if self._by_id is None:
            self._by_id = {}
            for place, name in enumerate(self.names):
                key = clip_id(name)
                self._by_id[key] = None if key in self._by_id else place
        return self._by_id.get(wanted)


def _stem(name: str) -> str:
    base = name.rpartition("/")[2]
    stem, _, suffix = base.rpartition(".")
    return stem if f".{suffix.lower()}" in VIDEO_SUFFIXES else base


def _key(stem: str) -> str:
    """Write times without leading zeros and fractions; an id that looks like it changes alike."""
    parts = _TIMES.fullmatch(stem)
    return f"{parts[1]}_{int(parts[2])}_{int(parts[3])}" if parts else stem


def clip_id(name: str) -> str:
    """Take the id out of the path of a clip: its name without suffix and times.

    Args:
        name: Path such as `abseiling/-3B32lodo2M_000059_000069.mp4`.
    """
    return _id(_stem(name))


def clip_name(found: str, times: tuple[int, int]) -> str:
    """Name a clip as cvdf's archives do, without suffix.

    Args:
        found: Its id.
        times: Start and end in seconds.
    """
    return f"{found}_{times[0]:06d}_{times[1]:06d}"


def youtube_id(name: str, *, sure: bool = False) -> str | None:
    """Take the YouTube id out of the path of a clip, None if there is none.

    An id is 11 letters, digits, `-` and `_`, and may begin with each of them. A name of eleven
    letters without times may be any; by chance one id in 300 has no capital.

    Args:
        name: Path such as `abseiling/-3B32lodo2M_000059_000069.mp4`.
        sure: Whether the videos are YouTube's: then eleven letters are an id, and programs may have
            put anything behind them, as in `-3B32lodo2M.f137.mp4`.
    """
    if sure:
        match = _NAMED.match(name.rpartition("/")[2])
        return match and match[1]
    stem = _stem(name)
    found = _id(stem)
    if not re.fullmatch(r"[\w-]{11}", found, re.ASCII):
        return None
    return found if found != stem or re.search("[A-Z]", found) else None


def _id(stem: str) -> str:
    parts = _TIMES.fullmatch(stem)
    return parts[1] if parts and len(stem) > ID_LENGTH else stem


def place_clips(table: TableList, labels: Labels, *, root: Path, backend: Backend) -> VideoFiles:
    """Find the clips of a list of ids in a folder.

    Those that are not there are left out; a warning counts them and names the first.

    Args:
        table: The list.
        labels: Reader of its labels.
        root: The folder, searched with its subfolders.
        backend: See `open_video`.

    Returns:
        The clips that are there, in the order of the list; `missing` names the others, `unlisted`
        counts the videos of the folder that are not in the list.

    Raises:
        ValueError: If none is there.
    """
    clips = Clips(root)
    numbers, lines, absent = array("i"), array("i"), list[str]()
    used, twice = np.zeros(len(clips.names), bool), Tally()

    def placed() -> Iterator[str]:
        for row in table.rows():
            label = labels.of(row.label, row.where)
            place = clips.find(row)
            if place is None:
                absent.append(clip_name(row.path, row.times) if row.times else row.path)
                lines.append(row.line)
                continue
            name = clips.names[place]
            if used[place]:
                twice.add(f"{name} (line {row.line})")
            used[place] = True
            numbers.append(label)
            yield name

    names = Names.collect(placed())
    _explain_other_times(clips, absent, root)
    report_absent(table.file, root, len(names), absent, lines)
    twice.warn(TWICE, table.file)
    clips.copies.warn("%s has %s videos under names that mean the same clip: %s", root)
    unlisted = [clips.names[int(place)] for place in np.flatnonzero(~used)]
    if unlisted:
        logger.info(
            "%s videos of %s are not in %s: %s", f"{len(unlisted):,}", root, table.file, unlisted[0]
        )
    return VideoFiles(
        root,
        names,
        np.array(numbers, np.int32),
        labels.classes(),
        backend=backend,
        missing=absent,
        unlisted=unlisted,
    )


def _explain_other_times(clips: Clips, absent: list[str], root: Path) -> None:
    """Name the clips of which another part of the same video is there."""
    wanted = {_id(name) for name in absent}
    if not wanted:
        return
    others = Tally()
    for name in clips.names:
        if clip_id(name) in wanted:
            others.add(name)
    others.warn("%s has %s clips of missing ids at other times: %s", root)
