"""Annotation files in COCO format, checked and made uniform.

Own files rarely are as regular as COCO's: no areas, no crowd flags, empty polygons, polygons beside
run-length codes (RLE). Training and evaluation read them here, so that both see the same.
"""

import contextlib
import itertools
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eva_data.coco.objects import uniform_object
from eva_data.coco.rules import (
    THIN,
    category_name,
    clip,
    is_id,
    is_integer,
    is_side,
    shown,
    suspected_unit,
)
from eva_data.files import require_regular_file

_MOST_PIXELS = 2**32 - 1  # what pycocotools can count


@dataclass(frozen=True, kw_only=True)
class CocoFile:
    """A checked file.

    Attributes:
        path: Path of the file.
        categories: Name of each category id, in order of the ids.
        images: Image id -> `id`, `file_name`, `width`, `height`.
        objects: Annotated objects: `image_id`, `category_id`, `bbox` (x, y, width, height),
            `area`, `iscrowd` (0 or 1), and `segmentation` where it can be used: polygons or a
            compressed RLE.
        flat: Objects left out because their box has no area in the image.
        thin: Whether all boxes are less than 2 px wide and high.
        lvis: Whether it says which classes are not annotated, as LVIS does.
    """

    path: Path
    categories: Mapping[int, str]
    images: Mapping[int, dict[str, Any]]
    objects: list[dict[str, Any]]
    flat: int
    thin: bool
    lvis: bool

    @property
    def things(self) -> list[dict[str, Any]]:
        """Objects that are not a crowd."""
        return [one for one in self.objects if not one["iscrowd"]]

    def describe(self) -> str:
        """Describe the content in one line."""
        things = self.things
        with_things = {one["image_id"] for one in things}
        masks = [one["segmentation"] for one in things if "segmentation" in one]
        codes = sum(isinstance(mask, dict) for mask in masks)
        text = (
            f"{self.path}: {len(self.images)} images, {len(self.images) - len(with_things)} of "
            f"them without objects; {len(things)} objects of {len(self.categories)} classes, "
            f"{len(masks)} with masks ({codes} RLE), {len(self.objects) - len(things)} crowds"
        )
        if self.flat:
            text += f"; {self.flat} objects are left out: their box has no area in the image"
        if self.thin:
            text += f"; all boxes are below {THIN:g} px: are they in pixels of these images?"
        return text


def read_coco(path: str | Path, *, boxes_only: bool = False) -> CocoFile:
    """Read and check a file; a process reads it once, as long as it is not changed.

    Args:
        path: A JSON file in COCO's format for instances. `annotations` may be missing, as in test
            sets. `iscrowd` and `area` may be missing too; `ignore` means the same as `iscrowd`.
        boxes_only: Leave masks alone, whatever they are: no object has a `segmentation`.

    Returns:
        The file; whoever else reads it gets the same, so it must be left as it is.

    Raises:
        ValueError: If it is not there or not in COCO format; the first wrong entry is named.
    """
    path = Path(path)
    if path.absolute() in _remembered:
        return _remembered[path.absolute()]
    try:
        require_regular_file(path)
    except FileNotFoundError as error:
        raise ValueError(f"there is no annotation file {path}") from error
    except OSError as error:
        raise ValueError(f"{error}; name a JSON file in COCO format") from error
    status = path.stat()
    state = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size, int(boxes_only))
    key = path.absolute()
    if key not in _kept or _kept[key][0] != state:
        _kept[key] = (state, _read(path, boxes_only=boxes_only))
    return _kept[key][1]


_kept: dict[Path, tuple[tuple[int, ...], CocoFile]] = {}
_remembered: dict[Path, CocoFile] = {}


def remember(file: CocoFile) -> None:
    """Let `read_coco` return a file that is not written yet, from now on in this process.

    Args:
        file: The file; it is freed by `forget`.
    """
    _remembered[file.path.absolute()] = file


def forget(path: str | Path) -> None:
    """Free the memory that a file takes, where it is not needed again.

    Args:
        path: Path of a file, whether or not `read_coco` has read it.
    """
    path = Path(path).absolute()
    _remembered.pop(path, None)
    _kept.pop(path, None)


def _read(path: Path, *, boxes_only: bool) -> CocoFile:
    data = _load(path)
    entries = data.get("annotations") or []
    if not isinstance(entries, list):
        raise ValueError(f"{path}: 'annotations' must be a list, got {shown(entries)}")
    return checked(path, data, entries, boxes_only=boxes_only)


def checked(
    path: Path, data: Mapping[str, Any], entries: Iterable[Any], *, boxes_only: bool = False
) -> CocoFile:
    """Check the content of a file.

    Args:
        path: Path of the file, for messages too.
        data: Its lists `images` and `categories`, whose entries have ids of their own.
        entries: Its annotations; they are not needed again.
        boxes_only: Leave masks alone.

    Raises:
        ValueError: With the first wrong entry.
    """
    categories = _categories(path, data["categories"])
    images = {entry["id"]: entry for entry in _images(path, data["images"])}
    objects, count = [], 0
    for number, entry in enumerate(entries):
        count += 1
        try:
            one = uniform_object(entry, images, categories, boxes_only=boxes_only)
        except ValueError as error:
            name = f" (id {entry.get('id')})" if isinstance(entry, dict) else ""
            raise ValueError(f"{path}: annotations[{number}]{name} {error}") from error
        if one is not None:
            objects.append(one)
    objects, thin = _judged(path, objects, images)
    return CocoFile(
        path=path,
        categories=categories,
        images=images,
        objects=objects,
        flat=count - len(objects),
        thin=thin,
        lvis=any("neg_category_ids" in entry for entry in data["images"][:1]),
    )


