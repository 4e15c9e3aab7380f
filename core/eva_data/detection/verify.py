"""Check an annotation file in COCO's or LVIS's format against itself and its images.

    eva data verify coco --annotations instances.json --images folder/
    eva data verify coco --data data.yaml --write cleaned/

The entire file is held in memory, as COCO's own reader does: about 1.1 kB for a box, so 28 GB for
Objects365 v2.
"""

import argparse
import array
import dataclasses
import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pycocotools.mask as mask_api

from eva_data.checks.findings import Findings, Kind, write_json
from eva_data.checks.folders import ImageFile, inspect_all
from eva_data.detection.coco import (
    AnnotationError,
    LabelledImages,
    load_json,
    to_coco,
    uniform_object,
)
from eva_data.detection.rules import (
    ROUNDING,
    Array,
    category_name,
    clip,
    flag,
    is_id,
    is_integer,
    is_number,
    is_side,
    shown,
    suspected_unit,
)
from eva_data.detection.spec import open_source
from eva_data.files import make_folder
from eva_data.progress import progress
from eva_runs.commands import check_outputs, complain, say
from eva_runs.options import add_check_options, number

Entry = dict[str, Any]
_BY_HAND, _REMOVED = "by hand", "removed"
_LISTS = ("images", "annotations", "categories")
_LVIS = ("neg_category_ids", "not_exhaustive_category_ids")

KINDS: Mapping[str, Kind] = {
    "label": Kind("label or image that training refuses", _REMOVED),
    "category_malformed": Kind("category without an integer id or a name", _BY_HAND),
    "category_again": Kind("category id or name used before", _BY_HAND),
    "image_malformed": Kind("image without integer id, integer sides or file name", _REMOVED),
    "image_id_again": Kind("image id used before; all removed if of several files", _REMOVED),
    "file_name_again": Kind("file name of an earlier image", "merged; removed if of another size"),
    "file_elsewhere": Kind("file without the first folders of its name", "name corrected"),
    "file_missing": Kind("image without a file", _REMOVED),
    "file_broken": Kind("file that does not decode, or has 32 bits a value", _REMOVED),
    "size_differs": Kind("size in the file is another, also by its EXIF orientation", _REMOVED),
    "turned": Kind("EXIF turns the image; detectron2 does, pycocotools not", "-", True),
    "annotation_malformed": Kind("annotation that is not an object", _REMOVED),
    "annotation_id": Kind("annotation id is not an integer from 1, or used before", "new id"),
    "image_unknown": Kind("annotation of an unknown image", _REMOVED),
    "category_unknown": Kind("annotation of an unknown category", _REMOVED),
    "iscrowd": Kind("iscrowd other than 0 and 1", "null, '0' to 0, others to 1: left out"),
    "ignored": Kind("annotation with `ignore`, which detectron2 refuses", "made a crowd: left out"),
    "boxes_in_fractions": Kind("no number of a box above 1: YOLO's fractions?", _BY_HAND),
    "box_malformed": Kind("box that is not 4 finite numbers", _REMOVED),
    "box_empty": Kind("box without positive width and height", _REMOVED),
    "box_outside": Kind("box outside the image", _REMOVED),
    "box_beyond": Kind("box partly outside the image", "clipped"),
    "area": Kind("area that is not a positive number", "from mask or box"),
    "mask_missing": Kind("no mask, though other annotations have one", _REMOVED),
    "polygon_malformed": Kind("polygon of an odd number, < 6 or not finite values", "left out"),
    "rle_broken": Kind("RLE that does not decode or is of another size", _REMOVED),
    "mask_empty": Kind("mask without a pixel", _REMOVED),
    "annotation_again": Kind(
        "annotation like an earlier one: same image, class, box, mask", _REMOVED
    ),
    "boxes_thin": Kind("all boxes below 2 px: are they in pixels?", "-", True),
    "lvis_list": Kind("LVIS list with an unknown or a contradicting category", "left out"),
    "ids_with_gaps": Kind("category ids are not 1, 2, ..., N; detectron2 numbers them", "-", True),
    "image_empty": Kind("image without usable annotations", "-", True),
}


class Part(NamedTuple):
    """A part of a dataset to check.

    Attributes:
        name: "train", "val", "test", or "" where there is one file.
        place: File or folder, for messages.
        data: COCO's lists.
        folder: Image folder; None to leave the images alone.
        errors: Errors of labels and images that are not in the lists.
    """

    name: str
    place: Path
    data: dict[str, Any]
    folder: Path | None
    errors: Sequence[str] = ()


