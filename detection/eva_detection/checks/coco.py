"""Check an annotation file in COCO's or LVIS's format against itself and its pictures.

    python tools/verify_data.py coco --annotations instances.json --images folder/

The entire file is held in memory, as COCO's own reader does: about 1.1 kB for a box, so 28 GB for
Objects365 v2.
"""

import argparse
import gc
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eva_data.checks.command import add_shared
from eva_data.checks.findings import Findings, Kind, write_json
from eva_data.coco.files import parse_json
from eva_data.coco.rules import category_name, is_id, is_integer
from eva_data.commands import check_outputs, complain, say
from eva_data.options import number
from eva_detection.checks.annotations import BY_HAND, AnnotationCheck, Annotations, Entry
from eva_detection.checks.annotations import KINDS as ANNOTATION_KINDS
from eva_detection.checks.image_list import KINDS as IMAGE_KINDS
from eva_detection.checks.image_list import LVIS_FIELDS, ImageCheck

_PARTS = ("images", "annotations", "categories")

KINDS: Mapping[str, Kind] = {
    "category_malformed": Kind("category without an integer id or a name", BY_HAND),
    "category_name_number": Kind("category name that is a number; it is read as text", "-", True),
    "category_id_again": Kind("category id used before", BY_HAND),
    "category_name_again": Kind("category name used before", BY_HAND),
    **IMAGE_KINDS,
    **ANNOTATION_KINDS,
    "lvis_field": Kind("LVIS list of categories that is not a list", "emptied"),
    "lvis_unknown": Kind("LVIS list names an unknown category", "name removed"),
    "lvis_positive": Kind("category both annotated and in neg_category_ids", "taken from neg"),
    "ids_with_gaps": Kind("category ids are not 1, 2, ..., N; detectron2 numbers them", "-", True),
    "image_empty": Kind("image without usable annotations", "-", True),
}


@dataclass
class Verified:
    """A data set and what is known of it.

    Attributes:
        data: Parsed file.
        findings: Problems and notes.
        keep_images: Whether each image can be used.
        annotations: Annotations and what is known of them.
        image_edits: Place in the list -> fields that cleaning changes.
        merged: Id of an image -> id of the earlier image of the same file.
    """

    data: dict[str, Any]
    findings: Findings
    keep_images: list[bool]
    annotations: Annotations
    image_edits: dict[int, Entry] = field(default_factory=dict)
    merged: dict[int, int] = field(default_factory=dict)

    def kept_annotations(self) -> list[bool]:
        """Find out whether each annotation, and its image, can be used."""
        usable = np.array([*self.keep_images, False])  # -1: without an image
        return (self.annotations.keep & usable[self.annotations.image]).tolist()


def load(file: Path) -> dict[str, Any]:
    """Parse an annotation file.

    Args:
        file: The file.

    Raises:
        ValueError: If it is not a JSON object with lists of images, annotations and categories.
    """
    collecting = gc.isenabled()
    gc.disable()  # it would look at millions of new objects again and again
    try:
        data = parse_json(file.read_bytes(), str(file))
    finally:
        if collecting:
            gc.enable()
    if not isinstance(data, dict):
        raise ValueError(f"{file} holds a {type(data).__name__}, not an object as COCO's files do")
    missing = [name for name in _PARTS if not isinstance(data.get(name), list)]
    if missing:
        raise ValueError(f"{file} has no list {' and '.join(missing)}; is it COCO's format?")
    return data


def verify(
    data: dict[str, Any],
    *,
    folder: Path | None = None,
    workers: int = 1,
    decode: bool = True,
    tolerance: float = 1.0,
    boxes_only: bool = False,
) -> Verified:
    """Check a data set.

    Args:
        data: Parsed file; it is left as it is.
        folder: Folder of the pictures; None to leave them alone.
        workers: Processes that decode pictures.
        decode: Read all pixels, not just the headers.
        tolerance: Pixels by which boxes and polygons may leave the image.
        boxes_only: Leave masks alone.
    """
    findings = Findings(KINDS)
    categories = _check_categories(data["categories"], findings)
    check = ImageCheck(data["images"], findings, folder=folder)
    if folder is not None:
        check.look_at_files(folder, workers=workers, decode=decode)
    annotations = AnnotationCheck(
        data["annotations"],
        images=check.table(),
        categories=categories,
        findings=findings,
        tolerance=tolerance,
        boxes_only=boxes_only,
    ).run()
    verified = Verified(data, findings, check.keep, annotations, check.edits, check.merged)
    _check_empty(verified)
    _check_lvis(verified, categories)
    return verified


def _check_categories(entries: list[Any], findings: Findings) -> set[int]:
    """Check the categories; return the known ids."""
    ids: set[int] = set()
    names: dict[str, int] = {}
    for entry in entries:
        key = entry.get("id") if isinstance(entry, dict) else None
        name = category_name(entry) if isinstance(entry, dict) else ""
        if not is_id(key) or not name:
            findings.add("category_malformed", str(entry)[:40])
            continue
        if not isinstance(entry["name"], str):
            findings.add("category_name_number", key, f"category {name}")
        if key in ids:
            findings.add("category_id_again", key, f"category {name!r}")
        elif name in names:
            findings.add("category_name_again", key, f"{name!r} is also {names[name]}")
        ids.add(key)
        names.setdefault(name, key)
    if ids and ids != set(range(1, len(ids) + 1)):
        detail = f"{len(ids)} ids from {min(ids)} to {max(ids)}"
        findings.add("ids_with_gaps", min(ids), detail)
    return ids


