"""COCO panoptic without panopticapi: labels from PNG files, and PQ by hotcoco."""

import io
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hotcoco.panoptic import METRIC_NAMES, PanopticEval
from mmdet.datasets.transforms import LoadAnnotations, LoadPanopticAnnotations
from mmdet.registry import DATASETS, METRICS, TRANSFORMS
from mmdet.structures import INSTANCE_OFFSET
from mmdet.structures.mask import BitmapMasks
from mmengine.evaluator import BaseMetric
from PIL import Image

from eva_data.detection.panoptic import as_rgb, find_faults, read_ids
from eva_mmdetection.data.coco_file import CocoFileDataset
from eva_mmdetection.evaluation.metrics import or_nan

PREDICTIONS = "panoptic.json"
_IGNORED = 255  # class of pixels without a segment


@DATASETS.register_module()
class PanopticFileDataset(CocoFileDataset):
    """Any file in COCO's panoptic format, of which `data_prefix` names folders `img` and `seg`.

    Things come first in `classes` and `category_ids`, and `thing_classes` lists them.
    """

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the file: a record for each image, in order of the image ids."""
        file, records = self.read_records()
        assert file.panoptic
        labels = {key: label for label, key in enumerate(self.metainfo["category_ids"])}
        count, folder = len(self.metainfo["thing_classes"]), self.data_prefix["seg"]
        for key, record in records.items():
            png = os.path.join(folder, file.panoptic.files[key])  # noqa: PTH118
            record.update(seg_map_path=png, segments_info=[])
        for segment in file.objects:
            record, label = records[segment["image_id"]], labels[segment["category_id"]]
            is_thing = label < count and not segment["iscrowd"]
            about = {"id": segment["segment_id"], "category": label, "is_thing": is_thing}
            record["segments_info"].append(about)
            if is_thing:
                x, y, width, height = segment["bbox"]
                box = [x, y, x + width, y + height]
                record["instances"].append({"bbox": box, "bbox_label": label, "ignore_flag": 0})
        return list(records.values())

    def filter_data(self) -> list[dict[str, Any]]:
        """Leave no image out: those without things may have stuff."""
        data: list[dict[str, Any]] = self.data_list
        return data


@TRANSFORMS.register_module()
class LoadPanoptic(LoadPanopticAnnotations):
    """mmdetection's `LoadPanopticAnnotations`, which would ask for panopticapi for one product.

    A file of another size, or with pixels of an id that is not listed, is an error.
    """

    def __init__(self) -> None:
        LoadAnnotations.__init__(self, with_mask=True, with_seg=True)

    def _load_masks_and_semantic_segs(self, results: dict[str, Any]) -> None:
        file, segments = Path(results["seg_map_path"]), results["segments_info"]
        ids = read_ids(file)
        for kind, message in find_faults(ids, results["ori_shape"], [s["id"] for s in segments]):
            if kind != "pixels":  # which mmdetection's filter leaves out
                raise ValueError(f"{file}: {message}")
        labels, masks = np.full(ids.shape, _IGNORED, np.uint8), []
        for segment in segments:
            region = ids == segment["id"]
            labels[region] = segment["category"]
            masks += [region.astype(np.uint8)] if segment["is_thing"] else []
        results.update(gt_seg_map=labels, gt_masks=BitmapMasks(masks, *ids.shape))


@METRICS.register_module()
class PanopticMetric(BaseMetric):
    """Panoptic quality by hotcoco, in percent, under the names of mmdetection's metric.

    Args:
        ann_file: File in COCO's panoptic format.
        seg_prefix: Folder of its PNG files.
        outfile_prefix: Path beside which predictions are kept, in this format: `panoptic.json` and
            a folder `panoptic`; None for nowhere.
        **settings: `collect_device` and `prefix` of mmengine's metrics.
    """

    default_prefix = "coco_panoptic"

    def __init__(
        self,
        *,
        ann_file: str,
        seg_prefix: str,
        outfile_prefix: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.truth, self.folder, self.outfile_prefix = ann_file, seg_prefix, outfile_prefix
        self.class_scores: dict[int, dict[str, float]] = {}  # of the latest evaluation

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Encode the segments of some images, numbered from 1; 0 is what has no class."""
        del data_batch
        for sample in data_samples:
            segments = sample["pred_panoptic_seg"]["sem_seg"][0].cpu().numpy() + 1
            void = segments % INSTANCE_OFFSET == len(self.dataset_meta["classes"]) + 1
            segments[void] = 0
            stream = io.BytesIO()
            Image.fromarray(as_rgb(segments)).save(stream, "PNG")
            ids, areas = np.unique(segments[~void], return_counts=True)
            pairs = zip(ids.tolist(), areas.tolist(), strict=True)
            self.results.append((sample["img_id"], stream.getvalue(), list(pairs)))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Score the segments of all processes: PQ, SQ and RQ, of all, of things and of stuff."""
        truth = json.loads(Path(self.truth).read_text())
        ids = self.dataset_meta.get("category_ids")
        if ids is None:  # of mmdetection's own dataset
            numbers = {category["name"]: category["id"] for category in truth["categories"]}
            ids = [numbers[name] for name in self.dataset_meta["classes"]]
        annotations = []
        with tempfile.TemporaryDirectory() as temporary:
            file = Path(self.outfile_prefix or temporary + "/predictions").with_name(PREDICTIONS)
            folder = file.with_suffix("")
            folder.mkdir(parents=True, exist_ok=True)
            for image, png, segments in results:
                (folder / f"{image}.png").write_bytes(png)
                described = [
                    {"id": key, "category_id": ids[(key - 1) % INSTANCE_OFFSET], "area": area}
                    for key, area in segments
                ]
                annotations.append(
                    {"image_id": image, "file_name": f"{image}.png", "segments_info": described}
                )
            file.write_text(json.dumps({**truth, "annotations": annotations}))
            evaluation = PanopticEval(self.truth, file, gt_folder=self.folder, pred_folder=folder)
            evaluation.evaluate()
        classes = evaluation.results()["per_class"]
        self.class_scores = {key: values for key, values in classes.items() if values["pq"] >= 0}
        return {
            name: 100 * or_nan(value)
            for name, value in zip(METRIC_NAMES, evaluation.stats, strict=True)
        }