def load_lists(file: Path) -> dict[str, Any]:
    """Parse an annotation file.

    Raises:
        ValueError: If it is not a JSON object with lists of images, annotations and categories.
    """
    data = load_json(file)
    if not isinstance(data, dict):
        raise ValueError(f"{file} holds a {type(data).__name__}, not an object as COCO's files do")
    if missing := [name for name in _LISTS if not isinstance(data.get(name), list)]:
        raise ValueError(f"{file} has no list {' and '.join(missing)}; is it COCO's format?")
    return data


def parts_of(path: Path) -> Iterator[Part]:
    """Read the parts of a dataset in any format, with the errors that training would raise.

    Args:
        path: A `data.yaml`, or a folder of YOLO, Pascal VOC or a COCO export.

    Raises:
        ValueError: If it is in no such format, or cannot be read at all.
    """
    errors: list[str] = []
    source = open_source(path, report=errors.append)
    if not isinstance(source, LabelledImages):
        for name, (file, folder) in source.items():
            yield Part(name, file, load_lists(file), folder)
        return
    for name, part in source.parts.items():
        errors += [f"{text}: is not there" for text in part.missing]
        part = dataclasses.replace(part, missing=())
        lists = to_coco(source, part, scored=name != "train", report=errors.append)
        annotations = [
            {"iscrowd": 0, "area": math.prod(one["bbox"][2:])} | one for one in lists.annotations
        ]
        data = dict(images=lists.images, annotations=annotations, categories=lists.categories)
        yield Part(name, source.source, data, part.folder, [*errors, *lists.unreadable])
        errors.clear()


def verify(
    part: Part,
    *,
    workers: int = 1,
    decode: bool = True,
    tolerance: float = 1.0,
    boxes_only: bool = False,
) -> tuple[Findings, dict[str, Any]]:
    """Check a part of a dataset.

    Args:
        part: The part; its data are left as they are.
        workers: Processes that decode images.
        decode: Read all pixels, not just the headers.
        tolerance: Pixels by which boxes may leave the image.
        boxes_only: Leave masks alone.

    Returns:
        The findings, and the data without problems; entries without any are shared.
    """
    check = _Check(part.data, tolerance=tolerance, boxes_only=boxes_only)
    for text in part.errors:
        place, _, reason = text.partition(": ")
        check.findings.add("label", place, reason or text)
    check.categories()
    check.images()
    if part.folder is not None:
        check.files(part.folder, workers=workers, decode=decode)
    check.annotations()
    check.lvis_lists()
    cleaned = {"images": list(check.kept.values()), "annotations": check.annotated}
    return check.findings, part.data | cleaned


