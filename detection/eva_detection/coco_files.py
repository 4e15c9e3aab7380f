"""Annotation files in COCO format, checked and made uniform.

Own files rarely are as regular as COCO's: no areas, no crowd flags, empty polygons, polygons beside
run-length codes (RLE). Training and evaluation read them here, so that both see the same.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import pycocotools.mask as mask_api

from eva_detection.rle import check_counts

_LOOKED_FOR = 20  # images whose file is looked for; a whole set may be on a slow file system
_MOST_PIXELS = 2**32 - 1  # what pycocotools can count
_FARTHEST = 10**6  # px; pycocotools steps along the sides of polygons, without looking


@dataclass(frozen=True, kw_only=True)
class CocoFile:
    """A checked file.

    Attributes:
        path: Where it lies.
        categories: Name of each category id, in order of the ids.
        images: Image id -> `id`, `file_name`, `width`, `height`.
        objects: What is annotated: `image_id`, `category_id`, `bbox` (x, y, width, height),
            `area`, `iscrowd` (0 or 1), and `segmentation` where it can be used: polygons or a
            compressed RLE.
        flat: Objects left out because their box has no area.
        lvis: Whether it says which classes are not annotated, as LVIS does.
    """

    path: Path
    categories: Mapping[int, str]
    images: Mapping[int, dict[str, Any]]
    objects: list[dict[str, Any]]
    flat: int
    lvis: bool

    @property
    def things(self) -> list[dict[str, Any]]:
        """Objects that are no crowd."""
        return [one for one in self.objects if not one["iscrowd"]]

    def describe(self) -> str:
        """One line on what it holds."""
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
            text += f"; {self.flat} objects are left out: their box has no area"
        return text


def read_coco(path: str | Path) -> CocoFile:
    """Read and check a file.

    Args:
        path: A JSON file in COCO's format for instances. `annotations` may be missing, as in test
            sets. `iscrowd` and `area` may be missing too; `ignore` means the same as `iscrowd`.

    Returns:
        The file.

    Raises:
        ValueError: If it is not there or not in COCO format; the first wrong entry is named.
    """
    path = Path(path)
    data = _load(path)
    categories = _categories(path, data["categories"])
    images = {entry["id"]: entry for entry in _images(path, data["images"])}
    objects, flat = [], 0
    for number, entry in enumerate(data.get("annotations") or ()):
        try:
            one = _object(entry, images, categories)
        except ValueError as error:
            name = f" (id {entry.get('id')})" if isinstance(entry, dict) else ""
            raise ValueError(f"{path}: annotations[{number}]{name} {error}") from error
        if one is None:
            flat += 1
        else:
            objects.append(one)
    return CocoFile(
        path=path,
        categories=categories,
        images=images,
        objects=objects,
        flat=flat,
        lvis=any("neg_category_ids" in entry for entry in data["images"][:1]),
    )


def check_images(file: CocoFile, folder: str | Path) -> None:
    """Look for some of the images.

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
    step = max(1, len(names) // _LOOKED_FOR)
    some = names[::step][:_LOOKED_FOR]
    missing = [name for name in some if not (folder / name).is_file()]
    if not missing:
        return
    wanted = folder / missing[0]
    hint = f"looked for {wanted}"
    if (folder / wanted.name).is_file():
        hint += f"; {folder / wanted.name} is there: file_name must be relative to the folder"
    raise ValueError(
        f"{len(missing)} of {len(some)} images of {file.path} that were tried are not in {folder} "
        f"({hint})"
    )


def check_categories(file: CocoFile, categories: Mapping[int, str], *, of: str) -> None:
    """Compare a file's categories with those that a detector is trained for.

    Args:
        file: The file; it may lack categories.
        categories: Name of each id.
        of: Where they come from, for the message.

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


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"there is no annotation file {path}")
    try:
        data = json.loads(path.read_bytes())
    except ValueError as error:  # also of the encoding
        raise ValueError(f"{path} is not JSON: {error}") from error
    for key in ("images", "categories"):
        entries = data.get(key) if isinstance(data, dict) else None
        if not isinstance(entries, list) or not entries:
            raise ValueError(
                f"{path} is not in COCO format: it needs lists 'images', 'categories' and "
                f"'annotations', and has no {key}"
            )
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict) or not _is_int(entry.get("id")):
                raise ValueError(f"{path}: {key}[{number}] has no integer id: {str(entry)[:80]}")
        if len({entry["id"] for entry in entries}) < len(entries):
            raise ValueError(f"{path}: several of its {key} have the same id")
    return data


def _categories(path: Path, entries: list[dict[str, Any]]) -> dict[int, str]:
    found: dict[int, str] = {}
    for entry in sorted(entries, key=lambda one: one["id"]):
        name = str(entry.get("name") or "")
        if not name or name in found.values():
            problem = f"the name {name!r}, as another has" if name else "no name"
            raise ValueError(
                f"{path}: category {entry['id']} has {problem}; give it one of its own"
            )
        found[entry["id"]] = name
    return found


def _images(path: Path, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for entry in entries:
        sides = entry.get("width"), entry.get("height")
        if (
            not all(_is_int(side) and side > 0 for side in sides)
            or entry["width"] * entry["height"] > _MOST_PIXELS
        ):
            raise ValueError(
                f"{path}: image {entry['id']} needs width and height in pixels, got {_shown(sides)}"
            )
        if not isinstance(entry.get("file_name"), str) or not entry["file_name"]:
            raise ValueError(f"{path}: image {entry['id']} has no file_name")
        found.append({key: entry[key] for key in ("id", "file_name", "width", "height")})
    return found


def _object(
    entry: Any, images: Mapping[int, dict[str, Any]], categories: Mapping[int, str]
) -> dict[str, Any] | None:
    """A uniform annotation; None if its box has no area."""
    if not isinstance(entry, dict):
        raise ValueError("is no JSON object")
    ids = {key: entry.get(key) for key in ("image_id", "category_id")}
    for (key, value), known in zip(ids.items(), (images, categories), strict=True):
        if not _is_int(value) or value not in known:
            raise ValueError(f"has {key} {value!r}, which is none of the file's")
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise ValueError(f"needs bbox: [x, y, width, height] in pixels, got {_shown(box)}")
    if min(box[2:]) <= 0:
        return None
    image = images[entry["image_id"]]
    one = ids | {"bbox": [float(value) for value in box]}
    one["iscrowd"] = int(bool(entry.get("iscrowd") or entry.get("ignore")))
    mask = _mask(entry.get("segmentation"), image["height"], image["width"])
    if mask is not None:
        one["segmentation"] = mask
    area = entry.get("area")
    one["area"] = area if _is_number(area) and area > 0 else _area(one, image)
    return one


def _mask(segmentation: Any, height: int, width: int) -> Any:
    """Polygons of at least three corners, or a compressed RLE; None if there is neither."""
    if isinstance(segmentation, list):
        polygons = [one for one in segmentation if isinstance(one, list)]
        polygons = [one for one in polygons if len(one) >= 6 and len(one) % 2 == 0]
        for one in polygons:
            if not all(_is_number(value) and abs(value) <= _FARTHEST for value in one):
                raise ValueError(
                    f"needs polygons of finite numbers [x, y, x, y, ...] in pixels, got "
                    f"{_shown(one)}"
                )
        return polygons or None
    if not isinstance(segmentation, dict):
        return None
    counts, size = segmentation.get("counts"), segmentation.get("size")
    if size != [height, width] or not isinstance(counts, str | list):
        raise ValueError(
            f"has an RLE of size {_shown(size)}; its image is {width} px wide and {height} px "
            f"high, so it needs 'counts' and 'size': [{height}, {width}]"
        )
    check_counts(counts, height * width)
    if isinstance(counts, str):
        return {"size": size, "counts": counts}
    code = mask_api.frPyObjects({"size": size, "counts": counts}, height, width)
    return {"size": size, "counts": code["counts"].decode()}


def _area(one: dict[str, Any], image: dict[str, Any]) -> float:
    mask = one.get("segmentation")
    if mask is None:
        return float(one["bbox"][2] * one["bbox"][3])
    if isinstance(mask, list):
        mask = mask_api.merge(mask_api.frPyObjects(mask, image["height"], image["width"]))
    return float(mask_api.area(mask))


def _is_int(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> TypeGuard[float]:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
