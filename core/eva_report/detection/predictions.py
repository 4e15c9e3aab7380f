"""Predictions of a detector as a file in COCO's format, written as they come."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import pycocotools.mask as mask_api

from eva_data.files import replacing


class PredictionsFile:
    """A COCO file of images, categories and predictions.

    It holds what an annotation file holds, and a score for each object, so `pycocotools.COCO`
    reads it. `writing_predictions` opens one.

    Args:
        stream: The open file.
        categories: Id -> name, in the model's order.
    """

    def __init__(self, stream: TextIO, categories: Mapping[int, str]) -> None:
        self._stream = stream
        self._categories = categories
        self._ids = list(categories)
        self._images: list[dict[str, Any]] = []
        self._count = 0
        stream.write('{"annotations": [')

    def add(
        self,
        detections: Iterable[Mapping[str, Any]],
        *,
        file_name: str,
        height: int,
        width: int,
        **more: Any,
    ) -> None:
        """Write the predictions of one image.

        Args:
            detections: Each with `category_id`, the index of its class, `bbox` (x, y, width,
                height), `score`, and `segmentation` as a compressed code where there is a mask.
            file_name: Name of the image.
            height: Height of the image in px.
            width: Width of the image in px.
            **more: Further fields of the image's entry, such as the number of a frame.
        """
        image_id = len(self._images) + 1
        entry = {"id": image_id, "file_name": file_name, "width": width, "height": height}
        self._images.append(entry | more)
        for found in detections:
            mask, box = found.get("segmentation"), found["bbox"]
            area = float(mask_api.area(mask)) if mask else box[2] * box[3]
            category = self._ids[found["category_id"]]
            self._stream.write(",\n" if self._count else "\n")
            self._count += 1
            one = {"id": self._count, "image_id": image_id, **found, "category_id": category}
            json.dump({**one, "area": area, "iscrowd": 0}, self._stream)

    def finish(self) -> None:
        """Write what follows the predictions."""
        categories = [{"id": key, "name": name} for key, name in self._categories.items()]
        self._stream.write('\n],\n"images": ' + json.dumps(self._images))
        self._stream.write(',\n"categories": ' + json.dumps(categories) + "}\n")


@contextlib.contextmanager
def writing_predictions(file: Path, categories: Mapping[int, str]) -> Iterator[PredictionsFile]:
    """Write predictions to a file that appears under its name at the end.

    Args:
        file: The file to write.
        categories: Id -> name, in the model's order.

    Yields:
        The file to add predictions to.

    Raises:
        UnwritableError: If the disk is full or the folder read-only, for example.
    """
    with replacing(file) as part, part.open("w", encoding="utf-8") as stream:
        predictions = PredictionsFile(stream, categories)
        yield predictions
        predictions.finish()