class _Check:
    """The checks of one part, in the order in which `verify` calls them.

    Attributes:
        kept: Image id -> entry, cleaned, of the images that can be used.
        same: Id of an image -> id of the earlier one that stands for it.
        removed: Ids of images that cannot be used, whose annotations go without a word.
        annotated: Annotations that can be used, cleaned.
    """

    def __init__(self, data: Mapping[str, Any], *, tolerance: float, boxes_only: bool) -> None:
        self.data, self.tolerance = data, tolerance
        self.findings = Findings(KINDS)
        self.classes: dict[int, str] = {}
        self.kept: dict[int, Entry] = {}
        self.same: dict[int, int] = {}
        self.removed: set[int] = set()
        self.annotated: list[Entry] = []
        entries = (one for one in data["annotations"] if isinstance(one, dict))
        self.masks = not boxes_only and any(one.get("segmentation") for one in entries)

    def categories(self) -> None:
        """Check ids and names of the categories."""
        for entry in self.data["categories"]:
            key = entry.get("id") if isinstance(entry, dict) else None
            name = category_name(entry) if isinstance(entry, dict) else ""
            if not is_id(key) or not name:
                self.findings.add("category_malformed", str(entry)[:40])
                continue
            if key in self.classes or name in self.classes.values():
                self.findings.add("category_again", key, f"category {name!r}")
            self.classes.setdefault(key, name)
        ids = self.classes.keys()
        if ids and ids != set(range(1, len(ids) + 1)):
            detail = f"{len(ids)} ids from {min(ids)} to {max(ids)}"
            self.findings.add("ids_with_gaps", min(ids), detail)

    def images(self) -> None:
        """Check the entries of images, and that ids and file names are of one image each."""
        by_id: dict[int, list[Entry]] = defaultdict(list)
        for place, entry in enumerate(self.data["images"]):
            key = entry.get("id") if isinstance(entry, dict) else None
            if _is_image(entry):
                by_id[entry["id"]].append(entry)
            else:
                shown_key = key if is_integer(key) else f"number {place}"
                self._drop("image_malformed", shown_key, str(entry)[:80])
        by_name: dict[str, int] = {}
        for key, entries in by_id.items():
            names = dict.fromkeys((_file_name(one), *_sides(one)) for one in entries)
            for _ in entries[1:] if len(names) == 1 else entries:
                self.findings.add("image_id_again", key, " and ".join(str(one[0]) for one in names))
            if len(names) > 1:  # nobody knows which of them an annotation means
                self.removed.add(key)
                continue
            entry, name = entries[0], _file_name(entries[0])
            first = by_name.setdefault(name, key)
            if first == key:
                self.kept[key] = entry
                continue
            self.findings.add("file_name_again", key, f"{name} is also image {first}")
            if _sides(entry) == _sides(self.kept[first]):
                self.same[key] = first
            else:  # boxes would have to be scaled
                self.removed.add(key)

    def _drop(self, kind: str, key: Any, detail: str) -> None:
        self.findings.add(kind, key, detail)
        if is_integer(key):
            self.kept.pop(key, None)
            self.removed.add(key)

    def files(self, folder: Path, *, workers: int, decode: bool) -> None:
        """Check the image files."""
        names = {key: _file_name(entry) for key, entry in self.kept.items()}
        known = set(names.values())
        images = inspect_all(folder, [*names.values()], workers=workers, decode=decode)
        for (key, name), image in zip(names.items(), images, strict=True):
            entry = self.kept[key]
            found = image.name
            # a name without its first folders may be of another image; a URL cannot be corrected
            unusable = found != name and (found in known or "file_name" not in entry)
            if image.missing or unusable:
                self._drop("file_missing", key, f"{name}; {found} is there" * unusable or name)
                continue
            if found != name:
                known.add(found)
                self.findings.add("file_elsewhere", key, f"{name} is at {found}")
                self.kept[key] = entry | {"file_name": found}
            self._file(key, image)

    def _file(self, key: int, image: ImageFile) -> None:
        if image.size is None or image.bits == 32:
            problem = image.problem or "it has 32 bits a value: save it with 8 or 16"
            self._drop("file_broken", key, f"{image.name}: {problem}")
        else:
            listed = _sides(self.kept[key])
            text = f"{image.name} is {image.size[0]} x {image.size[1]} px, listed as "
            text += f"{listed[0]} x {listed[1]}"
            if image.orientation != 1:
                text += f", EXIF orientation {image.orientation}"
            if image.seen_size != listed:
                self._drop("size_differs", key, text)
            elif image.orientation in range(2, 9):
                self.findings.add("turned", key, text)

    def annotations(self) -> None:
        """Check every annotation as training does, then what it would accept and should not be."""
        entries = self.data["annotations"]
        valid = [one["id"] for one in entries if isinstance(one, dict) and is_id(one.get("id"))]
        free, used = itertools.count(max(valid, default=0) + 1), set[int]()
        rows: list[tuple[int, Entry, Any]] = []  # place, what cleaning changes, mask
        numbers = array.array("d")  # x, y, width, height of the box, width and height of the image
        for place, entry in enumerate(progress(entries, total=len(entries), what="annotations")):
            if not isinstance(entry, dict):
                self.findings.add("annotation_malformed", place, str(entry)[:40])
                continue
            edits = self._edits(entry, place, used, free)
            try:
                one = uniform_object(
                    entry | edits, self.kept, self.classes, boxes_only=not self.masks
                )
            except AnnotationError as error:
                image = entry.get("image_id")
                if not is_integer(image) or image not in self.removed:
                    self._found(error.kind, place, str(error))
                continue
            if one is None:
                self._found("box_empty", place, f"box {entry['bbox']}")
                continue
            if not is_number(entry.get("area")) or entry["area"] <= 0:
                self._found("area", place, f"area {shown(entry.get('area'))}")
                edits["area"] = one["area"]
            rows.append((place, edits, one.get("segmentation")))
            numbers.extend((*one["bbox"], *_sides(self.kept[one["image_id"]])))
        table = np.array(numbers).reshape(-1, 6)
        self._geometry(rows, table[:, :4], table[:, 4:])
        for key in self.kept.keys() - {one["image_id"] for one in self.annotated}:
            self.findings.add("image_empty", key)

    def _edits(self, entry: Entry, place: int, used: set[int], free: Iterator[int]) -> Entry:
        """Check the id and the flags, which cleaning corrects."""
        edits: Entry = {}
        key = entry.get("id")
        if not is_id(key) or key == 0 or key in used:
            self._found("annotation_id", place, f"id {shown(key)}")
            edits["id"] = next(free)
        else:
            used.add(key)
        crowd, ignored = entry.get("iscrowd", 0), entry.get("ignore", 0)
        if crowd is None or flag(crowd) is None:
            self._found("iscrowd", place, f"iscrowd {shown(crowd)}")
            edits["iscrowd"] = _meant(crowd)
        if ignored is None or flag(ignored) != 0:
            self._found("ignored", place, f"ignore {shown(ignored)}")
            edits |= {"ignore": 0, "iscrowd": max(_meant(ignored), _meant(crowd))}
        image = entry.get("image_id")
        if is_integer(image) and image in self.same:
            edits["image_id"] = self.same[image]
        return edits

    def _geometry(self, rows: Sequence[tuple[int, Entry, Any]], boxes: Array, sides: Array) -> None:
        """Check boxes, (N, 4), and masks against their images, (N, 2) sides, and each other."""
        if unit := suspected_unit(boxes, sides):
            kind = {"fractions": "boxes_in_fractions", "thin": "boxes_thin"}[unit]
            for place, _, _ in rows:
                self._found(kind, place, "")
        seen: set[Any] = set()
        clipped = zip(*clip(boxes, sides), strict=True)
        for row, (inside, beyond, outside), size in zip(rows, clipped, sides, strict=True):
            place, edits, mask = row
            entry = self.data["annotations"][place]
            text = f"box {entry['bbox']} in {size[0]:g} x {size[1]:g} px"
            if outside:  # a sliver within the tolerance is not a box of this image either
                self._found("box_outside", place, text)
                continue
            if beyond > self.tolerance + ROUNDING:
                self._found("box_beyond", place, text)
                edits["bbox"] = inside.tolist()
                area = float(inside[2] * inside[3])
                edits["area"] = min(edits.get("area", entry.get("area")), area)
            if self.masks and not self._has_pixels(place, mask, edits, size):
                continue
            one = entry | edits if edits else entry
            box, crowd = tuple(map(float, one["bbox"])), int(one.get("iscrowd", 0))
            same = hash((one["category_id"], crowd, box, str(one["segmentation"] if mask else "")))
            if (one["image_id"], same) in seen:
                self._found("annotation_again", place, text)
                continue
            seen.add((one["image_id"], same))
            self.annotated.append(one)

    def _has_pixels(self, place: int, mask: Any, edits: Entry, size: Array) -> bool:
        if mask is None:
            self._found("mask_missing", place, "no mask")
            return False
        code = mask
        if isinstance(mask, list):
            given = self.data["annotations"][place]["segmentation"]
            if len(mask) < len(given):
                self._found("polygon_malformed", place, shown(given, 60))
                edits["segmentation"] = mask
            code = mask_api.merge(mask_api.frPyObjects(mask, int(size[1]), int(size[0])))
        if not mask_api.area(code):
            self._found("mask_empty", place, shown(mask, 60))
            return False
        return True

    def _found(self, kind: str, place: int, detail: str) -> None:
        """Add a finding on an annotation, named by its id, or by its place in the list."""
        entry = self.data["annotations"][place]
        key = entry.get("id")
        name = key if is_integer(key) else f"number {place}"
        self.findings.add(kind, name, f"image {entry.get('image_id')}, {detail}")

    def lvis_lists(self) -> None:
        """Check LVIS's lists of categories: all known, and no annotated one among the negative."""
        annotated: dict[int, set[int]] = defaultdict(set)
        for one in self.annotated:
            annotated[one["image_id"]].add(one["category_id"])
        for key, entry in self.kept.items():
            for name in _LVIS:
                if name not in entry:
                    continue
                listed = entry[name] if isinstance(entry[name], list) else []
                not_here = annotated[key] if name == "neg_category_ids" else set()
                good = [
                    one
                    for one in listed
                    if is_integer(one) and one in self.classes and one not in not_here
                ]
                if good != entry[name]:
                    self.findings.add("lvis_list", key, f"{name} {shown(entry[name])}")
                    self.kept[key] = self.kept[key] | {name: good}


