"""A data set of two folders, for mmsegmentation's data loaders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmcv.transforms import BaseTransform
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, TRANSFORMS

from eva_segmentation.data.class_file import LabelMapError, LabelTable, find_pairs, read_label_map


@DATASETS.register_module()
class PairedFolders(BaseSegDataset):
    """Images in one folder, label maps of the same names in another; suffixes may differ.

    Args:
        images: Folder of images, searched through.
        maps: Folder of label maps.
        image_ending: End of the names of images, before the suffix.
        map_ending: End of the names of label maps, before the suffix.
        **options: Further arguments of mmsegmentation's `BaseSegDataset`, such as `metainfo` with
            `classes` and `palette`, `pipeline` and `test_mode`.
    """

    def __init__(
        self,
        *,
        images: str,
        maps: str,
        image_ending: str = "",
        map_ending: str = "",
        **options: Any,
    ) -> None:
        self._folders = (Path(images), Path(maps))
        self._endings = {"image_ending": image_ending, "map_ending": map_ending}
        super().__init__(**options)

    def load_data_list(self) -> list[dict[str, Any]]:
        """List the pairs.

        Raises:
            ValueError: If there is none.
        """
        images, maps = self._folders
        pairs, _, _ = find_pairs(images, maps, **self._endings)
        if not pairs:
            raise ValueError(f"{images} and {maps} have no names in common")
        return [
            {
                "img_path": str(pair.image),
                "seg_map_path": str(pair.label_map),
                "label_map": None,
                "reduce_zero_label": False,
                "seg_fields": [],
            }
            for pair in pairs
        ]


@TRANSFORMS.register_module()
class LoadLabelMap(BaseTransform):
    """Reads a label map, and refuses labels that nobody named.

    In place of mmsegmentation's `LoadAnnotations`, for which an unknown label is one more class or
    crashes the loss.

    Args:
        labels: Value of each class in the files, in the order of the classes.
        ignore: Values that no class has.
    """

    def __init__(self, *, labels: Sequence[int], ignore: Sequence[int]) -> None:
        self._table = LabelTable(labels, ignore)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the class indices as `gt_seg_map` (H, W).

        Args:
            results: With `seg_map_path`, and `ori_shape` of the picture.

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
