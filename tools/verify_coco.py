"""Checks an annotation file in COCO's or LVIS's format against itself and its pictures.

The whole file is held in memory, as COCO's own reader does: about 1.1 kB for a box, so 28 GB for
Objects365 v2.
"""

import gc
import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from findings import Findings, Kind
from verify_annotations import BY_HAND, LARGEST_ID, AnnotationCheck, Annotations, Entry
from verify_annotations import KINDS as ANNOTATION_KINDS
from verify_image_list import KINDS as IMAGE_KINDS
from verify_image_list import LVIS_FIELDS, ImageCheck

PARTS = ("images", "annotations", "categories")

KINDS: Mapping[str, Kind] = {
    "category_malformed": Kind("category without whole-number id or name", BY_HAND),
    "category_id_again": Kind("category id used before", BY_HAND),
    "category_name_again": Kind("category name used before", BY_HAND),
    **IMAGE_KINDS,
    **ANNOTATION_KINDS,
    "lvis_field": Kind("LVIS list of categories that is no list", "emptied"),
    "lvis_unknown": Kind("LVIS list names an unknown category", "name removed"),
    "lvis_positive": Kind("category both annotated and in neg_category_ids", "taken from neg"),
    "ids_with_gaps": Kind("category ids are not 1, 2, ..., N; detectron2 numbers them", "-", True),
    "image_empty": Kind("image without usable annotations", "-", True),
}


@dataclass
class Verified:
    """A data set and what is known of it.

    Attributes:
        data: the parsed file.
        findings: what is wrong.
        keep_images: whether each image can be used.
        annotations: what the checks of the annotations found out.
        image_edits: place in the list -> fields that cleaning changes.
        merged: id of an image -> id of the earlier image of the same file.
    """

    data: dict[str, Any]
    findings: Findings
    keep_images: list[bool]
    annotations: Annotations
    image_edits: dict[int, Entry] = field(default_factory=dict)
    merged: dict[int, int] = field(default_factory=dict)

    def kept_annotations(self) -> list[bool]:
        """Whether each annotation, and its image, can be used."""
        usable = np.array([*self.keep_images, False])  # -1 is no image
        return (self.annotations.keep & usable[self.annotations.image]).tolist()


def load(file: Path) -> dict[str, Any]:
    """Parses an annotation file.

    Raises:
        ValueError: if it is no JSON object with lists of images, annotations and categories.
    """
    collecting = gc.isenabled()
    gc.disable()  # it would look at millions of new objects again and again
    try:
        data = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    finally:
        if collecting:
            gc.enable()
    if not isinstance(data, dict):
        raise ValueError(f"{file} holds a {type(data).__name__}, not an object as COCO's files do")
    missing = [name for name in PARTS if not isinstance(data.get(name), list)]
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
    """Checks a data set.

    Args:
        data: the parsed file; it is left as it is.
        folder: where the pictures lie; None to leave them alone.
        workers: processes that decode pictures.
        decode: read all pixels, not just the headers.
        tolerance: pixels by which boxes and polygons may leave the image.
        boxes_only: leave masks alone.
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
    """Returns the known ids."""
    ids: set[int] = set()
    names: dict[str, int] = {}
    for entry in entries:
        key = entry.get("id") if isinstance(entry, dict) else None
        valid = type(key) is int and 0 <= key <= LARGEST_ID
        if not valid or not isinstance(entry.get("name"), str):
            findings.add("category_malformed", str(entry)[:40])
            continue
        key, name = entry["id"], entry["name"]
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
    """The lists of LVIS's images hold known categories, and the negative ones no positive one."""
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
            problems = Counter()
            good = []
            for key in listed:
                kind = None
                if type(key) is not int or key not in categories:
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
    """The data set without its problems; entries without any are shared with the original.

    Raises:
        ValueError: if there are problems that a program should not decide, or nothing is left.
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