def _is_image(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and is_id(entry.get("id"))
        and is_side(entry.get("width"))
        and is_side(entry.get("height"))
        and bool(_file_name(entry))
    )


def _file_name(entry: Entry) -> str:
    """Return the file of an image; LVIS v1 gives a URL alone, which is read as by detectron2."""
    name = entry.get("file_name")
    if name is None and isinstance(entry.get("coco_url"), str):
        name = "/".join(entry["coco_url"].split("/")[-2:])
    return name if isinstance(name, str) else ""


def _sides(entry: Entry) -> tuple[float, float]:
    return entry["width"], entry["height"]


def _meant(value: Any) -> int:
    """Read a flag also where it is wrong: null and '0' are 0, other values 1."""
    known = 0 if value == "0" else flag(value)
    return 1 if known is None else known


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.set_defaults(run=_run)
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--annotations", type=Path, metavar="JSON", help="the file to check")
    source.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="data.yaml of YOLO, folder of Pascal VOC, or folder of a COCO export, with its images",
    )
    add("--images", type=Path, metavar="DIR", help="image folder of --annotations")
    add(
        "--tolerance",
        type=number(0),
        default=1.0,
        metavar="PX",
        help="that boxes may leave the image (default %(default)s)",
    )
    add("--boxes-only", action="store_true", help="leave masks alone, of the cleaned file too")
    add_check_options(
        parser,
        "images",
        skip="read the headers of images only",
        write=("JSON", "a COCO file without the problems; with --data a folder of such files"),
    )


