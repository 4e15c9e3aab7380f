"""What the COCO test-dev and LVIS servers want of a file, and what is wrong with one."""

import json
import math
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva_detection.rle import run_lengths

Detection = dict[str, Any]
FIELDS = {"bbox": "bbox", "segm": "segmentation"}
SPLITS = {"coco": "test-dev2017", "lvis": "test_dev"}


@dataclass(frozen=True)
class Server:
    """What a server wants.

    Attributes:
        name: file name without ending, with {split}, {algorithm} and {task}.
        limit: detections that it scores in one group.
        per_class: whether a group is a class of an image, or the image.
    """

    name: str
    limit: int
    per_class: bool

    def group(self, entry: Detection) -> Any:
        """The group that an entry is counted in."""
        key = entry["image_id"]
        return (key, entry["category_id"]) if self.per_class else key


# COCO: cocodataset.org/#upload, the same name for boxes and masks, which go to two competitions.
# LVIS: the reference material names no rule; the name says what is inside.
SERVERS: Mapping[str, Server] = {
    "coco": Server("detections_{split}_{algorithm}_results", 100, True),
    "lvis": Server("lvis_v1_{split}_{algorithm}_{task}_results", 300, False),
}


class ImageList:
    """Images and categories of a test set, from its `image_info_*.json`."""

    def __init__(self, file: Path) -> None:
        data = json.loads(file.read_text(encoding="utf-8"))
        self.sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
        self.categories = {category["id"] for category in data["categories"]}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _bbox_problem(bbox: Any, size: tuple[int, int]) -> str | None:
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_number, bbox)):
        return f"bbox {bbox!r} is not four finite numbers"
    x, y, width, height = bbox
    if width < 0 or height < 0:
        return f"bbox {bbox} has a negative side; it is [x, y, width, height]"
    if x < -1 or y < -1 or x + width > size[1] + 1 or y + height > size[0] + 1:
        return f"bbox {bbox} leaves the image of {size[1]} x {size[0]} px"
    return None


def _segmentation_problem(mask: Any, size: tuple[int, int]) -> str | None:
    if not isinstance(mask, dict) or not isinstance(mask.get("counts"), str):
        return "segmentation is not a compressed RLE with counts in a string"
    if mask.get("size") != list(size):
        return f"segmentation has size {mask.get('size')}, the image {list(size)} (height, width)"
    try:
        lengths = run_lengths(mask["counts"])
    except ValueError as error:
        return f"segmentation has broken counts: {error}"
    if min(lengths, default=0) < 0 or sum(lengths) != size[0] * size[1]:
        return f"segmentation covers {sum(lengths)} pixels, the image has {size[0] * size[1]}"
    return None


def problem_of(entry: Any, images: ImageList, tasks: Sequence[str]) -> str | None:
    """What is wrong with an entry, None if nothing.

    Args:
        entry: of the list of predictions.
        images: the test set.
        tasks: "bbox" and "segm": the fields that it must have.
    """
    if not isinstance(entry, dict):
        return f"is a {type(entry).__name__}, not an object"
    needed = ("image_id", "category_id", "score", *(FIELDS[task] for task in tasks))
    missing = [name for name in needed if name not in entry]
    if missing:
        return f"has no {', '.join(missing)}"
    for name, known in (("image_id", images.sizes), ("category_id", images.categories)):
        value = entry[name]
        if not isinstance(value, int) or isinstance(value, bool) or value not in known:
            return f"{name} {value!r} is not in the image list"
    if not _is_number(entry["score"]):
        return f"score {entry['score']!r} is not a finite number"
    size = images.sizes[entry["image_id"]]
    checks = {"bbox": _bbox_problem, "segm": _segmentation_problem}
    for task in tasks:
        problem = checks[task](entry[FIELDS[task]], size)
        if problem:
            return problem
    return None


def problems_of(entries: Any, images: ImageList, tasks: Sequence[str]) -> Iterator[str]:
    """Yields a line for each wrong entry."""
    if not isinstance(entries, list):
        yield f"holds a {type(entries).__name__}, not a list of detections"
        return
    for index, entry in enumerate(entries):
        problem = problem_of(entry, images, tasks)
        if problem:
            of = f" (image {entry.get('image_id')})" if isinstance(entry, dict) else ""
            yield f"entry {index}{of}: {problem}"


def check(file: Path, task: str, server_name: str, images: ImageList) -> Iterator[str]:
    """Yields what is wrong with a file that is to be sent, or its JSON before packing."""
    server = SERVERS[server_name]
    parts = {"split": r"[\w-]+", "algorithm": r".+", "task": task}
    if not re.fullmatch(server.name.format(**parts), file.stem):
        shown = {"split": SPLITS[server_name], "algorithm": "ALGORITHM", "task": task}
        yield f"is named {file.name}, not {server.name.format(**shown)}.zip"
    if file.suffix == ".zip":
        if not zipfile.is_zipfile(file):
            yield "is no zip file"
            return
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if names != [f"{file.stem}.json"]:
                yield f"holds {', '.join(names) or 'nothing'}, not {file.stem}.json alone"
                return
            data = archive.read(names[0])
    else:
        data = file.read_bytes()
    try:
        entries = json.loads(data)
    except ValueError as error:
        yield f"is no JSON: {error}"
        return
    yield from problems_of(entries, images, [task])
    if not isinstance(entries, list):
        return
    other = FIELDS["segm" if task == "bbox" else "bbox"]
    entries = [entry for entry in entries if isinstance(entry, dict)]
    both = sum(other in entry for entry in entries)
    if both:
        yield f"{both} entries of this {task} file have {other}: the areas would be wrong"
    if not entries:
        yield "holds no detections"
    whole = (entry for entry in entries if {"image_id", "category_id"} <= entry.keys())
    over = [key for key, n in Counter(map(_key(server), whole)).items() if n > server.limit]
    if over:
        unit = "(image, class)" if server.per_class else "image"
        yield f"{len(over)} times more than {server.limit} detections of one {unit}: {over[0]}, ..."


def _key(server: Server) -> Any:
    return lambda entry: str(server.group(entry))  # unhashable ids are complained about already
