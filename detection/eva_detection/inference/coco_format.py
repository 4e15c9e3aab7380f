"""Detections as COCO's format has them."""

from typing import Any

from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances


def as_coco(instances: Instances) -> list[dict[str, Any]]:
    """Write the detections of an image in COCO's format of results, without the image.

    Args:
        instances: Detections on the CPU, in coordinates of the image, masks as `pred_masks` or as
            codes in `pred_masks_rle`.

    Returns:
        `category_id`, the index of the class, `bbox`, `score`, and `segmentation` where there are
        masks, of each.
    """
    found: list[dict[str, Any]] = instances_to_coco_json(instances, 0)
    if instances.has("pred_masks_rle"):
        for one, code in zip(found, instances.pred_masks_rle, strict=True):
            one["segmentation"] = code
    for one in found:
        del one["image_id"]
    return found
