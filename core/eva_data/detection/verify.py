"""Check of a detection dataset: every error that training would raise, and what does not decode."""

import dataclasses
import functools
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eva_data.checks.findings import Findings, Kind
from eva_data.checks.images import FOLDER_KINDS, inspect_all
from eva_data.detection.coco import load_lists, validate
from eva_data.detection.datasets import CocoDataset, EntryError
from eva_data.detection.foreign import ForeignDataset
from eva_data.detection.merge import describe_empty, take_names
from eva_data.detection.panoptic import find_faults, read_ids
from eva_data.detection.rules import is_id
from eva_data.detection.sources import open_source, read_labels
from eva_data.images import describe_dark
from eva_data.pools import ordered_map


class CheckedPart:
    """A part of a dataset as training reads it, and the errors of what is left out.

    Its `name` is "train", "val", "test", or "" where there is one file. `dataset` is what is left,
    `data` has COCO's lists as the file has them (none of YOLO and VOC), and `findings` has the
    errors, counted by list and field.
    """

    dataset: CocoDataset

    def __init__(self, name: str, source: Path) -> None:
        self.name, self.source = name, source
        self.data: dict[str, Any] = {}
        self._kinds: dict[str, Kind] = {}
        self.findings = Findings(self._kinds)

    def report(self, error: EntryError) -> None:
        """Count an error."""
        self._kinds.setdefault(error.kind, Kind(error.kind, "left out"))
        location = error.location.removeprefix(f"{self.source}: ")
        self.findings.add(error.kind, location, error.message)

    def note(self, kind: str, line: str) -> None:
        """Count what is no error, but not as it seems."""
        self._kinds.setdefault(kind, Kind(kind, "-", note=True))
        self.findings.add(kind, line)

    def check_classes(self, train: CocoDataset | None) -> None:
        """Find classes without an object, in validation those that only training has."""
        if train is not None:
            self.dataset, notes = take_names(self.dataset, train.categories)
            for line in notes:
                self.note("categories.name", line)
        empty, known = self.dataset.empty_classes, {*self.dataset.categories.values()}
        unseen = [name for name in train.categories.values() if name not in known] if train else []
        if empty and (train is None or not self.dataset.instances):
            kind, line = "categories.empty", describe_empty(self.dataset, empty)
            self._kinds.setdefault(kind, Kind("class without an object", "-"))
            self.findings.add_many(kind, len(empty), empty, line)
        else:
            unseen = [*empty, *unseen]
        if unseen:
            self._kinds.setdefault("unseen", Kind("class without an object here", "-", note=True))
            self.findings.add_many("unseen", len(unseen), unseen)

    def check_fits(self, train: CocoDataset) -> None:
        """Find what training would refuse beside its own part."""
        try:
            self.dataset.check_fits(train)
        except ValueError as error:
            self._kinds.setdefault("fit", Kind("other than in training", "-"))
            self.findings.add("fit", str(error))

    def check_masks(self) -> None:
        """Leave out objects without a mask where others have one, which training refuses."""
        try:
            self.dataset.reason_against_masks(training=self.name in ("", "train"))
        except EntryError as error:
            self.report(error)
            objects = [
                annotation
                for annotation in self.dataset.objects
                if annotation["iscrowd"] or "segmentation" in annotation
            ]
            self.dataset = dataclasses.replace(self.dataset, objects=objects)

    def decode_images(self, *, workers: int, decode: bool, bands: int | None = None) -> None:
        """Leave out images that are missing, do not decode or are of another size.

        A name whose first folders are wrong is corrected.
        """
        images, decoded, largest = self.dataset.images, {}, 0
        names = [entry["file_name"] for entry in images.values()]
        present = {*names}
        ways: Any = {"workers": workers, "decode": decode, "bands": bands}
        files = inspect_all(Path(self.dataset.folder), names, **ways)
        for (key, entry), file in zip(images.items(), files, strict=True):
            moved = file.name != entry["file_name"]
            sides, facts, problem = (entry["width"], entry["height"]), file.facts, file.problem
            if facts is not None and not problem and facts.seen_size != sides:
                is_turned = facts.seen_size != facts[:2]
                turned = f", turned by its EXIF data {facts.seen_size}" if is_turned else ""
                problem = f"it is {facts[:2]} px{turned}, and listed as {sides}"
            largest = max(largest, file.facts.largest if file.facts else 0)
            if file.facts is not None and file.facts.transparent:
                self._kinds.setdefault("images.transparent", FOLDER_KINDS["transparent"])
                self.findings.add("images.transparent", entry["file_name"])
            if problem or moved:
                problem_text = problem or f"it is at {file.name}"
                self.report(
                    EntryError("images.file", f"{entry['file_name']} (id {key})", problem_text)
                )
            if not problem and not (moved and file.name in present):  # perhaps of another image
                decoded[key] = entry | {"file_name": file.name}
        if line := describe_dark(largest):
            self._kinds.setdefault("images.dark", FOLDER_KINDS["dark"])
            self.findings.add("images.dark", str(self.dataset.folder), line)
        objects = [
            annotation for annotation in self.dataset.objects if annotation["image_id"] in decoded
        ]
        self.dataset = dataclasses.replace(self.dataset, images=decoded, objects=objects)

    def check_segments(self, *, workers: int) -> None:
        """Leave out images whose PNG file of segments does not fit them or their list."""
        panoptic = self.dataset.panoptic
        if panoptic is None:
            return
        segments = defaultdict[int, list[int]](list)
        for entry in self.dataset.objects:
            segments[entry["image_id"]].append(entry["segment_id"])
        images = self.dataset.images
        work = [
            (panoptic.files[key], (entry["height"], entry["width"]), segments[key])
            for key, entry in images.items()
        ]
        check = functools.partial(_segment_faults, panoptic.folder)
        faults_of_images = ordered_map(check, work, workers=workers, title="segments")
        faulty = set()
        for key, faults in zip(images, faults_of_images, strict=True):
            for kind, message in faults:
                file = str(panoptic.folder / panoptic.files[key])
                self.report(EntryError(f"segments.{kind}", file, message))
                faulty.add(key)
        self.dataset = dataclasses.replace(
            self.dataset,
            images={key: entry for key, entry in images.items() if key not in faulty},
            objects=[e for e in self.dataset.objects if e["image_id"] not in faulty],
        )

    def copy_segments(self, folder: Path) -> None:
        """Copy the PNG files of segments, which lie beside a cleaned file; others have none."""
        panoptic = self.dataset.panoptic
        if panoptic is None:
            return
        for name in (panoptic.files[key] for key in self.dataset.images):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(panoptic.folder / name, target)

    def cleaned(self) -> dict[str, Any]:
        """Return what is left as the content of a COCO file, with the fields that LVIS adds."""
        content = {**self.data, **self.dataset.lists()}
        for key in ("images", "categories") if self.data else ():
            entries = [entry for entry in self.data[key] if isinstance(entry, dict)]
            by_id = {entry["id"]: entry for entry in entries if is_id(entry.get("id"))}
            content[key] = [by_id[entry["id"]] | entry for entry in content[key]]
        return content


