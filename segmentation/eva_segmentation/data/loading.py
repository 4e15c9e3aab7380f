"""A dataset of two folders, and the transforms that read and pad images and label maps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.models import SegDataPreProcessor
from mmseg.registry import DATASETS, MODELS, TRANSFORMS

from eva_data.images import inspect_image
from eva_data.label_maps import (
    IGNORED,
    LabelMapError,
    LabelTable,
    Pair,
    find_pairs,
    hold_out,
    read_label_map,
    require_equal_size,
)
from eva_openmmlab.images import BandPreprocessor, LoadPicture


@DATASETS.register_module()
class ConfiguredSegDataset(BaseSegDataset):
    """mmsegmentation's `BaseSegDataset` (same arguments), whose classes its tools can read.

    They read the attribute `METAINFO`, which is empty where a config states the classes.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.METAINFO = self.metainfo


@DATASETS.register_module()
class PairedFolders(ConfiguredSegDataset):
    """Images in one folder, label maps of the same names in another; suffixes may differ.

    Args:
        images: Folder of images, searched through.
        maps: Folder of label maps.
        image_ending: End of the names of images, before the suffix.
        map_ending: End of the names of label maps, before the suffix.
        val_share: Share of the pairs that is held out of training; None for none.
        held_out: Whether these are the pairs that are held out, and not the others.
        **options: Further arguments of mmsegmentation's `BaseSegDataset`.
    """

    def __init__(
        self,
        *,
        images: str,
        maps: str,
        image_ending: str = "",
        map_ending: str = "",
        val_share: float | None = None,
        held_out: bool = False,
        **options: Any,
    ) -> None:
        self._folders = (Path(images), Path(maps))
        self._val_share, self._held_out = val_share, held_out
        self._endings = {"image_ending": image_ending, "map_ending": map_ending}
        super().__init__(**options)

    def load_data_list(self) -> list[dict[str, Any]]:
        """List the pairs."""
        images, maps = self._folders
        pairs, _, _ = find_pairs(images, maps, **self._endings)
        if self._val_share is not None:
            pairs = hold_out(pairs, images, self._val_share)[self._held_out]
        same = dict(label_map=None, reduce_zero_label=False)
        return [
            dict(img_path=str(image), seg_map_path=str(label_map), seg_fields=[], **same)
            for image, label_map in pairs
        ]


_LARGEST = 255  # label of mmsegmentation
_USUAL = ("1", "L", "P")  # modes of Pillow with at most 255 labels
# for all of mmsegmentation, also its inferencer: same arguments, same pixels of sound files
TRANSFORMS.register_module(name="LoadImageFromFile", module=LoadPicture)


@MODELS.register_module()
class BandSegPreprocessor(BandPreprocessor, SegDataPreProcessor):
    """mmsegmentation's data preprocessor (same arguments) of images of bands."""


@TRANSFORMS.register_module()
class LoadCheckedAnnotations(LoadAnnotations):
    """mmsegmentation's `LoadAnnotations` (same arguments), which refuses what does not fit.

    A label map of another size than its image would be trained on, and labels above 255 would
    become others. An image without label map, as of an inferencer, goes through.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the class indices as `gt_seg_map` (H, W), if the record names a label map."""
        return results if "seg_map_path" not in results else super().transform(results)

    def _load_seg_map(self, results: dict[str, Any]) -> None:
        path = results["seg_map_path"]
        try:
            # the values of the odd ones are looked at; nothing is known of files of another store
            odd = not self.backend_args and inspect_image(path, decode=False).mode not in _USUAL
            if odd and (largest := int(read_label_map(Path(path)).max(initial=0))) > _LARGEST:
                raise ValueError(
                    f"it has the label {largest}, above mmsegmentation's {_LARGEST}: give the data "
                    "as your own, with a class file"
                )
            super()._load_seg_map(results)
        except (OSError, SyntaxError, ValueError) as error:
            raise LabelMapError(f"cannot read {path} as a label map: {error}") from error
        _require_size(results, results["gt_seg_map"].shape)


def _require_size(results: dict[str, Any], size: tuple[int, ...]) -> None:
    pair = Pair(Path(results["img_path"]), Path(results["seg_map_path"]))
    require_equal_size(pair, tuple(results["ori_shape"]), size)


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
        """Add the class indices as `gt_seg_map` (H, W), if the record names a label map."""
        if "seg_map_path" not in results:
            return results
        path = results["seg_map_path"]
        values = read_label_map(Path(path))
        _require_size(results, values.shape)
        results["gt_seg_map"] = self._table(values, path)
        results["seg_fields"].append("gt_seg_map")
        return results


@TRANSFORMS.register_module()
class PadShortSide(BaseTransform):
    """Enlarges an image to the window of a sliding test, with zeros below and to the right.

    The official multi-scale test pads the raw image, so that the border is black for the model;
    mmsegmentation's data preprocessor pads after normalisation. The segmentor cuts `padding_size`
    off again: name it in `meta_keys` of `PackSegInputs`.
    """

    def __init__(self, *, size: int) -> None:
        self.size = size

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pad `img` and its label map to `size` at least; adds `padding_size` and `pad_shape`."""
        height, width = results["img"].shape[:2]
        below, right = max(self.size - height, 0), max(self.size - width, 0)
        margins = ((0, below), (0, right))
        if below or right:
            results["img"] = np.pad(results["img"], (*margins, (0, 0)))
            for key in results.get("seg_fields", ()):
                results[key] = np.pad(results[key], margins, constant_values=IGNORED)
        results["padding_size"] = [0, right, 0, below]  # left, right, top, bottom
        results["pad_shape"] = results["img"].shape[:2]
        return results
