"""COCO's panoptic format: PNG files with the id of a segment in each pixel, and a JSON file.

The objects of such a dataset are its segments; 0 is the id of pixels without one.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eva_data.detection.rules import Size
from eva_data.images import read_rgb

_DIGITS = np.array([1, 256, 256**2])  # of an id, in red, green and blue
_OF_SEGMENTS = ("category_id", "bbox", "area", "iscrowd")


@dataclass(frozen=True, kw_only=True)
class Panoptic:
    """What a panoptic dataset has beside images, categories and segments.

    Attributes:
        folder: Folder of the PNG files.
        files: Name of the file of each image id.
        things: Ids of the categories whose objects are counted; the others are stuff.
    """

    folder: Path
    files: Mapping[int, str]
    things: frozenset[int]


def is_panoptic(annotations: Any) -> bool:
    """Return whether the list `annotations` of a file is one of images with segments."""
    first = annotations[0] if isinstance(annotations, list) and annotations else None
    return isinstance(first, dict) and "segments_info" in first


def list_segments(annotations: Iterable[Any], images: Mapping[int, Any]) -> Iterator[Any]:
    """List segments as objects of COCO's format; what is no list of segments comes as it is."""
    for annotation in annotations:
        segments = annotation.get("segments_info") if isinstance(annotation, dict) else None
        if not isinstance(segments, list) or not all(isinstance(entry, dict) for entry in segments):
            yield annotation
            continue
        key = annotation.get("image_id")
        image = images.get(key, {}) if isinstance(key, int) else {}
        whole = [0, 0, image.get("width", 1), image.get("height", 1)]
        counts = Counter(str(entry.get("id")) for entry in segments)
        for entry in segments:
            name = str(entry.get("id"))
            yield {
                "bbox": whole,
                **entry,
                "id": f"segment {name} of {annotation.get('file_name')}",
                "image_id": key,
                "segment_id": entry.get("id") if counts[name] == 1 else None,
            }


def group_segments(
    objects: Iterable[Mapping[str, Any]], images: Iterable[int], files: Mapping[int, str]
) -> list[dict[str, Any]]:
    """Write segments as the list `annotations` of a file, with an entry for each image."""
    segments: dict[int, list[dict[str, Any]]] = {key: [] for key in images}
    for entry in objects:
        facts = {name: entry[name] for name in _OF_SEGMENTS}
        segments[entry["image_id"]].append({"id": entry["segment_id"], **facts})
    return [
        {"image_id": key, "file_name": files[key], "segments_info": entries}
        for key, entries in segments.items()
    ]


def read_ids(file: Path) -> NDArray[np.int64]:
    """Read the ids (H, W) of a PNG file."""
    ids: NDArray[np.int64] = read_rgb(file, upright=False).astype(np.int64) @ _DIGITS
    return ids


def as_rgb(ids: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    """Write ids (H, W) as the pixels (H, W, 3) of a PNG file."""
    return (ids[..., None] // _DIGITS % 256).astype(np.uint8)


def find_faults(
    ids: NDArray[np.int64], size: Size, segments: Sequence[int]
) -> Iterator[tuple[str, str]]:
    """Compare the ids of a PNG file with its image and its list: kind and message of each fault."""
    if ids.shape != size:
        sizes = (f"{width} x {height} px" for height, width in (ids.shape, size))
        yield "size", "it has {}, and its image {}".format(*sizes)
        return
    present = {*np.unique(ids).tolist()} - {0}
    for key in sorted(present - {*segments}):
        yield "id", f"pixels have the id {key}, of which segments_info has no segment"
    for key in sorted({*segments} - present):
        yield "pixels", f"segment {key} has no pixels"
