"""Annotations in COCO format, in which every format ends: reading and validation."""

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pycocotools.mask as mask_api

from eva_data.detection.datasets import (
    CocoDataset,
    Entry,
    EntryError,
    Report,
    image_size,
    refuse,
)
from eva_data.detection.keypoints import KeypointNames, read_keypoints
from eva_data.detection.panoptic import Panoptic, is_panoptic, list_segments
from eva_data.detection.rules import (
    Size,
    format_value,
    is_box,
    is_id,
    is_integer,
    is_number,
    rle_runs,
)
from eva_data.files import list_files, load_json, printable, stays_below, without_collector

_MOST_PIXELS = 2**32 - 1  # what pycocotools can count
_FARTHEST = 10**6  # px; pycocotools steps along the sides of polygons without looking
_SMALL = 4  # px; sides of images in which boxes below 1 px are not suspicious
_ROUNDING = 1e-6  # px
_NEEDED = {
    "entry": "a JSON object",
    "id": "an integer from 0 to 2^63 - 1 that no other has",  # the evaluation sorts 64-bit integers
    "name": "text in UTF-8 or a number that no other has",
    "file_name": "the path of an image",
    "size": "width and height in pixels",
    "image_id": "the id of an image",
    "category_id": "the id of a category",
    "bbox": "[x, y, width, height] in pixels",
    "iscrowd": "0 or 1",
    "ignore": "0 or 1",
    "segmentation": "a list of polygons [x, y, x, y, ...] or an RLE that fills its image",
    "segment_id": "an integer from 1, which no other segment of the image has",
    "segments_info": "a list of segments in an annotation of the image",
}


def read_coco(
    path: str | Path, *, folder: str | Path | None = None, boxes_only: bool = False
) -> CocoDataset:
    """Read and validate an annotation file in COCO's format for instances.

    `annotations`, `iscrowd` and `area` may be missing; `ignore` means the same as `iscrowd`. Every
    image is looked for in the `folder`, if one is named; `boxes_only` leaves masks alone.

    Raises:
        ValueError: If an entry is wrong, which is named, or images are missing.
    """
    path = Path(path)
    with without_collector():
        dataset = validate(path, load_lists(path), folder=folder or "", boxes_only=boxes_only)
    if folder is not None:
        check_images(dataset)
    return dataset


def load_lists(path: Path) -> dict[str, Any]:
    """Parse an annotation file; annotations may be missing, images and categories not."""
    data = load_json(path)
    for key in ("images", "categories", "annotations"):
        entries = data.get(key) if isinstance(data, dict) else None
        if key == "annotations":
            data[key] = entries = entries or []
        if not isinstance(entries, list) or not (entries or key == "annotations"):
            raise ValueError(
                f"{path} is not in COCO format: it needs lists 'images', 'categories' and "
                f"'annotations', and {key} is {format_value(entries)}"
            )
    return data


def validate(
    path: Path,
    data: Mapping[str, Iterable[Any]],
    *,
    folder: str | Path = "",
    boxes_only: bool = False,
    report: Report = refuse,
) -> CocoDataset:
    """Validate the lists `images`, `categories` and `annotations`, and make them uniform.

    `path` is the file that errors name. `report` takes the error of an entry, which is left out; by
    default it is raised.
    """
    return _Validation(path, report).run(data, str(folder), boxes_only)


