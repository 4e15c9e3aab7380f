"""UCF-101 as it is published: class folders of videos, and lists of its three splits.

    UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi
    UCF-101/testlist01.txt, or ucfTrainTestlist/testlist01.txt in it or beside it

A line of a list is `ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi`, with a number behind it in those
of the training, which count from 1 and are not read: the folder says the class.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from eva_data.labelled_videos.entries import Entry, Labels, text_lines
from eva_data.labelled_videos.labelled_videos import LabelledVideos
from eva_data.labelled_videos.placing import place_entries
from eva_data.video.source import Backend, require_backend

SPLITS = (1, 2, 3)
_LISTS = "ucfTrainTestlist"


def open_ucf101(
    location: Path,
    classes: Sequence[str],
    *,
    split: int = 1,
    root: Path | None = None,
    backend: Backend = "pyav",
) -> LabelledVideos:
    """Open the videos of a test list.

    Args:
        location: Folder of the class folders, or a list.
        classes: Names in the order of the labels, in any spelling: `Apply Eye Makeup`.
        split: Number of the test list, if `location` is a folder.
        root: Folder of the class folders, if `location` is a list and they are not beside it.
        backend: See `open_video`.

    Returns:
        The videos that are there, in the order of the list.

    Raises:
        ValueError: If there is no such folder or list, a folder is not of a class, or none of the
            videos is there.
    """
    require_backend(backend)
    if location.is_dir():
        file = _find_list(location, split)
        root = location if root is None else root
    elif location.is_file():
        file = location
        root = location.parent if root is None else root
    else:
        raise ValueError(f"there is no {location}: name the folder of UCF-101 or a list of it")
    inner = root / "UCF-101"
    labels = Labels(classes)
    return place_entries(
        _entries(file, classes, labels),
        labels,
        file=file,
        root=inner if inner.is_dir() else root,
        backend=backend,
    )


def _find_list(folder: Path, split: int) -> Path:
    if split not in SPLITS:
        raise ValueError(f"split must be 1, 2 or 3, got {split}")
    name = f"testlist{split:02}.txt"
    places = (folder, folder / _LISTS, folder.parent / _LISTS, folder.parent)
    for place in places:
        if (place / name).is_file():
            return place / name
    raise ValueError(
        f"{folder} has no {name}: put the lists of UCF101TrainTestSplits beside the class folders "
        f"(looked in {', '.join(str(place) for place in places)})"
    )


def _entries(file: Path, classes: Sequence[str], labels: Labels) -> Iterator[Entry]:
    by_key = {_key(name): label for label, name in enumerate(classes)}
    number = 0
    for number, line in text_lines(file):
        path = re.sub(r"\s+\d+$", "", line)
        folder = path.replace("\\", "/").rpartition("/")[0].rpartition("/")[2]
        where = f"{file}, line {number}"
        if _key(folder) not in by_key:
            raise ValueError(
                f"{where} is {line!r}, and {folder!r} is not among the {len(classes)} classes: "
                "expected a line such as 'Archery/v_Archery_g01_c01.avi'"
            )
        yield Entry(number, path, labels.require(by_key[_key(folder)], where))
    if not number:
        raise ValueError(f"{file} is empty: take it from UCF101TrainTestSplits")


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
