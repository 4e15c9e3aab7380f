"""Reading pictures and label maps for training and tests, by the rules of `eva_data.pictures`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS
from numpy.typing import NDArray

from eva_data.pictures import UnreadableImageError, inspect_picture, read_rgb
from eva_segmentation.data.label_maps import LabelMapError, LabelTable, read_label_map

# How complete JPEG and PNG files end. OpenCV fills up what is cut off with grey.
_COMPLETE = (b"\xff\xd9", b"IEND\xaeB`\x82")
_USUAL = ("RGB", "L")  # modes of Pillow
_LARGEST = 255  # label of mmsegmentation


@TRANSFORMS.register_module()
class LoadPicture(LoadImageFromFile):
    """mmcv's `LoadImageFromFile` (same arguments), for which a damaged or huge file is an error.

    JPEG and PNG files of one frame, in RGB or grey, are decoded by OpenCV, which is faster and
    gives the same pixels; all others, and what is cut off, by the one decoder of pictures. A file
    of some kB may claim gigabytes: more pixels than `EVA_MAX_IMAGE_PIXELS` are refused.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Add the picture as `img` (H, W, 3), BGR.

        Args:
            results: Record with `img_path`.

        Raises:
            UnreadableImageError: If the file cannot be read.
        """
        if self.backend_args or self.file_client_args:  # of another store
            return super().transform(results)
        try:
            facts = inspect_picture(results["img_path"], decode=False)
            if (self.color_type, self.imdecode_backend) != ("color", "cv2"):
                return super().transform(results)
            # of other modes and of animations OpenCV makes other pixels
            usual = facts.mode in _USUAL and not facts.animated
            image = _decode(results["img_path"], by_opencv=usual)
        except UnreadableImageError:
            if self.ignore_empty:
                return None
            raise
        results["img"] = image.astype(np.float32) if self.to_float32 else image
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results


def _decode(path: str, *, by_opencv: bool) -> NDArray[np.uint8]:
    content = Path(path).read_bytes()
    if by_opencv and content.endswith(_COMPLETE):
        try:
            image = mmcv.imfrombytes(content, flag="color", backend="cv2")
        except cv2.error:
            image = None
        if image is not None:
            return image
    return np.ascontiguousarray(read_rgb(content, upright=True, name=path)[:, :, ::-1])


@TRANSFORMS.register_module()
class LoadCheckedAnnotations(LoadAnnotations):
    """mmsegmentation's `LoadAnnotations` (same arguments), which refuses what does not fit.

    A label map of another size than its picture would be trained on, and labels above 255 would
    become others.
    """

    def _load_seg_map(self, results: dict[str, Any]) -> None:
        path, size = results["seg_map_path"], tuple(results["ori_shape"])
        if self.backend_args:
            super()._load_seg_map(results)
            found = results["gt_seg_map"].shape
        else:
            found = _header(path)
        if found != size:
            raise LabelMapError(
                f"{path} is {found} (height, width) and its picture {results['img_path']} "
                f"{size}: they must be equal"
            )
        if not self.backend_args:
            try:
                super()._load_seg_map(results)
            except (OSError, SyntaxError, ValueError) as error:
                raise LabelMapError(f"cannot read {path} as a label map: {error}") from error


def _header(path: str) -> tuple[int, int]:
    """Read height and width of a label map; of the odd ones the values are looked at."""
    try:
        facts = inspect_picture(path, decode=False)
    except UnreadableImageError as error:
        raise LabelMapError(str(error)) from error
    usual = facts.mode in ("1", "L", "P")
    if not usual and (largest := int(read_label_map(Path(path)).max(initial=0))) > _LARGEST:
        raise LabelMapError(
            f"{path} has the label {largest}; mmsegmentation has labels up to {_LARGEST}: give the "
            "data as your own, with a class file"
        )
    return facts.height, facts.width


@TRANSFORMS.register_module()
class LoadLabelMap(BaseTransform):
    """Reads a label map, and refuses labels that nobody named.

    In place of mmsegmentation's `LoadAnnotations`, for which an unknown label is one more class or
    crashes the loss.

    Args:
        labels: Value of each class in the files, in the order of the classes.
        ignore: Values without a class.
    """

    def __init__(self, *, labels: Sequence[int], ignore: Sequence[int]) -> None:
        self._table = LabelTable(labels, ignore)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the class indices as `gt_seg_map` (H, W).

        Args:
            results: Record with `seg_map_path`, and `ori_shape` of the picture.

        Raises:
            LabelMapError: A ValueError, if the file cannot be read, has an unknown label or another
                size than the picture.
        """
        path = results["seg_map_path"]
        values = read_label_map(Path(path))
        if values.shape != tuple(results["ori_shape"]):
            raise LabelMapError(
                f"{path} is {values.shape} (height, width) and its picture {results['img_path']} "
                f"{tuple(results['ori_shape'])}: they must be equal"
            )
        results["gt_seg_map"] = self._table(values, path)
        results["seg_fields"].append("gt_seg_map")
        return results
