"""Pictures of detections, and a file of them in COCO's format."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from numpy.typing import NDArray

from eva_data.coco import predictions
from eva_data.drawing.objects import DrawnObject, draw_objects
from eva_detection.inference.predictor import Category


def draw(
    image: NDArray[np.uint8], instances: Instances, class_names: Sequence[str]
) -> NDArray[np.uint8]:
    """Draw boxes, masks and labels; a class has one colour in every picture.

    Args:
        image: (H, W, 3) RGB.
        instances: Detections in coordinates of the image, masks as `pred_masks` or as codes in
            `pred_masks_rle`.
        class_names: Names in the order of `pred_classes`.

    Returns:
        (H * s, W * s, 3) RGB, with s = 1 for pictures of 512 px and more.

    Raises:
        ValueError: If a side is longer than can be drawn.
    """
    labels = instances.pred_classes.tolist()
    masks: Sequence[Any] = [None] * len(labels)
    if instances.has("pred_masks"):
        masks = list(instances.pred_masks.numpy())
    elif instances.has("pred_masks_rle"):
        masks = instances.pred_masks_rle
    columns = (instances.pred_boxes.tensor.tolist(), labels, instances.scores.tolist(), masks)
    objects = [
        DrawnObject(box, class_names[label], label, score, mask)
        for box, label, score, mask in zip(*columns, strict=True)
    ]
    return draw_objects(image, objects)


class PredictionsFile:
    """A COCO file of images, categories and predictions; `writing_predictions` opens one.

    Args:
        file: The file that receives them.
    """

    def __init__(self, file: predictions.PredictionsFile) -> None:
        self._file = file

    def add(self, instances: Instances, *, file_name: str, **more: Any) -> None:
        """Write the predictions of one image.

        Args:
            instances: Detections on the CPU, in coordinates of the image.
            file_name: Name of the image.
            **more: Further fields of the image's entry, such as the number of a frame.
        """
        height, width = instances.image_size
        found = instances_to_coco_json(instances, 0)
        if instances.has("pred_masks_rle"):
            for one, code in zip(found, instances.pred_masks_rle, strict=True):
                one["segmentation"] = code
        for one in found:
            del one["image_id"]
        self._file.add(found, file_name=file_name, height=height, width=width, **more)


@contextlib.contextmanager
def writing_predictions(file: Path, categories: Sequence[Category]) -> Iterator[PredictionsFile]:
    """Write predictions to a file that appears under its name at the end.

    Args:
        file: The file to write.
        categories: Ids and names, in the model's order.

    Yields:
        The file to add predictions to.

    Raises:
        UnwritableError: If the disk is full or the folder read-only, for example.
    """
    with predictions.writing_predictions(file, dict(categories)) as opened:
        yield PredictionsFile(opened)
