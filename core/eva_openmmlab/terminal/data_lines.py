"""The data of a run in a line each: pictures, objects, classes, place."""

from pathlib import Path
from typing import Any

from eva_openmmlab.config.options import parts_of

_COUNTED = 150_000  # pictures whose objects are counted: all of COCO in a few seconds


def data_line(part: str, dataset: Any, settings: Any) -> str:
    """Describe a data set.

    Args:
        part: What it is for: "train", "val", "test".
        dataset: The data set, once it is built.
        settings: Its config.
    """
    counts = [f"{len(dataset):,} images"]
    objects = count_objects(dataset)
    if objects is not None:
        counts.append(f"{objects:,} objects")
    classes = (getattr(dataset, "metainfo", None) or {}).get("classes")
    if classes:
        counts.append(f"{len(classes):,} classes")
    return f"{part}: {', '.join(counts)} ({_place(settings)})"


def count_objects(dataset: Any) -> int | None:
    """Count the objects of a data set of mmdetection.

    Args:
        dataset: The data set.

    Returns:
        Number of objects; None for another data set, one that wraps others, or a very large one.
    """
    look = getattr(dataset, "get_data_info", None)
    if look is None or hasattr(dataset, "datasets") or not 0 < len(dataset) <= _COUNTED:
        return None
    if "instances" not in look(0):
        return None
    return sum(len(look(number)["instances"]) for number in range(len(dataset)))


def picture_folder(settings: Any) -> Path | None:
    """Find the folder of pictures of the first part of a data set; None if none is named.

    Args:
        settings: Config of the data set.
    """
    first = parts_of(settings)[0]
    if first.get("images"):
        return Path(first["images"])
    prefixes = first.get("data_prefix") or {}
    prefix = next((prefixes[name] for name in ("img", "img_path") if name in prefixes), None)
    return None if prefix is None else Path(first.get("data_root") or "") / prefix


def _place(settings: Any) -> str:
    first = parts_of(settings)[0]
    place = first.get("data_root") or first.get("ann_file") or first.get("images")
    more = len(parts_of(settings)) - 1
    return f"{place} and {more} more" if more else str(place)
