"""Check the images that a COCO file lists: ids, names, sizes, and what lies in their files."""

import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eva_data.checks.findings import Findings, Kind
from eva_data.checks.pictures import Picture, inspect, inspect_all
from eva_data.coco.rules import is_id, is_integer, is_side
from eva_detection.checks.annotations import Entry, Images
from eva_detection.checks.masks import REMOVED

LVIS_FIELDS = ("neg_category_ids", "not_exhaustive_category_ids")

KINDS: Mapping[str, Kind] = {
    "image_malformed": Kind("image without integer id, integer sides or file name", REMOVED),
    "image_id_beyond": Kind("image id below 0 or above 2^63 - 1", REMOVED),
    "image_again": Kind("image listed before, same id and file", REMOVED),
    "image_id_of_several": Kind("image id of several files", "all removed"),
    "file_name_again": Kind("file name of an earlier image", "merged into it"),
    "file_name_of_two_sizes": Kind("file name of another image, of another size", REMOVED),
    "file_elsewhere": Kind("file without the first folders of its name", "name corrected"),
    "file_missing": Kind("image without a file", REMOVED),
    "file_broken": Kind("file that does not decode", REMOVED),
    "file_of_32_bits": Kind("file of 32 bits or fractions a value", REMOVED),
    "size_differs": Kind("size in the file is another", REMOVED),
    "size_turned": Kind("EXIF swaps width and height: detectron2 refuses", REMOVED),
    "turned": Kind("EXIF turns the picture; detectron2 does, pycocotools not", "-", True),
    "file_of_16_bits": Kind("file of 16 bits a value; the upper 8 are used", "-", True),
}


def file_name(entry: Entry) -> str | None:
    """Name the file of an image; LVIS v1 gives a URL alone, which is read as by detectron2."""
    name = entry.get("file_name")
    if name is None and isinstance(entry.get("coco_url"), str):
        name = "/".join(entry["coco_url"].split("/")[-2:])
    return name if isinstance(name, str) and name else None