class _Validation:
    """The validation of an annotation file: each method takes a list of it, entry by entry."""

    categories: Mapping[int, str]
    images: dict[int, Entry]
    keypoints: KeypointNames | None = None

    def __init__(self, path: Path, report: Report) -> None:
        self.path, self.report = path, report

    def run(self, data: Mapping[str, Iterable[Any]], folder: str, boxes_only: bool) -> CocoDataset:
        categories, images = list(data["categories"]), list(data["images"])
        annotations, panoptic = data["annotations"], None
        self.categories = self._read_categories(categories)
        if not boxes_only:
            self._read_keypoints(categories)
        self.images = self._read_images(images)
        if is_panoptic(annotations):
            panoptic = self._read_panoptic(categories, annotations)
            annotations = list_segments(annotations, self.images)
        checked = [*self._read_objects(annotations, boxes_only)]
        objects = [annotation for annotation in checked if annotation is not None]
        if self._are_fractions(objects):
            objects = []
        groups = (entry.get("supercategory") for entry in categories if _is_group(entry))
        return CocoDataset(
            path=self.path,
            folder=folder,
            categories=self.categories,
            images=self.images,
            objects=objects,
            left_out=len(checked) - len(objects),
            lvis=any(
                isinstance(entry, dict) and "neg_category_ids" in entry for entry in images[:1]
            ),
            groups=frozenset(map(str, groups)),
            keypoints=self.keypoints,
            panoptic=panoptic,
        )

    def _read_categories(self, entries: Sequence[Any]) -> dict[int, str]:
        names = Counter(_name(entry) for entry in entries if isinstance(entry, dict))

        def find_wrong(entry: Entry) -> str:
            return "" if names[_name(entry)] == 1 and _name(entry) else "name"

        usable = self._usable("categories", entries, find_wrong)
        return dict(sorted((category["id"], _name(category)) for category in usable))

    def _read_keypoints(self, categories: Sequence[Any]) -> None:
        try:
            self.keypoints = read_keypoints(categories)
        except ValueError as error:
            self.report(EntryError("categories.keypoints", str(self.path), str(error)))

    def _read_images(self, entries: Sequence[Any]) -> dict[int, Entry]:
        images = {}
        for image in self._usable("images", entries, _wrong_field_of_image):
            width, height = int(image["width"]), int(image["height"])
            facts = {"file_name": file_name_of(image), "width": width, "height": height}
            images[image["id"]] = {"id": image["id"], **facts}
        return images

    def _read_panoptic(self, categories: Sequence[Any], annotations: Iterable[Any]) -> Panoptic:
        """Find the PNG file of each image, below the folder; images without one are left out."""
        files: dict[Any, Any] = {
            entry["image_id"]: entry.get("file_name")
            for entry in annotations
            if isinstance(entry, dict)
            and is_id(entry.get("image_id"))
            and isinstance(entry.get("segments_info"), list)
        }
        folder = self.path.with_suffix("")
        for number, (key, image) in enumerate([*self.images.items()]):
            file = files.get(key)
            if not isinstance(file, str):
                self.report(self._error("images", number, image, "segments_info"))
                del self.images[key]
            elif not stays_below(file):
                location = f"{self.path}: annotation of image {key}"
                message = f"file_name must be a path below {folder}, got {format_value(file)}"
                self.report(EntryError("segments.file_name", location, message))
                del self.images[key]
        things = frozenset(
            entry["id"] for entry in categories if _has_id(entry) and entry.get("isthing", 1)
        )
        return Panoptic(folder=folder, files=files, things=things)

    def _read_objects(self, annotations: Iterable[Any], boxes_only: bool) -> Iterator[Entry | None]:
        """Yield the objects, None for one whose box has no area in its image."""
        for number, entry in enumerate(annotations):
            annotation = self._read_object(number, entry, boxes_only)
            if isinstance(annotation, EntryError):
                self.report(annotation)
            else:
                yield annotation

    def _read_object(self, number: int, entry: Any, boxes_only: bool) -> Entry | EntryError | None:
        wrong = functools.partial(self._error, "annotations", number, entry)
        if field := self._find_wrong_field(entry):
            return wrong(field)
        size = image_size(self.images[entry["image_id"]])
        is_segment, mask = "segment_id" in entry, None
        if not is_segment and _is_empty(entry["bbox"], size):
            return None
        if not boxes_only:
            try:
                mask = _mask(entry.get("segmentation"), size)
            except ValueError:
                return wrong("segmentation")
        annotation = _uniform(entry, mask, size)
        if is_segment:
            annotation["segment_id"] = entry["segment_id"]
        if self.keypoints:
            points = entry.get("keypoints")
            if needed := self.keypoints.find_fault(points):
                return wrong("keypoints", needed)
            annotation["keypoints"] = points or [0, 0, 0] * len(self.keypoints.names)
        return annotation

    def _find_wrong_field(self, entry: Any) -> str:
        if not isinstance(entry, dict):
            return "entry"
        for key, ids in (("image_id", self.images), ("category_id", self.categories)):
            if not is_integer(entry.get(key)) or entry[key] not in ids:
                return key
        if not is_box(entry.get("bbox")):
            return "bbox"
        if "segment_id" in entry and not (is_id(entry["segment_id"]) and entry["segment_id"]):
            return "segment_id"
        for key in ("iscrowd", "ignore"):  # null is 0
            if isinstance(entry.get(key), str) or entry.get(key) not in (None, 0, 1):
                return key
        return ""

    def _are_fractions(self, objects: Sequence[Entry]) -> bool:
        """Return whether boxes are fractions of their images, and report it."""
        boxes = [
            annotation["bbox"]
            for annotation in objects
            if min(image_size(self.images[annotation["image_id"]])) > _SMALL
        ]
        if not boxes or any(abs(value) > 1 for box in boxes for value in box):
            return False
        message = (
            f"no number of any bbox is above 1 (such as {boxes[0]}): they look like fractions of "
            "the image, as YOLO writes them, and must be in pixels"
        )
        self.report(EntryError("annotations.bbox", str(self.path), message))
        return True

    def _usable(
        self, part: str, entries: Sequence[Any], find_wrong: Callable[[Entry], str]
    ) -> Iterator[Entry]:
        """Yield the entries without a wrong field, each of an id of its own."""
        ids = Counter(entry["id"] for entry in entries if _has_id(entry))
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict):
                field = "entry"
            elif not _has_id(entry) or ids[entry["id"]] > 1:
                field = "id"
            else:
                field = find_wrong(entry)
            if field:
                self.report(self._error(part, number, entry, field))
            else:
                yield entry

    def _error(
        self, part: str, number: int, entry: Any, field: str, needed: str = ""
    ) -> EntryError:
        fields = entry if isinstance(entry, dict) else {field: entry}
        keys = ("width", "height") if field == "size" else (field,)
        values = ", ".join(format_value(fields.get(key)) for key in keys)
        name = f" (id {format_value(fields['id'])})" if "id" in fields and field != "id" else ""
        return EntryError(
            f"{part}.{field}",
            f"{self.path}: {part}[{number}]{name}",
            f"{field} must be {needed or _NEEDED[field]}, got {values}",
        )