def _judged(
    path: Path, objects: list[dict[str, Any]], images: Mapping[int, dict[str, Any]]
) -> tuple[list[dict[str, Any]], bool]:
    """Refuse fractions; return the objects inside of their images, and whether all are thin."""
    found = (images[one["image_id"]] for one in objects)
    sides = np.array([(image["width"], image["height"]) for image in found], float).reshape(-1, 2)
    boxes = np.array([one["bbox"] for one in objects], float).reshape(-1, 4)
    unit = suspected_unit(boxes, sides)
    if unit == "fractions":
        first = objects[int((sides.min(axis=1) > 2 * THIN).argmax())]
        raise ValueError(
            f"{path}: no number of any bbox is above 1 (the first: {shown(first['bbox'])} in image "
            f"{first['image_id']}): they look like fractions of the image, as YOLO writes them; "
            "convert them to pixels: [x, y, width, height], x and y of the upper left corner"
        )
    kept = ~clip(boxes, sides)[2]
    return list(itertools.compress(objects, kept)), unit == "thin"


def check_images(file: CocoFile, folder: str | Path) -> None:
    """Look for every image.

    Folders are listed, which takes one look for thousands of files where they are on a network.

    Args:
        file: The file that names them.
        folder: Folder that the names are relative to.

    Raises:
        ValueError: If the folder or one of the images is not there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder} for the images of {file.path}")
    names = [entry["file_name"] for entry in file.images.values()]
    missing = _missing(folder, names)
    if not missing:
        return
    wanted = folder / missing[0]
    hint = f"looked for {wanted}"
    with contextlib.suppress(OSError, ValueError):  # of a name that cannot be one
        if wanted.exists() and not wanted.is_dir():
            hint = f"{wanted} is there, but is not a regular file"
        elif (folder / wanted.name).is_file():
            hint += f"; {folder / wanted.name} is there: file_name must be relative to the folder"
    raise ValueError(
        f"{len(missing)} of {len(names)} images of {file.path} are not in {folder} ({hint})"
    )


def _missing(folder: Path, names: Sequence[str]) -> list[str]:
    """Find the names that are not files below the folder, in their order."""
    wanted: dict[str, set[str]] = defaultdict(set)
    for name in names:
        wanted[os.path.dirname(name)].add(os.path.basename(name))  # noqa: PTH119, PTH120
    absent: dict[str, set[str]] = {}
    for below, files in wanted.items():
        try:
            with os.scandir(folder / below) as listing:
                absent[below] = files - {entry.name for entry in listing if entry.is_file()}
        except (OSError, ValueError):  # not there, not a folder, or a name with a zero byte
            absent[below] = files
    return [n for n in names if os.path.basename(n) in absent[os.path.dirname(n)]]  # noqa: PTH119, PTH120


def check_categories(file: CocoFile, categories: Mapping[int, str], *, of: str) -> None:
    """Compare a file's categories with those that a detector is trained for.

    Args:
        file: The file; it may lack categories.
        categories: Name of each id.
        of: Origin of those categories, for the message.

    Raises:
        ValueError: If an id is not among them or has another name.
    """
    for category, name in file.categories.items():
        expected = categories.get(category)
        if expected != name:
            there = "it is missing" if expected is None else f"it is {expected!r}"
            raise ValueError(
                f"{file.path} has category {category} {name!r}; in {of} {there}: both need the "
                "same ids and names"
            )


def parse_json(content: bytes, name: str) -> Any:
    """Parse the content of a file in JSON.

    Args:
        content: Bytes of the file.
        name: Name of the file in the message.

    Raises:
        ValueError: If it is not JSON.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # also of the encoding
        raise ValueError(f"{name} is not JSON: {error}") from error


def _load(path: Path) -> dict[str, Any]:
    try:
        data = parse_json(path.read_bytes(), str(path))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    for key in ("images", "categories"):
        entries = data.get(key) if isinstance(data, dict) else None
        if not isinstance(entries, list) or not entries:
            raise ValueError(
                f"{path} is not in COCO format: it needs lists 'images', 'categories' and "
                f"'annotations', and has no {key}"
            )
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict) or not is_integer(entry.get("id")):
                raise ValueError(f"{path}: {key}[{number}] has no integer id: {shown(entry)}")
            if not is_id(entry["id"]):
                raise ValueError(
                    f"{path}: {key}[{number}] has the id {shown(entry['id'])}; ids must be "
                    "integers from 0 to 2^63 - 1"
                )
        if len({entry["id"] for entry in entries}) < len(entries):
            raise ValueError(f"{path}: several of its {key} have the same id")
    return data


def _categories(path: Path, entries: list[dict[str, Any]]) -> dict[int, str]:
    found: dict[int, str] = {}
    names: set[str] = set()
    for entry in sorted(entries, key=lambda one: one["id"]):
        name = category_name(entry)
        if not name or name in names:
            problem = f"the name {name!r}, as another has" if name else "no name"
            raise ValueError(
                f"{path}: category {entry['id']} has {problem}; give it one of its own"
            )
        found[entry["id"]] = name
        names.add(name)
    return found


def _images(path: Path, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for entry in entries:
        sides = entry.get("width"), entry.get("height")
        if not all(map(is_side, sides)) or entry["width"] * entry["height"] > _MOST_PIXELS:
            raise ValueError(
                f"{path}: image {entry['id']} needs width and height in pixels, got {shown(sides)}"
            )
        if not isinstance(entry.get("file_name"), str) or not entry["file_name"]:
            raise ValueError(f"{path}: image {entry['id']} has no file_name")
        one = {key: entry[key] for key in ("id", "file_name")}
        found.append(one | {"width": int(entry["width"]), "height": int(entry["height"])})
    return found
