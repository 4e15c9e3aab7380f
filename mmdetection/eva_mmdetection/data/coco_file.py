"""A file in COCO format, validated as `detection/` reads it: as a dataset, and its scores."""

import math
import os
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from mmdet.datasets import CocoDataset as MMDetCocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.datasets.base_det_dataset import BaseDetDataset
from mmdet.evaluation.metrics import CocoMetric
from mmdet.registry import DATASETS, METRICS

from eva_data.classes import list_names
from eva_data.detection.coco import read_coco
from eva_data.detection.datasets import CocoDataset
from eva_data.detection.tiles import Slicing, tile_dataset
from eva_data.files import load_object
from eva_mmdetection.evaluation.metrics import or_nan
from eva_openmmlab.config import LOADERS, parts_of

_SCORES = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")


def require_order_of_files(config: Any) -> None:
    """Refuse classes in another order than a file's, which numbers those of `CocoDataset`.

    mmdetection would train and score them, and call each by the name of another.

    Raises:
        ValueError: If the classes that a config or its dataset states are not in the file's order.
    """
    for part in chain.from_iterable(parts_of(config[n].dataset) for n in LOADERS if config.get(n)):
        kind = DATASETS.get(str(part.type))
        is_users = kind is not None and not kind.__module__.startswith("mmdet.")
        names = (part.get("metainfo") or (kind.METAINFO if is_users else {})).get("classes")
        file = Path(part.get("data_root") or "", part.get("ann_file") or "")
        by_file = getattr(kind, "load_data_list", None) is MMDetCocoDataset.load_data_list
        if not by_file or not isinstance(names, list | tuple) or not file.is_file():
            continue
        listed = [entry["name"] for entry in load_object(file)["categories"]]
        listed = [name for name in listed if name in names]
        if listed != [*names]:
            raise ValueError(
                f"mmdetection numbers classes in the order of {file}, which is "
                f"{list_names(listed)}: state metainfo.classes so, and not as {list_names(names)}"
            )


@DATASETS.register_module()
class CocoFileDataset(BaseDetDataset):
    """Any file in COCO format; `CocoDataset` needs areas, crowd flags and ids that own files lack.

    `metainfo` names `classes` in the order of `category_ids`. Crowds are not trained on, as in
    detectron2. With `filter_cfg=dict(filter_empty_gt=True)` neither are images without objects.

    Args:
        *args: Arguments of mmdetection's `BaseDetDataset`.
        boxes_only: Leave masks alone, whatever they are.
        tile: Side and overlap of tiles, of which there is a record each; crowds, and objects that a
            border cuts below 30 %, are then ignored: neither objects nor background.
        **settings: Further arguments of `BaseDetDataset`.
    """

    METAINFO: ClassVar[dict[str, Any]] = {"classes": (), "category_ids": (), "palette": None}

    def __init__(
        self, *args: Any, boxes_only: bool = False, tile: Any = None, **settings: Any
    ) -> None:
        self._boxes_only, self._tile = boxes_only, tile  # before the file is read
        super().__init__(*args, **settings)
        meta = self._metainfo  # mmdetection's tools take tuples of classes and colours only
        meta["classes"] = tuple(meta["classes"])
        if isinstance(meta["palette"], list):
            meta["palette"] = [*map(tuple, meta["palette"])]

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the file: a record for each image, in order of the image ids."""
        file, records = self.read_records()
        labels = {key: label for label, key in enumerate(self.metainfo["category_ids"])}
        for annotation in file.objects if self._tile else file.instances:
            x, y, width, height = annotation["bbox"]
            box, label = [x, y, x + width, y + height], labels[annotation["category_id"]]
            instance = {"bbox": box, "bbox_label": label, "ignore_flag": annotation["iscrowd"]}
            if "segmentation" in annotation or annotation["iscrowd"]:
                instance["mask"] = annotation.get("segmentation", [])
            records[annotation["image_id"]]["instances"].append(instance)
        return list(records.values())

    def read_records(self) -> tuple[CocoDataset, dict[Any, dict[str, Any]]]:
        """Read the file, and make a record without objects for each image."""
        file = read_coco(self.ann_file, boxes_only=self._boxes_only)
        file.check_categories(categories(self.metainfo), of="the config")
        file = tile_dataset(file, Slicing(*self._tile)) if self._tile else file
        folder = self.data_prefix["img"]
        return file, {
            key: {
                "img_path": os.path.join(folder, entry["file_name"]),  # noqa: PTH118
                "img_id": key,
                "width": entry["width"],
                "height": entry["height"],
                "instances": [],
                **{name: entry[name] for name in ("tile",) if name in entry},
            }
            for key, entry in sorted(file.images.items())
        }

    def filter_data(self) -> list[dict[str, Any]]:
        """Leave out images without objects, where `filter_cfg` says so."""
        filters = not self.test_mode and (self.filter_cfg or {}).get("filter_empty_gt", False)
        ignored = [
            all(box["ignore_flag"] for box in image["instances"]) for image in self.data_list
        ]
        pairs = zip(self.data_list, ignored, strict=True)
        return [image for image, nothing in pairs if not (filters and nothing)]


@METRICS.register_module()
class CocoFileMetric(CocoMetric):
    """mmdetection's `CocoMetric` of a file as `CocoFileDataset` reads it.

    Args:
        ann_file: File in COCO format; it may lack areas, crowd flags or some of the categories.
        boxes_only: Leave masks of the file alone, whatever they are.
        **settings: Further arguments of `CocoMetric`.
    """

    cat_ids: list[int] | None

    def __init__(self, *, ann_file: str, boxes_only: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        self._file, self._boxes_only = ann_file, boxes_only
        self._coco_api = COCO()  # filled once the classes are known

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Score the predictions of all processes.

        Returns:
            Name -> 0..1, NaN where the file has no such objects or nothing was found; NaN is never
            the best.
        """
        if self.cat_ids is None:
            names = categories(self.dataset_meta or {})
            file = read_coco(self._file, boxes_only=self._boxes_only)
            self._coco_api.dataset = file.for_scoring(names)
            self._coco_api.createIndex()
            self._coco_api.img_ann_map = self._coco_api.imgToAnns
            self._coco_api.cat_img_map = self._coco_api.catToImgs
            self.cat_ids = list(names)
        scores: dict[str, float] = super().compute_metrics(results)
        if self.format_only:
            return scores
        items = self.metric_items or _SCORES
        kinds = [kind for kind in self.metrics if kind in ("bbox", "segm")]
        unknown = {f"{kind}_{name}": math.nan for kind in kinds for name in items}
        return unknown | {name: or_nan(value) for name, value in scores.items()}


def categories(metainfo: Mapping[str, Any]) -> dict[int, str]:
    """Return the name of each category id in the `metainfo` of a `CocoFileDataset`."""
    return dict(zip(metainfo["category_ids"], metainfo["classes"], strict=True))