def _has_id(entry: Any) -> bool:
    return isinstance(entry, dict) and is_id(entry.get("id"))


def _is_group(category: Any) -> bool:
    """Return whether a category names another as the one above it."""
    return isinstance(category, dict) and bool(
        category.get("supercategory") and category["supercategory"] != category.get("name")
    )


def _name(entry: Entry) -> str:
    name = entry.get("name")
    text = str(name) if isinstance(name, str | int | float) else ""
    return text if printable(text) == text else ""


def _wrong_field_of_image(image: Entry) -> str:
    width: Any = image.get("width")
    height: Any = image.get("height")
    for side in (width, height):
        if not is_number(side) or not 0 < side < 2**31 or side != int(side):  # 128.0 is a size
            return "size"
    if width * height > _MOST_PIXELS:
        return "size"
    return "" if file_name_of(image) else "file_name"


def file_name_of(entry: Entry) -> str:
    """Return the file of an image, "" without one.

    LVIS v1 gives a URL alone, which is read as by detectron2; Label Studio on Windows writes
    backslashes.
    """
    name = entry.get("file_name")
    if name is None and isinstance(entry.get("coco_url"), str):
        name = "/".join(entry["coco_url"].split("/")[-2:])
    return name.replace("\\", "/") if isinstance(name, str) else ""


def _is_empty(box: Sequence[float], size: Size) -> bool:
    """Return whether a box has no area in its image; one that touches an edge may be rounded."""
    x, y, width, height = box
    right, bottom = x + width, y + height
    inside = min(min(right, size[1]) - max(x, 0), min(bottom, size[0]) - max(y, 0))
    beyond = max(-x, -y, right - size[1], bottom - size[0])
    return min(width, height) <= 0 or (inside <= _ROUNDING and beyond > 0)


def _uniform(entry: Entry, mask: Any, size: Size) -> Entry:
    area, box = entry.get("area"), [float(value) for value in entry["bbox"]]
    if not is_number(area) or area <= 0:
        area = box[2] * box[3]
        if mask is not None:
            polygons = isinstance(mask, list)
            code = mask_api.merge(mask_api.frPyObjects(mask, *size)) if polygons else mask
            area = float(mask_api.area(code))
    annotation = {
        "image_id": entry["image_id"],
        "category_id": entry["category_id"],
        "bbox": box,
        "iscrowd": int(bool(entry.get("iscrowd") or entry.get("ignore"))),
    }
    return annotation | ({} if mask is None else {"segmentation": mask}) | {"area": area}


def _mask(segmentation: Any, size: Size) -> Any:
    """Take polygons of at least three corners, or a compressed RLE; None if there is neither.

    Damaged ones are a ValueError.
    """
    if isinstance(segmentation, list):
        is_nested = all(
            isinstance(polygon, list) and not any(isinstance(v, list | dict) for v in polygon)
            for polygon in segmentation
        )
        lists = segmentation if is_nested else []
        polygons = [polygon for polygon in lists if len(polygon) >= 6 and len(polygon) % 2 == 0]
        values = [value for polygon in polygons for value in polygon]
        numbers = is_nested and {*map(type, values)} <= {int, float}
        if not numbers or not all(abs(value) <= _FARTHEST for value in values):
            raise ValueError("no list of polygons of finite numbers that are not far")
        return polygons or None
    if segmentation in (None, "", 0) or segmentation != segmentation:  # NaN is pandas's None
        return None
    rle_runs(segmentation, size)
    code: Any = {key: segmentation[key] for key in ("size", "counts")}
    if not isinstance(code["counts"], str):
        code["counts"] = mask_api.frPyObjects(code, *size)["counts"].decode()
    return code


def check_images(dataset: CocoDataset) -> None:
    """Look for every image; a folder is listed once, which is fast on a network too."""
    list_once = functools.cache(list_files)
    names = (entry["file_name"] for entry in dataset.images.values())
    places = (os.path.split(os.path.join(dataset.folder, name)) for name in names)  # noqa: PTH118
    missing = [Path(folder, name) for folder, name in places if name not in list_once(folder)]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(dataset.images)} images of {dataset.path} are not files in "
            f"{dataset.folder}, to which file_name is relative (looked for {missing[0]})"
        )
