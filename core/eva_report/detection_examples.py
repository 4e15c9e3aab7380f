"""Images with their labels and predictions side by side, for the galleries of a detector's page."""

import logging
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pycocotools.mask as mask_api
from PIL import Image

from eva_data.bands import Bands, draw_pixels, read_pixels
from eva_data.images import UnreadableImageError
from eva_report.content import Example, TitledImage
from eva_report.drawing import DrawnObject, Pixels, draw_objects
from eva_report.matching import DetectionTruth

logger = logging.getLogger(__name__)

Entry = Mapping[str, Any]  # an object in COCO's format
_SIDE = 1024  # px; larger images are reduced, since the page has no room for them


class DetectionExamples:
    """Draws the images of an evaluation.

    Args:
        truth: Labels.
        files: Image id -> file.
        bands: Bands of the images; None for RGB.
    """

    def __init__(
        self, truth: DetectionTruth, files: Mapping[Any, Path], bands: Bands | None = None
    ) -> None:
        self._truth, self._files, self._bands = truth, files, bands

    def image_name(self, image: Hashable) -> str:
        """Return the name of an image's file, or its id."""
        file = self._files.get(image)
        return str(self._truth.images[image].get("file_name") or (file.name if file else image))

    def draw(
        self, captions: Mapping[Hashable, str], predictions: Iterable[Entry]
    ) -> dict[Hashable, Example]:
        """Draw labels and predictions of some images: id -> example, without unreadable images."""
        sides = {
            "truth": _by_image(self._truth.annotations, captions),
            "prediction": _by_image(predictions, captions),
        }
        examples = {}
        for image, caption in captions.items():
            try:
                rgb = draw_pixels(read_pixels(self._files[image], self._bands), self._bands)
            except UnreadableImageError as error:  # left out by the evaluation, or was whole then
                logger.warning("%s is not drawn: %s", caption, error)
                continue
            shown = [
                TitledImage(title=side, image=self._drawing(rgb, objects[image]))
                for side, objects in sides.items()
            ]
            examples[image] = Example(caption=caption, images=shown)
        return examples

    def _drawing(self, rgb: Pixels, entries: Sequence[Entry]) -> Image.Image:
        truth, drawn = self._truth, []
        for entry in (entry for entry in entries if entry["category_id"] in truth.numbers):
            x, y, width, height = entry["bbox"]
            number = truth.numbers[entry["category_id"]]
            crowd = " (crowd)" if entry.get("iscrowd") else ""
            drawn.append(
                DrawnObject(
                    box=(x, y, x + width, y + height),
                    name=truth.names[number] + crowd,
                    label=number,
                    score=entry.get("score"),
                    mask=_mask(entry.get("segmentation"), rgb.shape[:2]),
                    keypoints=entry.get("keypoints") or (),
                    skeleton=truth.skeletons[entry["category_id"]],
                )
            )
        return Image.fromarray(draw_objects(rgb, drawn, longest=_SIDE))


def _by_image(
    entries: Iterable[Entry], images: Collection[Hashable]
) -> dict[Hashable, list[Entry]]:
    selected: dict[Hashable, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry["image_id"] in images:
            selected[entry["image_id"]].append(entry)
    return selected


def _mask(segmentation: Any, size: tuple[int, ...]) -> dict[str, Any] | None:
    """Return polygons or run lengths as a compressed code; None where there is no mask."""
    if not segmentation:
        return None
    code = segmentation
    if isinstance(segmentation, list) or isinstance(segmentation.get("counts"), list):
        code = mask_api.frPyObjects(segmentation, *size)
    if isinstance(code, list):
        code = mask_api.merge(code)
    return code if list(code["size"]) == list(size) else None  # of a turned image