class ImageCheck:
    """The checks of one file's images.

    Args:
        entries: List in the file.
        findings: Receives what is wrong.
        folder: Folder of the pictures; None if it is not to be looked at.

    Attributes:
        keep: Whether each entry can be used.
        edits: Place -> fields that cleaning changes.
        merged: Id -> id of the earlier image of the same file.
    """

    def __init__(
        self, entries: list[Any], findings: Findings, *, folder: Path | None = None
    ) -> None:
        self.entries = entries
        self.findings = findings
        self.keep = [True] * len(entries)
        self.edits: dict[int, Entry] = {}
        self.merged: dict[int, int] = {}
        self.places: dict[int, int] = {}  # id -> place of the entry that stands for it
        self.files: dict[str, int] = {}  # file -> place of the entry
        for place, entry in enumerate(entries):
            beyond = self._is_complete(entry) and not is_id(entry["id"])
            if beyond or not self._is_complete(entry):
                key = entry.get("id") if isinstance(entry, dict) else None
                shown = key if is_integer(key) else f"number {place}"
                kind = "image_id_beyond" if beyond else "image_malformed"
                self._drop(place, kind, str(entry)[:80], shown)
                if is_integer(key):
                    self.places.setdefault(key, place)
        self._check_ids()
        self._check_names(folder)

    @staticmethod
    def _is_complete(entry: Any) -> bool:
        return (
            isinstance(entry, dict)
            and is_integer(entry.get("id"))
            and is_side(entry.get("width"))
            and is_side(entry.get("height"))
            and file_name(entry) is not None
        )

    def _drop(self, place: int, kind: str, detail: str, key: Any = None) -> None:
        self.keep[place] = False
        self.findings.add(kind, self.entries[place]["id"] if key is None else key, detail)

    def _kept(self) -> list[int]:
        return [place for place, keep in enumerate(self.keep) if keep]

    def _check_ids(self) -> None:
        of_id: dict[int, list[int]] = defaultdict(list)
        for place in self._kept():
            of_id[self.entries[place]["id"]].append(place)
        for key, places in of_id.items():
            self.places[key] = places[0]
            if len(places) == 1:
                continue
            entries = [self.entries[place] for place in places]
            if len({(file_name(e), e["width"], e["height"]) for e in entries}) == 1:
                for place in places[1:]:
                    self._unite(places[0], place)
                    self._drop(place, "image_again", str(file_name(entries[0])))
            else:  # nobody knows which of them an annotation means
                names = " and ".join(str(file_name(entry)) for entry in entries[:2])
                for place in places:
                    self._drop(place, "image_id_of_several", names)

    def _check_names(self, folder: Path | None) -> None:
        of_name: dict[str, list[int]] = defaultdict(list)
        for place in self._kept():
            of_name[str(file_name(self.entries[place]))].append(place)
        for name, places in of_name.items():
            chosen = self.files[name] = self._choose(name, places, folder)
            for place in places:
                if place != chosen:
                    self._compare(name, place, chosen)

    def _choose(self, name: str, places: list[int], folder: Path | None) -> int:
        """Choose, from the entries of one file, the first of the file's size; or else the first."""
        sizes = [self._size(place) for place in places]
        if folder is None or len(set(sizes)) == 1:
            return places[0]
        seen = inspect(folder, name, decode=False).seen_size
        return places[sizes.index(seen)] if seen is not None and seen in sizes else places[0]

    def _compare(self, name: str, place: int, chosen: int) -> None:
        """Merge an entry into another of the same file, if their sizes agree."""
        key, other = self.entries[place]["id"], self.entries[chosen]["id"]
        size, chosen_size = self._size(place), self._size(chosen)
        text = f"{name} is also image {other}"
        if size != chosen_size:  # boxes would have to be scaled
            text += f" of {chosen_size[0]} x {chosen_size[1]} px, not {size[0]} x {size[1]}"
            self._drop(place, "file_name_of_two_sizes", text)
            return
        self._drop(place, "file_name_again", text)
        self._unite(chosen, place)
        self.merged[key] = other
        self.places[key] = chosen

    def _size(self, place: int) -> tuple[float, float]:
        return self.entries[place]["width"], self.entries[place]["height"]

    def _unite(self, chosen: int, place: int) -> None:
        """Add the LVIS lists of an entry to those of the one that stands for it."""
        own = self.entries[chosen] | self.edits.get(chosen, {})
        for name in LVIS_FIELDS:
            listed, more = own.get(name, []), self.entries[place].get(name)
            if isinstance(listed, list) and isinstance(more, list):
                new = [key for key in more if key not in listed]
                if new:
                    self.edits.setdefault(chosen, {})[name] = listed + new

    def look_at_files(self, folder: Path, *, workers: int, decode: bool) -> None:
        """Check the picture files of the images that are left.

        Args:
            folder: Folder of the pictures.
            workers: Number of processes.
            decode: Read all pixels, not just the headers.
        """
        places = self._kept()
        names = [str(file_name(self.entries[place])) for place in places]
        pictures = inspect_all(folder, names, workers=workers, decode=decode)
        for place, name, picture in zip(places, names, pictures, strict=True):
            self._check_file(place, name, picture)

    def _check_file(self, place: int, name: str, picture: Picture) -> None:
        entry = self.entries[place]
        if picture.missing:
            self._drop(place, "file_missing", name)
            return
        if picture.name != name and "file_name" not in entry:  # nothing to correct in a URL
            self._drop(place, "file_missing", f"{name}; {picture.name}: give the folder above")
            return
        if picture.name != name and picture.name in self.files:
            other = self.entries[self.files[picture.name]]["id"]
            self._drop(place, "file_missing", f"{name}; {picture.name} is image {other}")
            return
        if picture.name != name:
            self.files[picture.name] = place
            self.findings.add("file_elsewhere", entry["id"], f"{name} is at {picture.name}")
            self.edits.setdefault(place, {})["file_name"] = picture.name
        if picture.size is None:
            self._drop(place, "file_broken", f"{picture.name}: {picture.problem}")
            return
        if picture.bits == 32:
            self._drop(place, "file_of_32_bits", f"{picture.name}: save it with 8 or 16")
            return
        if picture.bits == 16:
            self.findings.add("file_of_16_bits", entry["id"], picture.name)
        size = (entry["width"], entry["height"])
        text = f"{picture.name} is {picture.size[0]} x {picture.size[1]} px"
        text += f", listed as {size[0]} x {size[1]}"
        if picture.orientation != 1:
            text += f", EXIF orientation {picture.orientation}"
        if picture.seen_size == size:
            if picture.orientation in range(2, 9):
                self.findings.add("turned", entry["id"], text)
        elif picture.size == size:
            self._drop(place, "size_turned", text)
        else:
            self._drop(place, "size_differs", text)

    def table(self) -> Images:
        """Make the table of images that the annotations refer to."""
        entries = [e if self._is_complete(e) else {} for e in self.entries]
        widths, heights = (
            np.array([entry.get(side, math.nan) for entry in entries], float)
            for side in ("width", "height")
        )
        return Images(self.places, widths, heights)