def _segment_faults(
    folder: Path, work: tuple[str, tuple[int, int], list[int]]
) -> list[tuple[str, str]]:
    name, size, segments = work
    try:
        return [*find_faults(read_ids(folder / name), size, segments)]
    except OSError as error:
        return [("file", str(error))]


def check_file(file: Path, folder: Path | None, *, boxes_only: bool, name: str = "") -> CheckedPart:
    """Validate an annotation file in COCO format, of a part of a dataset if it has a `name`."""
    part = CheckedPart(name, file)
    part.data = load_lists(file)
    part.dataset = validate(
        file, part.data, folder=folder or "", boxes_only=boxes_only, report=part.report
    )
    return part


def check_parts(path: Path, *, boxes_only: bool) -> Iterator[CheckedPart]:
    """Validate the parts of a dataset in any format, see `open_source`."""
    errors: list[EntryError] = []
    source = open_source(path, report=errors.append)
    if not isinstance(source, ForeignDataset):
        for name, (file, folder) in source.items():
            yield check_file(file, folder, boxes_only=boxes_only, name=name)
        return
    for name, images in source.parts.items():
        part = CheckedPart(name, path)
        scored = {*images.names} if name != "train" else set[str]()
        part.dataset, lost, _ = read_labels(
            source, images, scored=scored, boxes_only=boxes_only, report=part.report
        )
        errors += [EntryError("images.file", name, "it cannot be read") for name in lost]
        for line in source.notes if part.name == next(iter(source.parts)) else ():
            part.note("data.yaml", line)
        for error in errors:  # those of VOC's files are found before any part, and told with it
            part.report(error)
        errors.clear()
        yield part
