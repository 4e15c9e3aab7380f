"""A dataset of one file in COCO format, validated as `detection/` reads it."""

import os
from collections.abc import Mapping
from typing import Any, ClassVar

from mmdet.datasets.base_det_dataset import BaseDetDataset
from mmdet.registry import DATASETS

from eva_data.detection.coco import read_coco


@DATASETS.register_module()
class CocoFileDataset(BaseDetDataset):
    """Any file in COCO format; `CocoDataset` needs areas, crowd flags and ids that own files lack.

    `metainfo` names `classes` in the order of `category_ids`. Crowds are not trained on, as in
    detectron2. With `filter_cfg=dict(filter_empty_gt=True)` neither are images without objects.

    Args:
        *args: Arguments of mmdetection's `BaseDetDataset`.
        boxes_only: Leave masks alone, whatever they are.
        **settings: Further arguments of `BaseDetDataset`.
    """

    METAINFO: ClassVar[dict[str, Any]] = {"classes": (), "category_ids": (), "palette": None}

    def __init__(self, *args: Any, boxes_only: bool = False, **settings: Any) -> None:
        self._boxes_only = boxes_only  # before the file is read
        super().__init__(*args, **settings)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the file: a record for each image, in order of the image ids."""
        file = read_coco(self.ann_file, boxes_only=self._boxes_only)
        file.check_categories(categories(self.metainfo), of="the config")
        labels = {key: label for label, key in enumerate(self.metainfo["category_ids"])}
        folder = self.data_prefix["img"]
        records = {
            key: {
                "img_path": os.path.join(folder, entry["file_name"]),  # noqa: PTH118
                "img_id": key,
                "width": entry["width"],
                "height": entry["height"],
                "instances": [],
            }
            for key, entry in sorted(file.images.items())
        }
        for one in file.instances:
            x, y, width, height = one["bbox"]
            box, label = [x, y, x + width, y + height], labels[one["category_id"]]
            instance = {"bbox": box, "bbox_label": label, "ignore_flag": 0}
            if "segmentation" in one:
                instance["mask"] = one["segmentation"]
            records[one["image_id"]]["instances"].append(instance)
        return list(records.values())

    def filter_data(self) -> list[dict[str, Any]]:
        """Leave out images without objects, where `filter_cfg` says so."""
        filters = not self.test_mode and (self.filter_cfg or {}).get("filter_empty_gt", False)
        return [one for one in self.data_list if one["instances"] or not filters]


def categories(metainfo: Mapping[str, Any]) -> dict[int, str]:
    """Return the name of each category id in the `metainfo` of a `CocoFileDataset`."""
    return dict(zip(metainfo["category_ids"], metainfo["classes"], strict=True))
