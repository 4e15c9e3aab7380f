"""Pictures and labels of a data set, looked at once before a run."""

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from eva_backbone.checkpoints.listing import listed

_THREADS, _AT_ONCE = 16, 1000  # a network file system answers many questions at once


def check_pictures(
    records: Iterable[Mapping[str, Any]], *, part: str, allowed: int = 0
) -> list[str]:
    """Look once at every file of a data set, before hours are spent on the rest.

    Args:
        records: In detectron2's format.
        part: What they are for, "training" or "evaluation".
        allowed: Files that may be missing or empty, as `train.max_bad_images` replaces them.

    Returns:
        What is wrong with which file, as far as it is allowed.

    Raises:
        ValueError: If more files are missing or empty, or one is a pipe or device, whose reader
            would wait forever.
    """
    named = [(str(one["file_name"]), one.get("image_id")) for one in records if "file_name" in one]
    parts = [named[start : start + _AT_ONCE] for start in range(0, len(named), _AT_ONCE)]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = [problem for problems in pool.map(_problems, parts) for problem in problems]
    texts = [text for _, text in found]
    endless = [text for problem, text in found if problem == _ENDLESS]
    if endless or len(texts) > allowed:
        raise ValueError(
            f"{len(texts)} of {len(named)} pictures for {part} cannot be read: "
            f"{listed(endless or texts, 10)}; put them there, or take them out of the annotations"
        )
    return texts


_ENDLESS = "is a pipe, socket or device"


def _problems(named: Sequence[tuple[str, Any]]) -> list[tuple[str, str]]:
    found = ((name, image, _problem(name)) for name, image in named)
    return [(what, f"{name} (id {image}) {what}") for name, image, what in found if what]


def _problem(name: str) -> str:
    if "://" in name:  # detectron2 can read other places than files
        return ""
    try:
        status = os.stat(name)  # noqa: PTH116 (of millions: no object for each)
    except OSError as error:
        return "is missing" if isinstance(error, FileNotFoundError) else f"({error.strerror})"
    if stat.S_ISDIR(status.st_mode):
        return "is a folder"
    if not stat.S_ISREG(status.st_mode):
        return _ENDLESS
    return "" if status.st_size else "is empty"


def check_labels(records: Iterable[Mapping[str, Any]], classes: int) -> None:
    """Refuse objects of a class that the detector does not have.

    Args:
        records: In detectron2's format.
        classes: The detector's.

    Raises:
        ValueError: With the first such object's image.
    """
    for record in records:
        for one in record.get("annotations", ()):
            if not 0 <= one["category_id"] < classes:
                raise ValueError(
                    f"{record.get('file_name')} (id {record.get('image_id')}) has an object of "
                    f"class {one['category_id']}, but model.roi_heads.num_classes={classes}: set "
                    "that to the number of classes of the data"
                )


def records_of(dataset: Any) -> Sequence[Mapping[str, Any]]:
    """Return the records of a data set that a config builds; none for other kinds."""
    plain = isinstance(dataset, (list, tuple)) and all(isinstance(one, Mapping) for one in dataset)
    return dataset if plain else ()
