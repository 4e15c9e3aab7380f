"""Check an annotation file in COCO's or LVIS's format against itself and its pictures.

    python tools/verify_data.py coco --annotations instances.json --images folder/
    python tools/verify_data.py coco --data data.yaml --write cleaned/

The entire file is held in memory, as COCO's own reader does: about 1.1 kB for a box, so 28 GB for
Objects365 v2.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eva_data.checks.command import add_shared
from eva_data.checks.findings import Findings, Kind, write_json
from eva_data.coco.rules import category_name, is_id, is_integer
from eva_data.files import make_folder
from eva_detection.checks.annotations import BY_HAND, AnnotationCheck, Annotations, Entry
from eva_detection.checks.annotations import KINDS as ANNOTATION_KINDS
from eva_detection.checks.any_form import Checked, load, parts_of
from eva_detection.checks.image_list import KINDS as IMAGE_KINDS
from eva_detection.checks.image_list import LVIS_FIELDS, ImageCheck
from eva_detection.checks.masks import REMOVED
from eva_runs.commands import check_outputs, complain, say
from eva_runs.options import number

KINDS: Mapping[str, Kind] = {
    "category_malformed": Kind("category without an integer id or a name", BY_HAND),
    "category_name_number": Kind("category name that is a number; it is read as text", "-", True),
    "category_id_again": Kind("category id used before", BY_HAND),
    "category_name_again": Kind("category name used before", BY_HAND),
    "label": Kind("label or picture that training refuses", REMOVED),
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


def verify(
    data: dict[str, Any],
    *,
    folder: Path | None = None,
    workers: int = 1,
    decode: bool = True,
    tolerance: float = 1.0,
    boxes_only: bool = False,
    unread: Sequence[str] = (),
) -> Verified:
    """Check a data set.

    Args:
        data: Parsed file; it is left as it is.
        folder: Folder of the pictures; None to leave them alone.
        workers: Processes that decode pictures.
        decode: Read all pixels, not just the headers.
        tolerance: Pixels by which boxes and polygons may leave the image.
        boxes_only: Leave masks alone.
        unread: Sentences on labels and pictures that are not among the data.
    """
    findings = Findings(KINDS)
    for text in unread:
        place, _, reason = text.partition(": ")
        findings.add("label", place, reason or text)
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
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--annotations", type=Path, metavar="JSON", help="the file to check")
    source.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="data.yaml of YOLO, folder of Pascal VOC, or folder of a COCO export, with its "
        "pictures",
    )
    add("--images", type=Path, metavar="DIR", help="folder of the pictures of --annotations")
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
        write=("JSON", "a COCO file without the problems; with --data a folder of such files"),
    )


def _run(args: argparse.Namespace) -> int:
    _check_paths(args)
    if args.data is None:
        parts = iter([Checked("", args.annotations, load(args.annotations), args.images, [])])
    else:
        parts = parts_of(args.data)
    reports: dict[str, dict[str, Any]] = {}
    failed, problems = False, 0
    for part in parts:
        report, written = _check_part(part, args)
        reports[part.name] = report
        failed, problems = failed or not written, problems + report["problems"]
    if args.report:
        alone = args.data is None
        write_json(args.report, reports[""] if alone else {"data": str(args.data), **reports})
    return 1 if problems or failed else 0


def _check_part(part: Checked, args: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Check a part; return its report, and False if its cleaned file could not be written."""
    data = part.data
    sizes = ", ".join(f"{len(data[name]):,} {name}" for name in ("images", "annotations"))
    title = f"{part.place}, {part.name}" if part.name else str(part.place)
    say(f"{title}: {sizes}, {len(data['categories']):,} categories")
    verified = verify(
        data,
        folder=part.folder,
        workers=args.workers,
        decode=not args.skip_decode,
        tolerance=args.tolerance,
        boxes_only=args.boxes_only,
        unread=part.problems,
    )
    findings = verified.findings
    listed = findings.as_json()
    if listed:
        say(findings.table())
    if part.folder is None:
        say("image files were not looked at: give --images FOLDER")
    kept = {
        "images": sum(verified.keep_images),
        "annotations": sum(verified.kept_annotations()),
    }
    about = {"annotations": str(part.place), "images": str(part.folder or "")}
    counts = {"problems": findings.problems, "left_by_cleaning": kept}
    report = about | counts | {"findings": listed}
    if args.write:
        file = args.write / f"{part.name}.json" if part.name else args.write
        try:
            write_json(file, clean(verified))
        except ValueError as error:
            complain(f"nothing was written: {error}")
            return report, False
        left = ", ".join(f"{kept[name]:,} of {len(data[name]):,} {name}" for name in kept)
        say(f"{file}: cleaned, {left}")
        if part.name:
            say(f"its pictures: --{part.name}-images {part.folder}")
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
