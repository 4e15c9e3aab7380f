"""What the servers of COCO test-dev and LVIS want of a file, and what is wrong with one."""

import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva_data.detection.coco import parse_json
from eva_data.detection.rules import is_box, is_integer, is_number, rle_runs, shown

Detection = dict[str, Any]
FIELDS = {"bbox": "bbox", "segm": "segmentation"}
MOST_BYTES = 2_000_000_000  # JSON of a file; COCO's server has failed from 1.2 GB
SPLITS = {"coco": "test-dev2017", "lvis": "test_dev"}


@dataclass(frozen=True)
class Server:
    """What a server wants.

    Attributes:
        name: File name without ending, with {split}, {algorithm} and {task}.
        limit: Detections that it scores in one group.
        per_class: Whether a group is a class of an image, or the image.
    """

    name: str
    limit: int
    per_class: bool

    def group(self, entry: Detection) -> Any:
        """Name the group that an entry is counted in."""
        key = entry["image_id"]
        return (key, entry["category_id"]) if self.per_class else key


# COCO: cocodataset.org/#upload, the same name for boxes and masks, which go to two competitions.
# LVIS: the reference material names no rule; the name says what is inside.
SERVERS: Mapping[str, Server] = {
    "coco": Server("detections_{split}_{algorithm}_results", 100, True),
    "lvis": Server("lvis_v1_{split}_{algorithm}_{task}_results", 300, False),
}


class ImageList:
    """Images and categories of a test set, from its `image_info_*.json`.

    Args:
        file: The file.

    Raises:
        ValueError: If it is not such a file.
    """

    def __init__(self, file: Path) -> None:
        data = parse_json(file.read_bytes(), str(file))
        images = _integers(file, data, "images", ("id", "height", "width"))
        categories = _integers(file, data, "categories", ("id",))
        self.sizes = {key: (height, width) for key, height, width in images}
        self.categories = {key for (key,) in categories}


def _integers(file: Path, data: Any, part: str, fields: Sequence[str]) -> list[list[int]]:
    """Read fields of each entry of a part of an image list, the first of them an id."""
    entries = data.get(part) if isinstance(data, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{file} has no list {part}; is it an image_info_*.json?")
    found: list[list[int]] = []
    for number, entry in enumerate(entries):
        values: list[Any] = [entry.get(name) for name in fields] if isinstance(entry, dict) else []
        if not values or not all(map(is_integer, values)) or min(values[1:], default=1) < 1:
            needed = f"{part}[{number}] needs integers {', '.join(fields)}"
            raise ValueError(f"{file}: {needed}, got {shown(entry)}")
        found.append(values)
    if len({values[0] for values in found}) < len(found):
        raise ValueError(f"{file}: several of its {part} have the same id")
    return found


def _bbox_problem(bbox: Any, size: tuple[int, int]) -> str | None:
    if not is_box(bbox):
        return f"bbox {shown(bbox)} is not four finite numbers"
    x, y, width, height = bbox
    if width < 0 or height < 0:
        return f"bbox {bbox} has a negative side; it is [x, y, width, height]"
    if x < -1 or y < -1 or x + width > size[1] + 1 or y + height > size[0] + 1:
        return f"bbox {bbox} leaves the image of {size[1]} x {size[0]} px"
    return None


def _segmentation_problem(mask: Any, size: tuple[int, int]) -> str | None:
    if not isinstance(mask, dict) or not isinstance(mask.get("counts"), str):
        return "segmentation is not a compressed RLE with counts in a string"
    try:
        rle_runs(mask, size)
    except ValueError as error:
        return f"segmentation is an {error}"
    return None


def problem_of(entry: Any, images: ImageList, tasks: Sequence[str]) -> str | None:
    """Find out what is wrong with an entry.

    Args:
        entry: Entry of the list of predictions.
        images: Test set.
        tasks: "bbox" and "segm": the fields that the entry must have.

    Returns:
        The first problem, None if there is nothing wrong.
    """
    if not isinstance(entry, dict):
        return f"is a {type(entry).__name__}, not an object"
    needed = ("image_id", "category_id", "score", *(FIELDS[task] for task in tasks))
    missing = [name for name in needed if name not in entry]
    if missing:
        return f"has no {', '.join(missing)}"
    for name, known in (("image_id", images.sizes), ("category_id", images.categories)):
        value = entry[name]
        if not is_integer(value) or value not in known:
            return f"{name} {shown(value)} is not in the image list"
    if not is_number(entry["score"]):
        return f"score {shown(entry['score'])} is not a finite number"
    size = images.sizes[entry["image_id"]]
    checks = {"bbox": _bbox_problem, "segm": _segmentation_problem}
    for task in tasks:
        problem = checks[task](entry[FIELDS[task]], size)
        if problem:
            return problem
    return None


def problems_of(entries: Any, images: ImageList, tasks: Sequence[str]) -> Iterator[str]:
    """Yield a line for each wrong entry."""
    if not isinstance(entries, list):
        yield f"holds a {type(entries).__name__}, not a list of detections"
        return
    for index, entry in enumerate(entries):
        problem = problem_of(entry, images, tasks)
        if problem:
            of = f" (image {shown(entry.get('image_id'))})" if isinstance(entry, dict) else ""
            yield f"entry {index}{of}: {problem}"


def check(file: Path, task: str, server_name: str, images: ImageList) -> Iterator[str]:
    """Yield what is wrong with a file that is to be sent, or its JSON before packing.

    Args:
        file: The file.
        task: "bbox" or "segm".
        server_name: Name in `SERVERS`.
        images: Test set.
    """
    server = SERVERS[server_name]
    parts = {"split": r"[\w-]+", "algorithm": r".+", "task": task}
    if not re.fullmatch(server.name.format(**parts), file.stem):
        shown = {"split": SPLITS[server_name], "algorithm": "ALGORITHM", "task": task}
        yield f"is named {file.name}, not {server.name.format(**shown)}.zip"
    if file.suffix == ".zip":
        try:
            data = _unpacked(file)
        except ValueError as error:
            yield str(error)
            return
    else:
        data = file.read_bytes()
    try:
        entries = parse_json(data, "it")
    except ValueError as error:
        yield str(error)
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
    complete = (entry for entry in entries if {"image_id", "category_id"} <= entry.keys())
    over = [key for key, n in Counter(map(_key(server), complete)).items() if n > server.limit]
    if over:
        unit = "(image, class)" if server.per_class else "image"
        yield f"{len(over)} times more than {server.limit} detections of one {unit}: {over[0]}, ..."


def _unpacked(file: Path) -> bytes:
    """Read the JSON in a zip file; what is wrong with it is a ValueError."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if names != [f"{file.stem}.json"]:
                found = shown(", ".join(names))[1:-1] or "nothing"
                raise ValueError(f"holds {found}, not {file.stem}.json alone")
            size = archive.getinfo(names[0]).file_size
            if size > MOST_BYTES:
                raise ValueError(f"holds {size:,} bytes; the servers take {MOST_BYTES:,} at most")
            with archive.open(names[0]) as stream:
                return stream.read(MOST_BYTES)
    # what zipfile raises for damage, encryption and unknown compression
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"is not a zip file, or a damaged one ({error})") from error


def _key(server: Server) -> Any:
    return lambda entry: str(server.group(entry))  # unhashable ids are complained about already
