"""Reading label maps for training and tests, by the rules of `eva_data.images`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmcv.transforms import BaseTransform
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS

from eva_data.images import UnreadableImageError, inspect_image
from eva_openmmlab.pictures import LoadPicture
from eva_segmentation.data.label_maps import LabelMapError, LabelTable, read_label_map

_LARGEST = 255  # label of mmsegmentation
# for all of mmsegmentation, also its inferencer: same arguments, same pixels of sound files
TRANSFORMS.register_module(name="LoadImageFromFile", module=LoadPicture)


@TRANSFORMS.register_module()
class LoadCheckedAnnotations(LoadAnnotations):
    """mmsegmentation's `LoadAnnotations` (same arguments), which refuses what does not fit.

    A label map of another size than its picture would be trained on, and labels above 255 would
    become others. A picture without label map, as of an inferencer, goes through.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the class indices as `gt_seg_map` (H, W), if the record names a label map.

        Args:
            results: Record, with `seg_map_path` in training and tests.

        Raises:
            LabelMapError: A ValueError, if the file cannot be read or has another size.
        """
        if "seg_map_path" not in results:
            return results
        read: dict[str, Any] = super().transform(results)
        return read

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
        facts = inspect_image(path, decode=False)
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
        """Add the class indices as `gt_seg_map` (H, W), if the record names a label map.

        Args:
            results: Record with `ori_shape` of the picture, and `seg_map_path` in training and
                tests.

        Raises:
            LabelMapError: A ValueError, if the file cannot be read, has an unknown label or another
                size than the picture.
        """
        if "seg_map_path" not in results:
            return results
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
