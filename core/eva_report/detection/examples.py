"""Pictures of a detector's report: truth and prediction side by side, worst and best first."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_api
from numpy.typing import NDArray
from PIL import Image

from eva_data.images import UnreadableImageError, read_rgb
from eva_report.content import Example, Gallery, Picture
from eva_report.detection.matching import ImageMatches
from eva_report.drawing.objects import DrawnObject, draw_objects

WORST, BEST = 8, 4
_TRIED = 4  # times as many pictures may be unreadable
_SIDE = 1024  # px; larger pictures are reduced, since the page has no room for them


@dataclass(frozen=True)
class Labelled:
    """A data set to draw.

    Attributes:
        truth: Labels in COCO's format.
        images: Folder of the images, or image id -> file.
        numbers: Category id -> number of the class.
        names: Names of the classes, by number.
    """

    truth: Mapping[str, Any]
    images: Path | Mapping[Any, Path]
    numbers: Mapping[Hashable, int]
    names: Sequence[str]

    def file(self, image: Hashable) -> Path | None:
        """Return the file of an image, None if it is not known."""
        if not isinstance(self.images, Path):
            return self.images.get(image)
        name = self.entries[image].get("file_name")
        return self.images / name if name else None

    @cached_property
    def entries(self) -> dict[Hashable, Mapping[str, Any]]:
        """Return the entry of each image by its id."""
        return {one["id"]: one for one in self.truth["images"]}


def galleries(
    data: Labelled,
    matches: Mapping[Hashable, ImageMatches],
    predictions: Iterable[Mapping[str, Any]],
    *,
    threshold: float,
) -> list[Gallery]:
    """Draw the worst and the best pictures, by their F1 at the threshold.

    Args:
        data: Labels and pictures.
        matches: Image id -> its labels, predictions and what belongs together.
        predictions: Predictions in COCO's format of results.
        threshold: Least score of a prediction.

    Returns:
        Up to `WORST` pictures with mistakes, and up to `BEST` others.
    """
    counts = {image: one.counts(threshold) for image, one in matches.items()}
    busy = [image for image, (_, objects, found) in counts.items() if objects + found]
    worst = sorted(busy, key=lambda image: (_f1(counts[image]), -_mistakes(counts[image])))
    worst = [image for image in worst if _mistakes(counts[image])][: _TRIED * WORST]
    best = sorted(busy, key=lambda image: (-_f1(counts[image]), -counts[image][1]))
    best = [image for image in best if counts[image][0]][: _TRIED * BEST]
    drawer = _Drawer(data, counts, {*worst, *best}, predictions, threshold)
    made: list[Gallery] = []
    for title, images, most, text in (
        ("Worst pictures", worst, WORST, "those with the lowest F1 come first"),
        ("Best pictures", best, BEST, "those with the highest F1 and the most objects come first"),
    ):
        examples, lost = drawer.examples(images, most)
        rule = f"Objects found and named at a score of {threshold:g} and an IoU of 0.5; {text}."
        if lost:
            rule += f" {len(lost)} of them could not be read and are left out, such as {lost[0]}."
        if examples or lost:
            made.append(Gallery(title=title, examples=examples, text=rule))
    return made


def _mistakes(counts: tuple[int, int, int]) -> int:
    right, objects, found = counts
    return objects + found - 2 * right


def _f1(counts: tuple[int, int, int]) -> float:
    right, objects, found = counts
    return 2 * right / (objects + found)


class _Drawer:
    def __init__(
        self,
        data: Labelled,
        counts: Mapping[Hashable, tuple[int, int, int]],
        wanted: set[Hashable],
        predictions: Iterable[Mapping[str, Any]],
        threshold: float,
    ) -> None:
        self._data, self._counts, self._entries = data, counts, data.entries
        self._drawn: set[Hashable] = set()
        self._truth = _by_image(data.truth.get("annotations") or (), wanted)
        passing = (one for one in predictions if one["score"] >= threshold)
        self._found = _by_image(passing, wanted)

    def examples(self, images: Sequence[Hashable], most: int) -> tuple[list[Example], list[str]]:
        """Draw the first readable pictures that are not drawn yet; name the unreadable ones."""
        made: list[Example] = []
        lost: list[str] = []
        for image in images:
            if len(made) == most:
                break
            if image in self._drawn:
                continue
            file = self._data.file(image)
            name = str(self._entries[image].get("file_name") or (file.name if file else image))
            try:
                rgb = read_rgb(file, upright=True) if file else None
            except (UnreadableImageError, OSError):
                rgb = None
            if rgb is None:
                lost.append(name)
                continue
            self._drawn.add(image)
            made.append(self._example(image, name, rgb))
        return made, lost

    def _example(self, image: Hashable, name: str, rgb: NDArray[np.uint8]) -> Example:
        right, objects, found = self._counts[image]
        caption = f"{name}: {right} of {objects} found, {found - right} false"
        sides = (self._truth[image], "truth"), (self._found[image], "prediction")
        pictures = [
            Picture(title=title, image=Image.fromarray(self._drawing(rgb, ones)))
            for ones, title in sides
        ]
        return Example(caption=caption, pictures=pictures)

    def _drawing(
        self, rgb: NDArray[np.uint8], ones: Sequence[Mapping[str, Any]]
    ) -> NDArray[np.uint8]:
        drawn = []
        for one in ones:
            x, y, width, height = one["bbox"]
            if (number := self._data.numbers.get(one["category_id"])) is None:
                continue
            name = self._data.names[number] + (" (crowd)" if one.get("iscrowd") else "")
            mask = _mask(one.get("segmentation"), rgb.shape[:2])
            box = (x, y, x + width, y + height)
            drawn.append(DrawnObject(box, name, number, one.get("score"), mask))
        return draw_objects(rgb, drawn, longest=_SIDE)


def _by_image(
    ones: Iterable[Mapping[str, Any]], wanted: set[Hashable]
) -> dict[Hashable, list[Mapping[str, Any]]]:
    found: dict[Hashable, list[Mapping[str, Any]]] = defaultdict(list)
    for one in ones:
        if one["image_id"] in wanted:
            found[one["image_id"]].append(one)
    return found


def _mask(segmentation: Any, size: tuple[int, ...]) -> dict[str, Any] | None:
    """Return polygons or run lengths as a compressed code; None where there is no mask."""
    if not segmentation:
        return None
    code = segmentation
    if isinstance(segmentation, list) or isinstance(segmentation.get("counts"), list):
        code = mask_api.frPyObjects(segmentation, *size)
    if isinstance(code, list):
        code = mask_api.merge(code)
    return code if list(code["size"]) == list(size) else None  # of a turned picture