def _check_empty(verified: Verified) -> None:
    kept = verified.kept_annotations()
    used = set(verified.annotations.image[np.array(kept, bool)].tolist())
    for place, keep in enumerate(verified.keep_images):
        if keep and place not in used:
            verified.findings.add("image_empty", verified.data["images"][place]["id"])


def _check_lvis(verified: Verified, categories: set[int]) -> None:
    """Check LVIS's lists of categories: all known, and no annotated one among the negative."""
    images = {  # merging has united lists
        place: entry | verified.image_edits.get(place, {})
        for place, (entry, keep) in enumerate(
            zip(verified.data["images"], verified.keep_images, strict=True)
        )
        if keep
    }
    if not any(name in entry for entry in images.values() for name in LVIS_FIELDS):
        return
    positive: dict[int, set[Any]] = defaultdict(set)
    columns = (verified.annotations.entries, verified.annotations.image, verified.annotations.keep)
    for entry, image, keep in zip(*columns, strict=True):
        if keep:
            positive[int(image)].add(entry["category_id"])
    for place, entry in images.items():
        for name in LVIS_FIELDS:
            listed = entry.get(name, [])
            if not isinstance(listed, list):
                verified.findings.add("lvis_field", entry["id"], f"{name} is {str(listed)[:40]}")
                verified.image_edits.setdefault(place, {})[name] = []
                continue
            seen = positive[place] if name == "neg_category_ids" else set()
            problems: Counter[str] = Counter()
            good = []
            for key in listed:
                kind = None
                if not is_integer(key) or key not in categories:
                    kind = "lvis_unknown"
                elif key in seen:
                    kind = "lvis_positive"
                if kind:
                    problems[kind] += 1
                    verified.findings.add(kind, entry["id"], f"{name}, category {key!r}")
                else:
                    good.append(key)
            if problems:
                verified.image_edits.setdefault(place, {})[name] = good


def clean(verified: Verified) -> dict[str, Any]:
    """Make the data set without its problems; entries without any are shared with the original.

    Args:
        verified: Data set and what is known of it.

    Raises:
        ValueError: If there are problems that a program should not decide, or nothing is left.
    """
    data, findings = verified.data, verified.findings
    open_kinds = [n for n, kind in KINDS.items() if kind.cleaning == BY_HAND and findings.count(n)]
    if open_kinds:
        texts = "; ".join(KINDS[name].text for name in open_kinds)
        raise ValueError(f"this is for you to decide first: {texts}")
    images = [
        entry | verified.image_edits[place] if place in verified.image_edits else entry
        for place, (entry, keep) in enumerate(
            zip(data["images"], verified.keep_images, strict=True)
        )
        if keep
    ]
    if not images:
        raise ValueError(
            f"no image of {len(data['images'])} is left; is --images the right folder?"
        )
    edits, merged = verified.annotations.edits, verified.merged
    annotations = []
    kept = verified.kept_annotations()
    for index, entry in enumerate(verified.annotations.entries):
        if kept[index]:
            if entry["image_id"] in merged:
                entry = entry | {"image_id": merged[entry["image_id"]]}
            annotations.append(entry | edits[index] if index in edits else entry)
    return data | {"images": images, "annotations": annotations}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.set_defaults(run=_run)
    add = parser.add_argument
    add("--annotations", required=True, type=Path, metavar="JSON", help="the file to check")
    add("--images", type=Path, metavar="DIR", help="folder of the pictures, looked at if given")
    add(
        "--tolerance",
        type=number(0),
        default=1.0,
        metavar="PX",
        help="that boxes and polygons may leave the image (default %(default)s)",
    )
    add("--boxes-only", action="store_true", help="leave masks alone, of the cleaned file too")
    add_shared(
        parser,
        "pictures",
        skip="read the headers of pictures only",
        write=("JSON", "a file without the problems"),
    )


def _run(args: argparse.Namespace) -> int:
    _check_paths(args)
    data = load(args.annotations)
    sizes = ", ".join(f"{len(data[name]):,} {name}" for name in ("images", "annotations"))
    say(f"{args.annotations}: {sizes}, {len(data['categories']):,} categories")
    verified = verify(
        data,
        folder=args.images,
        workers=args.workers,
        decode=not args.skip_decode,
        tolerance=args.tolerance,
        boxes_only=args.boxes_only,
    )
    findings = verified.findings
    listed = findings.as_json()
    if listed:
        say(findings.table())
    if args.images is None:
        say("image files were not looked at: give --images FOLDER")
    kept = {
        "images": sum(verified.keep_images),
        "annotations": sum(verified.kept_annotations()),
    }
    if args.report:
        about = {"annotations": str(args.annotations), "images": str(args.images or "")}
        counts = {"problems": findings.problems, "left_by_cleaning": kept}
        write_json(args.report, about | counts | {"findings": listed})
    if args.write:
        try:
            write_json(args.write, clean(verified))
        except ValueError as error:
            complain(f"nothing was written: {error}")
            return 1
        left = ", ".join(f"{kept[name]:,} of {len(data[name]):,} {name}" for name in kept)
        say(f"{args.write}: cleaned, {left}")
    say(findings.summary(f" in {args.annotations}" if args.write else ""))
    return 1 if findings.problems else 0


def _check_paths(args: argparse.Namespace) -> None:
    if not args.annotations.is_file():
        raise FileNotFoundError(f"there is no file {args.annotations}")
    if args.images and not args.images.is_dir():
        raise FileNotFoundError(f"there is no folder {args.images}")
    if args.skip_decode and not args.images:
        raise ValueError("--skip-decode has no effect without --images")
    check_outputs(
        (args.write, args.report),
        overwrite=args.overwrite,
        inputs={"file to check": args.annotations},
    )
