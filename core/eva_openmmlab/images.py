"""Images read by the rules of `eva_data.images`, and samples of a batch drawn."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.registry import TRANSFORMS
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from eva_data.bands import Bands
from eva_data.images import UnreadableImageError, inspect_image, read_rgb
from eva_report.drawing import overlay
from eva_report.first_batch import SAMPLES, denormalize, denormalize_bands, objects_tile
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

    With `bands`, see `eva_data.bands.Bands.as_json`, it adds these (H, W, N), scaled to 0..255.
    """

    def __init__(self, *, bands: Mapping[str, Any] | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self._bands = Bands.from_json(bands)

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Add the image at `img_path` as `img` (H, W, 3), BGR."""
        if self.backend_args or self.file_client_args:  # of another store
            return super().transform(results)
        path = results["img_path"]
        try:
            if self._bands is not None:
                return self._add(results, self._bands.scale(self._bands.read(path)))
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
        return self._add(results, image.astype(np.float32) if self.to_float32 else image)

    @staticmethod
    def _add(results: dict[str, Any], image: NDArray[Any]) -> dict[str, Any]:
        if "tile" in results:
            x, y, width, height = results["tile"]
            image = image[y : y + height, x : x + width]
        results["img"] = image
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results


class BandPreprocessor:
    """Part of a data preprocessor of a framework that normalises bands; others know three alone."""

    def __init__(self, *, bands: Mapping[str, Any], **settings: Any) -> None:
        super().__init__(**settings)
        self.bands = Bands.from_json(bands)
        for name in ("mean", "std"):
            values = 255 * torch.tensor(bands[name]).view(-1, 1, 1)
            self.register_buffer(name, values, persistent=False)  # type: ignore[attr-defined]
        self._enable_normalize = True


def bands_of(preprocessor: Any) -> Bands | None:
    """Return the bands that a model's data preprocessor normalises; None for RGB."""
    return getattr(preprocessor, "bands", None)


def first_samples(
    scale: Any, metainfo: Mapping[str, Any], inputs: Tensor, data_samples: Any, **_: Any
) -> Iterator[Tile]:
    """Draw the first images (B, 3, H, W) that a data preprocessor scaled, with their labels."""
    names, bands = metainfo.get("classes") or (), bands_of(scale)
    mean, std = ((value.flatten() / 255).tolist() for value in (scale.mean, scale.std))
    inputs = inputs[:SAMPLES]
    shown = denormalize_bands(inputs, bands) if bands else denormalize(inputs, mean, std)
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