def _run(args: argparse.Namespace) -> int:
    _check_paths(args)
    if args.data is None:
        parts = iter([Part("", args.annotations, load_lists(args.annotations), args.images)])
    else:
        parts = parts_of(args.data)
    reports: dict[str, dict[str, Any]] = {}
    failed = False
    for part in parts:
        reports[part.name], written = _check_part(part, args)
        failed = failed or not written or bool(reports[part.name]["problems"])
    if args.report:
        alone = args.data is None
        write_json(args.report, reports[""] if alone else {"data": str(args.data), **reports})
    return int(failed)


def _check_part(part: Part, args: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Check a part; return its report, and False if its cleaned file could not be written."""
    data = part.data
    title = f"{part.place}, {part.name}" if part.name else str(part.place)
    say(f"{title}: " + ", ".join(f"{len(data[name]):,} {name}" for name in _LISTS))
    findings, cleaned = verify(
        part,
        workers=args.workers,
        decode=not args.skip_decode,
        tolerance=args.tolerance,
        boxes_only=args.boxes_only,
    )
    listed = findings.as_json()
    if listed:
        say(findings.table())
    if part.folder is None:
        say("image files were not looked at: give --images FOLDER")
    kept = {name: len(cleaned[name]) for name in ("images", "annotations")}
    report = {
        "annotations": str(part.place),
        "images": str(part.folder or ""),
        "problems": findings.problems,
        "left_by_cleaning": kept,
        "findings": listed,
    }
    if args.write:
        file = args.write / f"{part.name}.json" if part.name else args.write
        undecided = [one["text"] for one in listed if one["cleaning"] == _BY_HAND]
        if undecided or not cleaned["images"]:
            reason = f"this is for you to decide first: {'; '.join(undecided)}"
            none = f"no image of {len(data['images'])} is left; is --images the right folder?"
            complain(f"nothing was written: {reason if undecided else none}")
            return report, False
        write_json(file, cleaned)
        left = ", ".join(f"{kept[name]:,} of {len(data[name]):,} {name}" for name in kept)
        say(f"{file}: cleaned, {left}")
        if part.name:
            say(f"its images: --{part.name}-images {part.folder}")
    say(findings.summary(f" in {title}" if args.write else ""))
    return report, True


def _check_paths(args: argparse.Namespace) -> None:
    if args.data is not None:
        if args.images:
            raise ValueError(f"--images {args.images} goes with --annotations, not with --data")
        outputs = [args.report]
        if args.write:
            make_folder(args.write)
            outputs += [args.write / f"{part}.json" for part in ("train", "val")]
        check_outputs(outputs, overwrite=args.overwrite, inputs={"data to check": args.data})
        return
    if args.images and not args.images.is_dir():
        raise FileNotFoundError(f"there is no folder {args.images}")
    if args.skip_decode and not args.images:
        raise ValueError("--skip-decode has no effect without --images")
    check_outputs(
        (args.write, args.report),
        overwrite=args.overwrite,
        inputs={"file to check": args.annotations},
    )
