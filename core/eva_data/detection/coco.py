"""Annotations in COCO format: reading, validation, writing.

Own files rarely are as regular as COCO's: no areas, no crowd flags, empty polygons, polygons beside
run-length encodings (RLE). Every format ends here, in `validate`, so that training, evaluation and
`eva data verify` agree on what is an error.
"""

import contextlib
import functools
import gc
import itertools
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pycocotools.mask as mask_api

from eva_data.detection.rules import (
    THIN,
    Size,
    category_name,
    clip,
    flag,
    has_corners,
    is_box,
    is_id,
    is_integer,
    is_number,
    is_side,
    rle_runs,
    shown,
    suspected_unit,
)
from eva_data.files import make_folder, require_regular_file, write_text
from eva_data.images import UnreadableImageError, image_size
from eva_data.pools import ordered_map

Report = Callable[[str], None]  # takes an error of one label or image; may raise it

_MOST_PIXELS = 2**32 - 1  # what pycocotools can count
_FARTHEST = 10**6  # px; pycocotools steps along the sides of polygons without looking
_MOST_UNREADABLE = 10  # images; as many as a run may meet by default
_FEW = 20_000  # images whose sizes one process reads in some seconds


class AnnotationError(ValueError):
    """An error of one annotation; its text goes on after the annotation's name.

    Args:
        kind: Name of the error in the findings of `eva data verify`.
        text: What is wrong, with the value.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True, kw_only=True)
class CocoDataset:
    """A validated dataset.

    Attributes:
        path: Annotation file.
        folder: Image folder; empty where only the annotations were read.
        categories: Name of each category id, in the order of the ids.
        images: Image id -> `id`, `file_name`, `width`, `height`.
        objects: Annotated objects: `image_id`, `category_id`, `bbox` (x, y, width, height),
            `area`, `iscrowd` (0 or 1), and `segmentation` where it can be used: polygons or a
            compressed RLE.
        left_out: Number of objects left out because their box has no area in the image.
        thin: Whether all boxes are less than 2 px wide and high.
        lvis: Whether the file states which classes are not annotated, as LVIS does.
    """

    path: Path
    folder: str = ""
    categories: Mapping[int, str]
    images: Mapping[int, dict[str, Any]]
    objects: list[dict[str, Any]]
    left_out: int = 0
    thin: bool = False
    lvis: bool = False

    @property
    def instances(self) -> list[dict[str, Any]]:
        """Objects that are not crowds."""
        return [one for one in self.objects if not one["iscrowd"]]

    @property
    def without_masks(self) -> list[dict[str, Any]]:
        """Instances without a usable mask."""
        return [one for one in self.instances if "segmentation" not in one]

    @property
    def has_rle(self) -> bool:
        """Whether the mask of an instance is an RLE and not polygons."""
        return any(isinstance(one.get("segmentation"), dict) for one in self.instances)

    def describe(self) -> str:
        """Describe the content in one line."""
        instances = self.instances
        masks = [one["segmentation"] for one in instances if "segmentation" in one]
        empty = len(self.images) - len({one["image_id"] for one in instances})
        text = (
            f"{self.path}: {len(self.images)} images, {empty} of them without objects; "
            f"{len(instances)} objects of {len(self.categories)} classes, {len(masks)} with masks "
            f"({sum(isinstance(mask, dict) for mask in masks)} RLE), "
            f"{len(self.objects) - len(instances)} crowds"
        )
        if self.left_out:
            text += f"; {self.left_out} objects are left out: their box has no area in the image"
        if self.thin:
            text += f"; all boxes are below {THIN:g} px: are they in pixels of these images?"
        return text

    def reason_against_masks(self, *, training: bool) -> str | None:
        """Return why a detector on this dataset cannot have masks, or None.

        Raises:
            ValueError: If only some of the objects to train on have a mask.
        """
        lacking, total = self.without_masks, len(self.instances)
        if training and 0 < len(lacking) < total:
            first = self.images[lacking[0]["image_id"]]
            raise ValueError(
                f"{len(lacking)} of {total} objects of {self.path} have no usable mask (the first: "
                f"bbox {lacking[0]['bbox']} in image {first['id']}, {first['file_name']}): "
                "complete them, or train boxes alone with --boxes-only"
            )
        return f"no object of {self.path} has a mask" if len(lacking) == total > 0 else None

    def check_categories(self, expected: Mapping[int, str], *, of: str) -> None:
        """Compare the categories with those that a detector is trained for; some may be absent.

        Raises:
            ValueError: If an id is not among `expected`, or has another name there.
        """
        for key, name in self.categories.items():
            if expected.get(key) != name:
                there = f"it is {expected[key]!r}" if key in expected else "it is missing"
                raise ValueError(
                    f"{self.path} has category {key} {name!r}; in {of} {there}: both need the same "
                    "ids and names"
                )

    def for_scoring(self, categories: Mapping[int, str]) -> dict[str, Any]:
        """Return the content as COCO's scorers read it: all categories, object ids from 1."""
        objects = []
        for number, one in enumerate(self.objects, start=1):  # the scorer takes id 0 for none
            x, y, width, height = one["bbox"]
            corners = [x, y, x + width, y, x + width, y + height, x, y + height]
            # of a crowd; others have one or no mask AP
            objects.append({"segmentation": [corners]} | one | {"id": number})
        return {
            "images": [dict(entry) for entry in self.images.values()],
            "annotations": objects,
            "categories": [{"id": key, "name": name} for key, name in categories.items()],
        }

    def write(self, *, continues: bool) -> None:
        """Write the file, completely or not at all; one with the same content is left as it is.

        Args:
            continues: Whether a run goes on, whose data must be what they were.

        Raises:
            ValueError: If a run goes on and the file has another content.
            UnwritableError: If the disk is full or the folder read-only, for example.
        """
        text = self._as_json()
        if _holds(self.path, text):
            return
        if continues and self.path.exists():
            raise ValueError(
                f"the data are not those that the run began with, which are in {self.path}: bring "
                "them back, or choose another output"
            )
        make_folder(self.path.parent)
        try:
            write_text(self.path, text)
        except OSError:  # perhaps other processes write the same
            if not _holds(self.path, text):
                raise

    def _as_json(self) -> str:
        content = {
            "images": self.images.values(),
            "categories": ({"id": key, "name": name} for key, name in self.categories.items()),
            "annotations": ({"id": n, **one} for n, one in enumerate(self.objects, start=1)),
        }
        lines = {key: ",\n".join(map(json.dumps, entries)) for key, entries in content.items()}
        return "{" + ",\n".join(f'"{key}": [{text}]' for key, text in lines.items()) + "}\n"


