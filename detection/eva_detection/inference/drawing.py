"""Pictures of detections, and a file of them in COCO's format."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from detectron2.utils.colormap import colormap
from detectron2.utils.visualizer import GenericMask, Visualizer
from numpy.typing import NDArray
from pycocotools import mask as rle

from eva_data.coco import predictions
from eva_detection.inference.predictor import Category

_LONGEST_SIDE = 2**16 - 1  # of matplotlib's canvas, and of a JPEG
_ROWS = 256  # that are composed at once
_READABLE_SIDE = 512  # smaller pictures are enlarged, since labels would cover them


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
    scale = math.ceil(_READABLE_SIDE / max(image.shape[:2]))
    if max(image.shape[:2]) > _LONGEST_SIDE:
        raise ValueError(
            f"a side of {max(image.shape[:2]):,} px is longer than can be drawn: {_LONGEST_SIDE:,}"
        )
    visualizer = Visualizer(image, metadata={}, scale=scale)
    figure = visualizer.output
    for picture in figure.ax.images:  # for which matplotlib takes a hundred bytes a pixel
        picture.remove()
    figure.ax.set(xlim=(0, figure.width), ylim=(figure.height, 0))
    colours = [c for c in colormap(rgb=True, maximum=1) if np.ptp(c) > 0.3]  # no greys
    classes = instances.pred_classes.tolist()
    scores = instances.scores.tolist()
    masks = None
    if instances.has("pred_masks"):
        masks = [_outlined(mask) for mask in instances.pred_masks.numpy()]
    elif instances.has("pred_masks_rle"):
        masks = [_outlined(rle.decode(code)) for code in instances.pred_masks_rle]
    visualizer.overlay_instances(
        boxes=instances.pred_boxes,
        masks=masks,
        labels=[
            f"{class_names[index]} {score:.0%}"
            for index, score in zip(classes, scores, strict=True)
        ],
        assigned_colors=[colours[index % len(colours)] for index in classes],
        alpha=0.4,
    )
    figure.canvas.draw()
    return _composed(image, np.asarray(figure.canvas.buffer_rgba()), scale)


def _composed(
    image: NDArray[np.uint8], overlay: NDArray[np.uint8], scale: int
) -> NDArray[np.uint8]:
    """Draw the overlay (H * s, W * s, 4), with its alpha, on the enlarged image."""
    result = image.repeat(scale, axis=0).repeat(scale, axis=1)
    for start in range(0, len(result), _ROWS):
        rows = result[start : start + _ROWS]
        paint = overlay[start : start + _ROWS]
        alpha = paint[..., 3:].astype(np.uint32)
        mixed = rows * (255 - alpha) + paint[..., :3] * alpha
        rows[:] = (mixed + 127) // 255
    return result


def _outlined(mask: NDArray[Any]) -> GenericMask:
    """Replace a mask, which may have many pixels, by polygons."""
    height, width = mask.shape
    return GenericMask(GenericMask(mask, height, width).polygons, height, width)


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
