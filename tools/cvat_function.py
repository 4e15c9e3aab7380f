"""Function for CVAT's automatic annotation: masks of a detector or segmentor, or boxes."""

from typing import Any

import cvat_sdk.auto_annotation as cvataa
import numpy as np
import pycocotools.mask as mask_api
from cvat_sdk.masks import encode_mask
from PIL import Image

from eva_command.label import open_model
from eva_data.label_files import TOLERANCE, is_seen, outline

_LEAST, _DEFAULT = 0.05, 0.5  # score that is kept at all; score without --conf-threshold


class Function:
    """A model in CVAT's protocol; `options` are `recipe`, `task` and `device` of `eva label`."""

    def __init__(self, weights: str, **options: Any) -> None:
        names, self._find = open_model(weights, score_threshold=_LEAST, **options)
        labels = [cvataa.label_spec(name, at, type="any") for at, name in enumerate(names)]
        self.spec = cvataa.DetectionFunctionSpec(labels=labels)

    def detect(self, context: cvataa.DetectionFunctionContext, image: Image.Image) -> list[Any]:
        """Annotate an image: a mask, polygon or rectangle for each object."""
        least = _DEFAULT if context.conf_threshold is None else context.conf_threshold
        detections = filter(is_seen, self._find(np.asarray(image.convert("RGB"))))
        shapes: list[Any] = []
        for detection in detections:
            if detection.get("score", 1) < least:
                continue
            label, (x, y, width, height) = detection["category_id"], detection["bbox"]
            if "segmentation" not in detection:
                shapes.append(cvataa.rectangle(label, [x, y, x + width, y + height]))
                continue
            mask = mask_api.decode(detection["segmentation"])
            if context.conv_mask_to_poly:
                points = outline(mask, tolerance=TOLERANCE).ravel().tolist()
                shapes.append(cvataa.polygon(label, points))
            else:
                shapes.append(cvataa.mask(label, encode_mask(mask.astype(bool))))
        return shapes


create = Function
