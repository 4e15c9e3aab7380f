"""Images read by the rules of `eva_data.images`, and samples of a batch drawn."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.registry import TRANSFORMS
from PIL import Image
from torch import Tensor

from eva_data.images import UnreadableImageError, inspect_image, read_rgb
from eva_report.drawing import overlay
from eva_report.first_batch import SAMPLES, denormalize, objects_tile
from eva_report.sheets import Tile

# How complete JPEG and PNG files end. OpenCV fills up what is cut off with grey.
_COMPLETE = (b"\xff\xd9", b"IEND\xaeB`\x82")
_USUAL = ("RGB", "L")  # modes of Pillow


@TRANSFORMS.register_module()
class LoadPicture(LoadImageFromFile):
    """mmcv's `LoadImageFromFile` (same arguments), for which a damaged or huge file is an error.

    JPEG and PNG files of one frame, in RGB or grey, are decoded by OpenCV, which is faster and
    gives the same pixels; all others, and what is cut off, by the one decoder of images. A file
    of some kB may claim gigabytes: more pixels than `EVA_MAX_IMAGE_PIXELS` are refused.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Add the image at `img_path` as `img` (H, W, 3), BGR."""
        if self.backend_args or self.file_client_args:  # of another store
            return super().transform(results)
        path = results["img_path"]
        try:
            facts = inspect_image(path, decode=False)
            if (self.color_type, self.imdecode_backend) != ("color", "cv2"):
                return super().transform(results)
            content, image = Path(path).read_bytes(), None
            # of other modes and of animations OpenCV makes other pixels
            usual = facts.mode in _USUAL and not (facts.animated or facts.transparent)
            if usual and content.endswith(_COMPLETE):
                with contextlib.suppress(cv2.error):
                    image = mmcv.imfrombytes(content, flag="color", backend="cv2")
            if image is None:
                image = np.ascontiguousarray(read_rgb(content, upright=True, name=path)[:, :, ::-1])
        except UnreadableImageError:
            if self.ignore_empty:
                return None
            raise
        if "tile" in results:
            x, y, width, height = results["tile"]
            image = image[y : y + height, x : x + width]
        results["img"] = image.astype(np.float32) if self.to_float32 else image
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results


def first_samples(
    scale: Any, metainfo: Mapping[str, Any], inputs: Tensor, data_samples: Any, **_: Any
) -> Iterator[Tile]:
    """Draw the first images (B, 3, H, W) that a data preprocessor scaled, with their labels."""
    names = metainfo.get("classes") or ()
    mean, std = ((value.flatten() / 255).tolist() for value in (scale.mean, scale.std))
    shown = denormalize(inputs[:SAMPLES], mean, std)
    for rgb, sample in zip(shown, data_samples, strict=False):
        if "gt_sem_seg" in sample:
            maps = sample.gt_sem_seg  # of mmsegmentation, or of mmdetection's panoptic segments
            labels = (maps.data if "data" in maps else maps.sem_seg)[0].cpu().numpy()
            class_names = ", ".join(
                names[label] for label in np.unique(labels) if label < len(names)
            )
            yield Tile(Image.fromarray(overlay(rgb, labels, metainfo["palette"])), class_names, "")
            continue
        truth, (height, width) = sample.gt_instances, sample.img_shape  # padding ends the image
        masks = truth.masks.to_ndarray()[:, :height, :width] if "masks" in truth else None
        boxes = getattr(truth.bboxes, "tensor", truth.bboxes)
        yield objects_tile(rgb[:height, :width], boxes, truth.labels, masks, names=names)
