"""Check the annotations of a COCO file: ids, references, boxes, areas, masks, duplicates.

Columns are numpy arrays over all annotations: Objects365 v2 has 25 million.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eva_data.checks.findings import Findings, Kind
from eva_data.coco.rules import (
    LARGEST_ID,
    ROUNDING,
    clip,
    flag,
    is_integer,
    numbers,
    suspected_unit,
)
from eva_data.progress import progress
from eva_detection.checks.masks import KINDS as MASK_KINDS
from eva_detection.checks.masks import REMOVED, check_mask

Array = np.ndarray[Any, Any]
Entry = dict[str, Any]
BY_HAND = "by hand"
_SHORT = {"bbox": "box", "category_id": "category"}
_UNITS = {"fractions": "boxes_in_fractions", "thin": "boxes_thin"}
_AREA_SLACK = 1.0  # px of each side by which an area may be larger than its box

KINDS: Mapping[str, Kind] = {
    "annotation_malformed": Kind("annotation that is not an object", REMOVED),
    "annotation_id_missing": Kind("annotation id is not an integer", "new id"),
    "annotation_id_zero": Kind("annotation id below 1: COCO's scoring misses 0", "new id"),
    "annotation_id_again": Kind("annotation id used before", "new id"),
    "image_unknown": Kind("annotation of an unknown image", REMOVED),
    "category_unknown": Kind("annotation of an unknown category", REMOVED),
    "iscrowd": Kind("iscrowd other than 0 and 1", "null, '0' to 0, others to 1: left out"),
    "ignored": Kind("annotation with `ignore`, which detectron2 refuses", "made a crowd: left out"),
    "boxes_in_fractions": Kind("no number of a box above 1: YOLO's fractions?", BY_HAND),
    "box_malformed": Kind("box that is not 4 finite numbers", REMOVED),
    "box_empty": Kind("box without positive width and height", REMOVED),
    "box_outside": Kind("box outside the image", REMOVED),
    "box_beyond": Kind("box partly outside the image", "clipped"),
    "area_missing": Kind("area that is not a positive number", "from mask or box"),
    "area_implausible": Kind("area larger than the box", "from mask or box"),
    **MASK_KINDS,
    "annotation_again": Kind(
        "annotation like an earlier one: same image, class, box, mask", REMOVED
    ),
    "boxes_thin": Kind("all boxes below 2 px: are they in pixels?", "-", True),
}


@dataclass
class Images:
    """The images that annotations refer to.

    Attributes:
        position: Id -> row below; images of one file share the row of the first.
        widths: Widths in pixels; NaN if they are not known.
        heights: Heights in pixels.
    """

    position: Mapping[Any, int]
    widths: Array
    heights: Array


@dataclass
class Annotations:
    """Annotations and what the checks found out about them.

    Attributes:
        entries: Entries of the list that are objects.
        image: Row of the image of each entry, -1 if unknown.
        keep: Whether each can be used, as far as it depends on the annotation alone.
        edits: Index -> fields that cleaning changes.
    """

    entries: Sequence[Entry]
    image: Array
    keep: Array
    edits: dict[int, Entry] = field(default_factory=dict)


class AnnotationCheck:
    """The checks of one file's annotations, in the order in which `run` calls them.

    Args:
        entries: List in the file.
        images: Known images.
        categories: Ids of known categories.
        findings: Receives what is wrong.
        tolerance: Pixels by which boxes and polygons may leave the image.
        boxes_only: Leave masks alone.
    """

    def __init__(
        self,
        entries: Sequence[Any],
        *,
        images: Images,
        categories: set[Any],
        findings: Findings,
        tolerance: float,
        boxes_only: bool,
    ) -> None:
        odd = [index for index, entry in enumerate(entries) if type(entry) is not dict]
        if odd:
            first = f"entry {odd[0]} of the list is {str(entries[odd[0]])[:40]}"
            findings.add_many("annotation_malformed", len(odd), odd, first)
            entries = [entry for entry in entries if type(entry) is dict]
        self.findings = findings
        self.tolerance = tolerance
        self.categories = categories
        self.boxes_only = boxes_only
        self.images = images
        image = _rows(images.position, [entry.get("image_id") for entry in entries])
        self.found = Annotations(entries, image, np.ones(len(entries), bool))
        known = np.append(images.widths, np.nan), np.append(images.heights, np.nan)
        self.widths, self.heights = (column[image] for column in known)  # -1 is the NaN
        self.boxes: Array = np.empty((0, 4))
        self.sides: Array = np.empty((0, 2))  # before they are clipped
        self.mask_areas: dict[int, int] = {}

    def run(self) -> Annotations:
        """Run all checks."""
        self.check_ids()
        self.check_references()
        self.check_flags()
        self.check_boxes()
        self.check_masks()
        self.check_areas()
        self.check_duplicates()
        return self.found

    def _report(
        self, name: str, where: Array, detail: str = "", *, field: str = "bbox", drop: bool = False
    ) -> Array:
        """Count the rows that a mask marks; return their indexes."""
        indexes = np.flatnonzero(where)
        if len(indexes):
            entries = self.found.entries
            ids = (_name(index, entries[index]) for index in indexes.tolist())
            first = entries[indexes[0]]
            value = _box_text(first.get("bbox")) if field == "bbox" else repr(first.get(field))
            about = (
                f"image {first.get('image_id')}, {detail or f'{_SHORT.get(field, field)} {value}'}"
            )
            self.findings.add_many(name, len(indexes), ids, about)
        if drop:
            self.found.keep[indexes] = False
        return indexes

    def _edit(self, index: int, **fields: Any) -> None:
        self.found.edits.setdefault(int(index), {}).update(fields)

    def _column(self, name: str, default: Any = None) -> list[Any]:
        return [entry.get(name, default) for entry in self.found.entries]

    def check_ids(self) -> None:
        """Check that ids are integers from 1 and used once."""
        column = self._column("id")
        integers = [is_integer(value) and abs(value) <= LARGEST_ID for value in column]
        valid = np.array(integers, bool)
        ids = np.array([v if ok else 0 for v, ok in zip(column, integers, strict=True)], np.int64)
        again = np.ones(len(ids), bool)
        again[np.unique(ids, return_index=True)[1]] = False
        positive = valid & (ids > 0)
        wrong = [*self._report("annotation_id_missing", ~valid)]
        wrong += [*self._report("annotation_id_zero", valid & (ids < 1))]
        wrong += [*self._report("annotation_id_again", positive & again)]
        free = itertools.count(int(ids.max(initial=0)) + 1)
        for index in sorted(wrong):
            self._edit(index, id=next(free))

    def check_references(self) -> None:
        """Check that images and categories exist."""
        self._report("image_unknown", self.found.image < 0, drop=True)
        categories = self._column("category_id")
        known = dict.fromkeys(self.categories, 0)
        unknown = _rows(known, categories) < 0
        self._report("category_unknown", unknown, field="category_id", drop=True)

    def check_flags(self) -> None:
        """Check that `iscrowd` is 0 or 1 and `ignore` 0."""
        crowds, ignored = self._column("iscrowd", 0), self._column("ignore", 0)
        wrong = np.array([value is None or flag(value) is None for value in crowds], bool)
        for index in self._report("iscrowd", wrong, field="iscrowd"):
            self._edit(index, iscrowd=_meant(crowds[index]))
        wrong = np.array([value is None or flag(value) != 0 for value in ignored], bool)
        for index in self._report("ignored", wrong, field="ignore"):
            crowd = max(_meant(ignored[index]), _meant(crowds[index]))
            self._edit(index, ignore=0, iscrowd=crowd)

    def check_boxes(self) -> None:
        """Check that boxes are 4 finite numbers with positive sides, within the image."""
        self.boxes = boxes = _boxes(self._column("bbox"))
        finite = np.isfinite(boxes).all(axis=1)
        boxes[~finite] = np.nan
        self.sides = boxes[:, 2:].copy()
        self._report("box_malformed", np.logical_not(finite), drop=True)
        empty = finite & (boxes[:, 2:].min(axis=1) <= 0)
        self._report("box_empty", empty, drop=True)
        sides = np.stack([self.widths, self.heights], 1)
        solid = finite & ~empty
        if unit := suspected_unit(boxes[solid], sides[solid]):  # all tiny: rarely in pixels
            self._report(_UNITS[unit], solid)
        clipped, beyond, outside = clip(boxes, sides)
        # A sliver beyond the edge within the tolerance is not a box of this image either.
        outside &= solid
        self._report("box_outside", outside, self._place(outside), drop=True)
        partly = solid & ~outside & (beyond > self.tolerance + ROUNDING)
        for index in self._report("box_beyond", partly, self._place(partly)):
            boxes[index] = clipped[index]
            self._edit(index, bbox=boxes[index].tolist())

    def _place(self, where: Array) -> str:
        if not where.any():
            return ""
        index = int(where.argmax())
        size = f"{self.widths[index]:.0f} x {self.heights[index]:.0f} px"
        return f"box {_box_text(self.found.entries[index]['bbox'])} in {size}"

    def check_masks(self) -> None:
        """Check that masks decode, have the image's size and at least one pixel."""
        masks = [] if self.boxes_only else self._column("segmentation")
        if not any(masks):
            return
        entries = self.found.entries
        for index, mask in enumerate(progress(masks, total=len(masks), what="masks")):
            if not self.widths[index] > 0:
                continue
            size = int(self.heights[index]), int(self.widths[index])
            checked = check_mask(mask, size, tolerance=self.tolerance)
            self.mask_areas[index] = checked.area
            for name, detail in checked.problems:
                about = f"image {entries[index].get('image_id')}, {detail}"
                self.findings.add(name, _name(index, entries[index]), about)
            if checked.cleaned is None:
                self.found.keep[index] = False
            elif checked.cleaned != mask:
                self._edit(index, segmentation=checked.cleaned)

    def check_areas(self) -> None:
        """Check that areas are positive and not larger than the box."""
        areas = numbers(self._column("area"))
        missing = ~(np.isfinite(areas) & (areas > 0))
        wrong = [*self._report("area_missing", missing)]
        slack = _AREA_SLACK + self.tolerance
        with np.errstate(over="ignore"):
            limit, before = ((sides + slack).prod(1) for sides in (self.boxes[:, 2:], self.sides))
        large = self.found.keep & ~missing & (areas > before)
        first = self.found.entries[int(large.argmax())] if large.any() else {}
        detail = f"area {first.get('area')}, box {_box_text(first.get('bbox'))}"
        wrong += [*self._report("area_implausible", large, detail)]
        # A clipped box takes its area with it, though that is not a finding of its own.
        wrong += [*np.flatnonzero(self.found.keep & ~missing & ~large & (areas > limit))]
        for index in wrong:
            if self.found.keep[index]:
                box = float(self.boxes[index, 2:].prod())
                self._edit(index, area=min(self.mask_areas.get(index, 0) or box, box))

    def check_duplicates(self) -> None:
        """Check that no annotation is there twice, after the cleaning of the others."""
        found = self.found
        kept = np.flatnonzero(found.keep)
        classes = {key: row for row, key in enumerate(self.categories)}
        category = _rows(classes, [found.entries[index].get("category_id") for index in kept])
        columns = [found.image[kept], category, *(self.boxes[kept] + 0.0).T]
        order = np.lexsort(columns[::-1])  # stable: the first in the file comes first
        same = np.ones(max(len(kept) - 1, 0), bool)
        for column in columns:
            ordered = column[order]
            same &= ordered[1:] == ordered[:-1]
        again = np.zeros(len(found.entries), bool)
        seen: set[str] = set()
        for place in np.flatnonzero(same).tolist():
            if place == 0 or not same[place - 1]:
                seen = {self._rest(kept[order[place]])}
            rest = self._rest(kept[order[place + 1]])
            again[kept[order[place + 1]]] = rest in seen
            seen.add(rest)
        self._report("annotation_again", again, drop=True)

    def _rest(self, index: int) -> str:
        """Describe what else makes two annotations of one box different."""
        entry = self.found.entries[index] | self.found.edits.get(int(index), {})
        mask = None if self.boxes_only else entry.get("segmentation")
        return f"{int(entry.get('iscrowd', 0))} {mask}"