def _holds(path: Path, text: str) -> bool:
    with contextlib.suppress(OSError):
        return path.read_bytes() == text.encode()
    return False


def read_coco(
    path: str | Path, *, folder: str | Path | None = None, boxes_only: bool = False
) -> CocoDataset:
    """Read and validate an annotation file.

    Args:
        path: JSON file in COCO's format for instances. `annotations` may be missing, as in test
            sets. `iscrowd` and `area` may be missing too; `ignore` means the same as `iscrowd`.
        folder: Image folder, in which every image is looked for; None to look for none.
        boxes_only: Leave masks alone, whatever they are: no object has a `segmentation`.

    Raises:
        ValueError: If the file is not there or not in COCO format, which names the first wrong
            entry, or if images are missing.
    """
    path = Path(path)
    with _without_collector():
        return _read(path, folder, boxes_only=boxes_only)


def _read(path: Path, folder: str | Path | None, *, boxes_only: bool) -> CocoDataset:
    data = load_json(path)
    for key in ("images", "categories"):
        entries = data.get(key) if isinstance(data, dict) else None
        if not isinstance(entries, list) or not entries:
            raise ValueError(
                f"{path} is not in COCO format: it needs lists 'images', 'categories' and "
                f"'annotations', and has no {key}"
            )
    annotations = data.get("annotations") or []
    if not isinstance(annotations, list):
        raise ValueError(f"{path}: 'annotations' must be a list, got {shown(annotations)}")
    found = validate(path, data, annotations, folder=folder or "", boxes_only=boxes_only)
    if folder is not None:
        check_images(found)
    return found


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Pause the garbage collector, which would look at millions of new objects again and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def load_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        ValueError: If it is not there, cannot be read or is not JSON.
    """
    try:
        require_regular_file(path)
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(str(error)) from error
    return parse_json(content, str(path))


def parse_json(content: bytes, name: str) -> Any:
    """Parse JSON; `name` is that of the file.

    Raises:
        ValueError: If it is not JSON.
    """
    try:
        with _without_collector():
            return json.loads(content)
    except (ValueError, RecursionError) as error:  # also of the encoding
        raise ValueError(f"{name} is not JSON: {error}") from error


def validate(
    path: Path,
    data: Mapping[str, Any],
    annotations: Iterable[Any],
    *,
    folder: str | Path,
    boxes_only: bool = False,
) -> CocoDataset:
    """Validate COCO's lists and make them uniform.

    Args:
        path: Annotation file, which errors name.
        data: The lists `images` and `categories`.
        annotations: The annotations.
        folder: Image folder.
        boxes_only: Leave masks alone.

    Raises:
        ValueError: With the first wrong entry: file, id and value.
    """
    categories = _categories(path, _by_id(path, "categories", data["categories"]))
    images = _images(path, _by_id(path, "images", data["images"]))
    objects, total = [], 0
    for number, entry in enumerate(annotations):
        total += 1
        try:
            one = uniform_object(entry, images, categories, boxes_only=boxes_only)
        except ValueError as error:
            name = f" (id {entry.get('id')})" if isinstance(entry, dict) else ""
            raise ValueError(f"{path}: annotations[{number}]{name} {error}") from error
        if one is not None:
            objects.append(one)
    sizes = [images[one["image_id"]] for one in objects]
    sides = np.array([(one["width"], one["height"]) for one in sizes], float).reshape(-1, 2)
    boxes = np.array([one["bbox"] for one in objects], float).reshape(-1, 4)
    unit = suspected_unit(boxes, sides)
    if unit == "fractions":
        first = objects[int((sides.min(axis=1) > 2 * THIN).argmax())]
        raise ValueError(
            f"{path}: no number of any bbox is above 1 (the first: {shown(first['bbox'])} in image "
            f"{first['image_id']}): they look like fractions of the image, as YOLO writes them; "
            "convert them to pixels: [x, y, width, height], x and y of the upper left corner"
        )
    kept = list(itertools.compress(objects, ~clip(boxes, sides)[2]))
    return CocoDataset(
        path=path,
        folder=str(folder),
        categories=categories,
        images=images,
        objects=kept,
        left_out=total - len(kept),
        thin=unit == "thin",
        lvis=any("neg_category_ids" in entry for entry in data["images"][:1]),
    )


def _by_id(path: Path, key: str, entries: Sequence[Any]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not is_id(entry.get("id")):
            raise ValueError(
                f"{path}: {key}[{number}] needs an id, an integer from 0 to 2^63 - 1, got "
                f"{shown(entry)}"
            )
        if entry["id"] in found:
            raise ValueError(f"{path}: several of its {key} have the id {entry['id']}")
        found[entry["id"]] = entry
    return found


def _categories(path: Path, entries: Mapping[int, dict[str, Any]]) -> dict[int, str]:
    found = {key: category_name(entries[key]) for key in sorted(entries)}
    ids: dict[str, int] = {}
    for key, name in found.items():
        if not name or ids.setdefault(name, key) != key:
            problem = f"the name {name!r}, as another has" if name else "no name"
            raise ValueError(f"{path}: category {key} has {problem}; give it one of its own")
    return found


def _images(path: Path, entries: Mapping[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    found = {}
    for key, entry in entries.items():
        width, height = sides = entry.get("width"), entry.get("height")
        if not (is_side(width) and is_side(height)) or width * height > _MOST_PIXELS:
            raise ValueError(
                f"{path}: image {key} needs width and height in pixels, got {shown(sides)}"
            )
        name = entry.get("file_name")
        if not isinstance(name, str) or not name:
            raise ValueError(f"{path}: image {key} has no file_name")
        found[key] = {"id": key, "file_name": name, "width": int(width), "height": int(height)}
    return found


def uniform_object(
    entry: Any,
    images: Mapping[int, Mapping[str, Any]],
    categories: Mapping[int, str],
    *,
    boxes_only: bool = False,
) -> dict[str, Any] | None:
    """Validate an annotation and make it uniform.

    Args:
        entry: The annotation.
        images: Image id -> entry with `width` and `height`.
        categories: Known categories by their ids.
        boxes_only: Leave its mask alone.

    Returns:
        An object of `CocoDataset.objects`; None if its box has no area.

    Raises:
        AnnotationError: With what is wrong.
    """
    if not isinstance(entry, dict):
        raise AnnotationError("annotation_malformed", "is not a JSON object")
    ids = {key: entry.get(key) for key in ("image_id", "category_id")}
    for (key, value), known in zip(ids.items(), (images, categories), strict=True):
        if not is_integer(value) or value not in known:
            kind = key.replace("_id", "_unknown")
            raise AnnotationError(kind, f"has {key} {shown(value)}, which is not one of the file's")
    box = entry.get("bbox")
    if not is_box(box):
        text = f"needs bbox: [x, y, width, height] in pixels, got {shown(box)}"
        raise AnnotationError("box_malformed", text)
    if min(box[2:]) <= 0:
        return None
    crowd = 0
    for key in ("iscrowd", "ignore"):
        if (value := flag(entry.get(key))) is None:
            text = f"has {key} {shown(entry[key])}; it must be 0 or 1, as a number"
            raise AnnotationError("iscrowd", text)
        crowd = max(crowd, value)
    image = images[entry["image_id"]]
    one: dict[str, Any] = {**ids, "bbox": [float(value) for value in box], "iscrowd": crowd}
    mask = None if boxes_only else _mask(entry.get("segmentation"), image)
    if mask is not None:
        one["segmentation"] = mask
    area = entry.get("area")
    one["area"] = area if is_number(area) and area > 0 else _area(one, image)
    return one


def _mask(segmentation: Any, image: Mapping[str, Any]) -> Any:
    """Take polygons of at least three corners, or a compressed RLE; None if there is neither."""
    if isinstance(segmentation, list):
        polygons = list(filter(has_corners, segmentation))
        for one in polygons:
            if not _are_near(one):
                text = "needs polygons of finite numbers [x, y, x, y, ...] in pixels, got "
                raise AnnotationError("polygon_malformed", f"{text}{shown(one)}")
        return polygons or None
    if not isinstance(segmentation, dict):
        return None
    height, width = int(image["height"]), int(image["width"])
    try:
        rle_runs(segmentation, (height, width))
    except ValueError as error:
        raise AnnotationError("rle_broken", f"has an {error}") from error
    size, counts = segmentation["size"], segmentation["counts"]
    if not isinstance(counts, str):
        code = mask_api.frPyObjects({"size": size, "counts": counts}, height, width)
        counts = code["counts"].decode()
    return {"size": size, "counts": counts}


def _are_near(values: list[Any]) -> bool:
    """Return whether all are finite numbers, and none is so far that pycocotools never returns."""
    numbers = {*map(type, values)} <= {int, float}
    return numbers and all(abs(value) <= _FARTHEST for value in values)


def _area(one: Mapping[str, Any], image: Mapping[str, Any]) -> float:
    mask = one.get("segmentation")
    if mask is None:
        return float(one["bbox"][2] * one["bbox"][3])
    if isinstance(mask, list):
        height, width = int(image["height"]), int(image["width"])
        mask = mask_api.merge(mask_api.frPyObjects(mask, height, width))
    return float(mask_api.area(mask))


def check_images(dataset: CocoDataset) -> None:
    """Look for every image; a folder is listed once, which is fast on a network too.

    Raises:
        ValueError: If the image folder or one of the images is not there.
    """
    folder = Path(dataset.folder)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder} for the images of {dataset.path}")
    by_folder: dict[str, set[str]] = defaultdict(set)
    names = [os.path.split(entry["file_name"]) for entry in dataset.images.values()]
    for below, name in names:
        by_folder[below].add(name)
    for below, wanted in by_folder.items():
        with contextlib.suppress(OSError, ValueError), os.scandir(folder / below) as listing:
            wanted -= {entry.name for entry in listing if entry.is_file()}
    missing = [folder / below / name for below, name in names if name in by_folder[below]]
    if missing:
        hint = f"looked for {missing[0]}"
        if (folder / missing[0].name).is_file():
            hint += f"; {folder / missing[0].name} is there: file_name is relative to the folder"
        raise ValueError(
            f"{len(missing)} of {len(names)} images of {dataset.path} are not files in {folder} "
            f"({hint})"
        )


@dataclass(frozen=True, kw_only=True)
class ImageList:
    """The images of a part of a dataset, and their labels.

    Attributes:
        folder: Folder that the names are relative to.
        names: Names of the images, sorted.
        labels: Image name -> its label file, or what was read of it; empty ones may be absent.
        missing: Images that a list names and that are not there.
    """

    folder: Path
    names: Sequence[str]
    labels: Mapping[str, Any]
    missing: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """A dataset with a label file for each image.

    Attributes:
        format: "YOLO" or "Pascal VOC".
        source: File or folder that was named.
        classes: Names of the classes, in the order of their ids, which begin with 1.
        parts: "train", "val", "test", as far as they are there -> images.
        read: Function of a label, the size of its image, whether it is scored, and the report of
            errors, that yields `category_id`, `bbox` and, where known, `segmentation`, `iscrowd`.
    """

    format: str
    source: Path
    classes: Sequence[str]
    parts: Mapping[str, ImageList]
    read: Callable[[Any, Size, bool, Report], Iterator[dict[str, Any]]]


def refuse(text: str) -> None:
    """Raise an error of a label at once, as training does.

    Raises:
        ValueError: With the text.
    """
    raise ValueError(text)


def box_inside(left: float, top: float, right: float, bottom: float, size: Size) -> list[float]:
    """Clip the edges of a box to its image; return x, y, width and height with 3 decimals."""
    x, right = (round(min(max(value, 0.0), float(size[1])), 3) for value in (left, right))
    y, bottom = (round(min(max(value, 0.0), float(size[0])), 3) for value in (top, bottom))
    return [x, y, round(right - x, 3), round(bottom - y, 3)]


class CocoLists(NamedTuple):
    """Images of a part and their objects as COCO's lists, ids from 1 in the order of the names.

    Attributes:
        images: Entries with `id`, `file_name`, `width` and `height`.
        categories: Entries with `id` and `name`.
        annotations: Entries of `LabelledImages.read` with `id` and `image_id`; labels are read as
            they are asked for.
        unreadable: Error of each image that was left out.
    """

    images: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    annotations: Iterator[dict[str, Any]]
    unreadable: list[str]


def to_coco(
    source: LabelledImages, part: ImageList, *, scored: bool, report: Report = refuse
) -> CocoLists:
    """List the images of a part and their objects.

    Args:
        source: The dataset.
        part: One of its parts.
        scored: Whether it is for evaluation.
        report: Takes errors of labels and missing images; by default they are raised.

    Raises:
        ValueError: If images are missing, or more than ten cannot be read.
    """
    if part.missing:
        report(
            f"{len(part.missing)} of {len(part.names) + len(part.missing)} images of "
            f"{source.source} are not there (the first: {part.missing[0]})"
        )
    workers = 1 if len(part.names) < _FEW else min(8, os.cpu_count() or 1)
    work = functools.partial(_upright_size, str(part.folder))
    sizes = list(ordered_map(work, part.names, workers=workers, what="image sizes", chunk=256))
    images: list[dict[str, Any]] = []
    for name, size in zip(part.names, sizes, strict=True):
        if not isinstance(size, str):
            entry = {"file_name": name, "height": size[0], "width": size[1]}
            images.append({"id": len(images) + 1, **entry})
    unreadable = [size for size in sizes if isinstance(size, str)]
    if report is refuse and (len(unreadable) > _MOST_UNREADABLE or not images):
        report(
            f"{len(unreadable)} of {len(part.names)} images in {part.folder} cannot be read (the "
            f"first: {unreadable[0]}); up to {_MOST_UNREADABLE} are left out"
        )
    categories = [{"id": n, "name": name} for n, name in enumerate(source.classes, start=1)]
    annotations = _annotations(source, part, images, scored=scored, report=report)
    return CocoLists(images, categories, annotations, unreadable)


def _upright_size(folder: str, name: str) -> Size | str:
    try:
        return image_size(f"{folder}/{name}", upright=True)
    except UnreadableImageError as error:
        return str(error)


def _annotations(
    source: LabelledImages,
    part: ImageList,
    images: Sequence[Mapping[str, Any]],
    *,
    scored: bool,
    report: Report,
) -> Iterator[dict[str, Any]]:
    number = itertools.count(1)
    for image in images:
        label = part.labels.get(image["file_name"])
        if label is not None:
            size = image["height"], image["width"]
            for one in source.read(label, size, scored, report):
                yield {"id": next(number), "image_id": image["id"], **one}
