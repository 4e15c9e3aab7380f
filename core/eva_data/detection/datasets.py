"""Validated detection datasets in memory, in COCO's form, and the error of an entry."""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from eva_data.classes import folded, list_names
from eva_data.detection.keypoints import KeypointNames
from eva_data.detection.panoptic import Panoptic, group_segments
from eva_data.detection.rules import Size
from eva_data.files import display_path
from eva_data.saving import write_text

Entry = dict[str, Any]

PART_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_TINY = 8  # px of a box at the training size, below which little of it is seen
_ROUNDED = 2  # px by which boxes may end outside their images


class EntryError(ValueError):
    """An entry of a dataset that cannot be used: list and field, file and entry, what is wrong."""

    def __init__(self, kind: str, location: str, message: str) -> None:
        super().__init__(f"{location}: {message}")
        self.kind, self.location, self.message = kind, location, message


Report = Callable[[EntryError], None]  # takes an error; where it returns, the entry is left out


def refuse(error: EntryError) -> None:
    """Raise an error at once, as training does."""
    raise error


@dataclass(frozen=True, kw_only=True)
class CocoDataset:
    """A validated dataset.

    Attributes:
        path: Annotation file.
        folder: Image folder; empty where only the annotations were read.
        categories: Name of each category id, in the order of the ids.
        images: Image id -> `id`, `file_name`, `width`, `height`.
        objects: `image_id`, `category_id`, `bbox` (x, y, width, height), `area`, `iscrowd` (0 or
            1), `segmentation` where it can be used: polygons or a compressed RLE; `keypoints` where
            categories list them: x, y, visibility of each, 0 of those that are not labelled;
            `segment_id` of panoptic segments, whose masks are in PNG files.
        left_out: Number of objects left out because their box has no area in the image.
        lvis: Whether the file states which classes are not annotated, as LVIS does.
        whole: The dataset of complete images, where those here are tiles of them.
        groups: Names that are supercategories of other categories: no classes, in exports of
            Roboflow.
        keypoints: Names and skeleton of the keypoints that categories list; None without any.
        panoptic: PNG files and things of a file in COCO's panoptic format; None of others.
    """

    path: Path
    folder: str = ""
    categories: Mapping[int, str]
    images: Mapping[int, Entry]
    objects: list[Entry]
    left_out: int = 0
    lvis: bool = False
    whole: "CocoDataset | None" = None
    groups: frozenset[str] = frozenset()
    keypoints: KeypointNames | None = None
    panoptic: Panoptic | None = None

    @property
    def empty_classes(self) -> list[str]:
        """Classes that no object is of; none of LVIS, whose files list the classes of all parts."""
        seen = {annotation["category_id"] for annotation in self.instances}
        names = {key: name for key, name in self.categories.items() if name not in self.groups}
        return [] if self.lvis else [name for key, name in names.items() if key not in seen]

    @property
    def files(self) -> list[Path]:
        """The files of the images, each once: tiles of an image share its file."""
        names = dict.fromkeys(entry["file_name"] for entry in self.images.values())
        return [Path(self.folder, name) for name in names]

    def count_images(self, *, with_objects: bool) -> int:
        """Count the images, or those of them with objects that are not crowds."""
        seen = {annotation["image_id"] for annotation in self.instances}
        return len(seen) if with_objects else len(self.images)

    @property
    def instances(self) -> list[Entry]:
        """Objects that are not crowds."""
        return [annotation for annotation in self.objects if not annotation["iscrowd"]]

    @property
    def without_masks(self) -> list[Entry]:
        """Instances without a usable mask; panoptic segments have theirs in PNG files."""
        instances = () if self.panoptic else self.instances
        return [annotation for annotation in instances if "segmentation" not in annotation]

    @property
    def rle_count(self) -> int:
        """Number of instances whose mask is an RLE and not polygons."""
        return sum(isinstance(entry.get("segmentation"), dict) for entry in self.instances)

    def describe(self) -> str:
        """Describe the content in one line."""
        instances = self.instances
        masks = len(instances) - len(self.without_masks)
        empty = len(self.images) - len({annotation["image_id"] for annotation in instances})
        classes = "1 class" if len(self.categories) == 1 else f"{len(self.categories)} classes"
        description = (
            f"{self.path}: {len(self.images)} images, {empty} of them without objects; "
            f"{len(instances)} objects of {classes}, {masks} with masks "
            f"({self.rle_count} RLE), {len(self.objects) - len(instances)} crowds"
        )
        if self.left_out:
            description += (
                f"; {self.left_out} objects are left out: their box has no area in the image"
            )
        outside = sum(map(self._ends_outside, instances))
        if outside and outside >= len(instances) / 10:
            description += (
                f"; boxes that end outside their images: {outside} (a bbox is x, y, width, height)"
            )
        return description

    def _ends_outside(self, annotation: Entry) -> bool:
        x, y, width, height = annotation["bbox"]
        rows, columns = image_size(self.images[annotation["image_id"]])
        return bool(x + width > columns + _ROUNDED or y + height > rows + _ROUNDED)

    def misfits_of_scores(self, most: int) -> list[str]:
        """Say, in a line, that objects of an image cannot all be found.

        Args:
            most: Detections of a class in an image that count.
        """
        counts = Counter((entry["image_id"], entry["category_id"]) for entry in self.instances)
        crowded = {image for (image, _), count in counts.items() if count > most}
        if not crowded:
            return []
        return [
            f"{len(crowded)} of {len(self.images)} images for evaluation have more than {most} "
            f"objects of a class (up to {max(counts.values())}), and only {most} detections count"
        ]

    def misfits(self, *, side: int, most: int) -> list[str]:
        """Say what of the data does not fit a detector, each in one line.

        Args:
            side: Pixels to which the longer side of an image is resized in training.
            most: Objects that it reports in an image; 0 for no limit.
        """
        lines, total = [], len(self.images)
        longest = {key: max(image_size(image)) for key, image in self.images.items()}
        counts, boxes = Counter[int](), list[float]()
        for annotation in self.instances:
            key, (_, _, width, height) = annotation["image_id"], annotation["bbox"]
            counts[key] += 1
            boxes.append(math.sqrt(width * height) * side / longest[key])
        crowded = [count for count in counts.values() if count > most > 0]
        if crowded:
            lines.append(
                f"{len(crowded)} of {total} images have more objects, up to {max(crowded)}, than "
                f"the {most} detections of an image that the recipe keeps"
            )
        if side and boxes and median(boxes) < _TINY:
            lines.append(
                f"the median box has {median(boxes):.1f} px at the training size of {side} px: "
                f"take a larger --image-size, or tiles with --tile {side}"
            )
        large = [length for length in longest.values() if length > 2 * side > 0]
        if large:
            lines.append(
                f"{len(large)} of {total} images are more than twice the training size of {side} "
                f"px, up to {max(large):,} px: they are shrunk. --tile {side} trains on tiles of "
                f"them, --slice {side} detects in tiles"
            )
        return lines

    def reason_against_masks(self, *, training: bool) -> str | None:
        """Return why a detector cannot have masks, or None; some masks alone are an error."""
        lacking, total = self.without_masks, len(self.instances)
        if training and 0 < len(lacking) < total:
            first = self.images[lacking[0]["image_id"]]
            raise EntryError(
                "annotations.segmentation",
                str(self.path),
                f"{len(lacking)} of {total} objects have no usable mask (the first: bbox "
                f"{lacking[0]['bbox']} in image {first['id']}, {first['file_name']}): complete "
                "them, or train boxes alone with --boxes-only",
            )
        return (
            f"no object of {display_path(self.path)} has a mask"
            if len(lacking) == total > 0
            else None
        )

    def check_categories(self, expected: Mapping[int, str], *, of: str) -> None:
        """Refuse an id that a detector does not have, or has by another name, case aside."""
        for key, name in self.categories.items():
            if key not in expected or folded(expected[key]) != folded(name):
                actual = repr(expected[key]) if key in expected else "missing"
                raise ValueError(
                    f"{self.path} has category {key} {name!r}; in {of} it is {actual}: both need "
                    "the same ids and names"
                )

    def check_keypoints(self, expected: KeypointNames | None, *, of: str) -> None:
        """Refuse other keypoints than those that others list, or that a detector has learnt."""
        if self.keypoints != expected:
            own, other = (
                list_names(points.names) if points else "none"
                for points in (self.keypoints, expected)
            )
            raise ValueError(f"{self.path} lists the keypoints {own}; {of} lists {other}")

    def check_fits(self, train: "CocoDataset") -> None:
        """Refuse other categories, keypoints or things of panoptic segments than training has."""
        self.check_categories(train.categories, of=str(train.path))
        self.check_keypoints(train.keypoints, of=str(train.path))
        things, expected = (part.panoptic and part.panoptic.things for part in (self, train))
        if things != expected:
            raise ValueError(
                f"{self.path} and {train.path} need segments of the same things, by `isthing` of "
                "categories"
            )

    def lists(self) -> dict[str, list[Entry]]:
        """Return the content as the lists of COCO's format; object ids count from 1."""
        points = self.keypoints
        categories: list[Entry] = [{"id": k, "name": name} for k, name in self.categories.items()]
        for category in categories if points else ():
            category |= points.as_json() if points and category["id"] in points.categories else {}
        annotations = [{"id": n, **entry} for n, entry in enumerate(self.objects, start=1)]
        if self.panoptic:
            annotations = group_segments(self.objects, self.images, self.panoptic.files)
            for category in categories:
                category["isthing"] = int(category["id"] in self.panoptic.things)
        images = [dict(entry) for entry in self.images.values()]
        return {"images": images, "categories": categories, "annotations": annotations}

    def for_scoring(self, categories: Mapping[int, str]) -> dict[str, list[Entry]]:
        """Return the lists as COCO's scorers read them: all categories, and a mask for crowds."""
        lists = self.lists()
        listed = {category["id"]: category for category in lists["categories"]}
        lists["categories"] = [
            {**listed.get(key, {}), "id": key, "name": name} for key, name in categories.items()
        ]
        for annotation in lists["annotations"]:
            if "keypoints" in annotation:
                annotation["num_keypoints"] = sum(map(bool, annotation["keypoints"][2::3]))
            x, y, width, height = annotation["bbox"]
            corners = [x, y, x + width, y, x + width, y + height, x, y + height]
            annotation.setdefault("segmentation", [corners])
        return lists

    def write(self, *, continues: bool) -> None:
        """Write the file; one with other content is an error where a run `continues`."""
        lists = (self.whole or self).lists()
        lines = {key: ",\n".join(map(json.dumps, entries)) for key, entries in lists.items()}
        content = "{" + ",\n".join(f'"{key}": [{lines}]' for key, lines in lines.items()) + "}\n"
        if self.path.is_file():
            if self.path.read_bytes() == content.encode():
                return
            if continues:
                raise ValueError(
                    "the data are not those that the run began with, which are in "
                    f"{self.path}: bring them back, or choose another output"
                )
        write_text(self.path, content)


def image_size(image: Entry) -> Size:
    """Return height and width in pixels."""
    return image["height"], image["width"]