def _meant(value: Any) -> int:
    """Read a flag also where it is wrong: null and '0' are 0, other values 1."""
    known = 0 if value == "0" else flag(value)
    return 1 if known is None else known


def _name(index: int, entry: Entry) -> Any:
    """Name an annotation by its id, or by its place in the list if there is none to read."""
    key = entry.get("id")
    return key if type(key) is int else f"number {index}"


def _box_text(box: Any) -> str:
    """Write a box for a message: floats with one digit."""
    if not isinstance(box, list):
        return str(box)
    return str([round(value, 1) if type(value) is float else value for value in box[:5]])


def _rows(rows: Mapping[Any, int], keys: Sequence[Any]) -> Array:
    """Look up the row of each key, -1 for others."""
    try:
        return np.array([rows.get(key, -1) for key in keys], np.int64)
    except TypeError:  # a list or an object
        plain = [key if type(key) in (int, float, str) else None for key in keys]
        return np.array([rows.get(key, -1) for key in plain], np.int64)


def _boxes(column: list[Any]) -> Array:
    """Convert boxes to (N, 4), NaN where they are malformed."""
    good = (box if type(box) is list and len(box) == 4 else [np.nan] * 4 for box in column)
    return numbers(list(itertools.chain.from_iterable(good))).reshape(-1, 4)
