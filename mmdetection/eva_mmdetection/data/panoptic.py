"""COCO panoptic without panopticapi: labels from PNG files, and PQ by hotcoco."""

import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hotcoco.panoptic import METRIC_NAMES, PanopticEval
from mmdet.datasets.transforms import LoadAnnotations, LoadPanopticAnnotations
from mmdet.registry import METRICS, TRANSFORMS
from mmdet.structures import INSTANCE_OFFSET
from mmengine.evaluator import BaseMetric
from numpy.typing import NDArray
from PIL import Image

_DIGITS = np.array([1, 256, 256**2])  # of a segment's id, in red, green and blue


@TRANSFORMS.register_module()
class LoadPanoptic(LoadPanopticAnnotations):
    """mmdetection's `LoadPanopticAnnotations`, which would ask for panopticapi for one product."""

    def __init__(self) -> None:
        LoadAnnotations.__init__(self, with_mask=True, with_seg=True)

    def rgb2id(self, pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Read ids (H, W) from an RGB image."""
        return pixels.astype(np.int64) @ _DIGITS

    def _load_masks_and_semantic_segs(self, results: dict[str, Any]) -> None:
        super()._load_masks_and_semantic_segs(results)
        results["gt_seg_map"] = results["gt_seg_map"].astype(np.uint8)  # which Pillow resizes


@METRICS.register_module()
class PanopticMetric(BaseMetric):
    """Panoptic quality by hotcoco, in percent, under the names of mmdetection's metric.

    Args:
        ann_file: File in COCO's panoptic format.
        seg_prefix: Folder of its PNG files.
        **settings: `collect_device` and `prefix` of mmengine's metrics.
    """

    default_prefix = "coco_panoptic"

    def __init__(self, *, ann_file: str, seg_prefix: str, **settings: Any) -> None:
        super().__init__(**settings)
        self._truth, self._folder = ann_file, seg_prefix

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Encode the segments of some images, numbered from 1; 0 is what has no class."""
        del data_batch
        for sample in data_samples:
            segments = sample["pred_panoptic_seg"]["sem_seg"][0].cpu().numpy() + 1
            void = segments % INSTANCE_OFFSET == len(self.dataset_meta["classes"]) + 1
            segments[void] = 0
            stream = io.BytesIO()
            pixels = (segments[..., None] // _DIGITS % 256).astype(np.uint8)
            Image.fromarray(pixels).save(stream, "PNG")
            ids, areas = np.unique(segments[~void], return_counts=True)
            pairs = zip(ids.tolist(), areas.tolist(), strict=True)
            self.results.append((sample["img_id"], stream.getvalue(), list(pairs)))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Score the segments of all processes: PQ, SQ and RQ, of all, of things and of stuff."""
        categories = json.loads(Path(self._truth).read_text())["categories"]
        numbers = {category["name"]: category["id"] for category in categories}
        ids = [numbers[name] for name in self.dataset_meta["classes"]]
        annotations = []
        with tempfile.TemporaryDirectory() as folder:
            for image, png, segments in results:
                Path(folder, f"{image}.png").write_bytes(png)
                described = [
                    {"id": key, "category_id": ids[(key - 1) % INSTANCE_OFFSET], "area": area}
                    for key, area in segments
                ]
                annotations.append(
                    {"image_id": image, "file_name": f"{image}.png", "segments_info": described}
                )
            file = Path(folder, "predictions.json")
            file.write_text(json.dumps({"annotations": annotations}))
            evaluation = PanopticEval(self._truth, file, gt_folder=self._folder, pred_folder=folder)
            evaluation.evaluate()
        return {
            name: 100 * value for name, value in zip(METRIC_NAMES, evaluation.stats, strict=True)
        }
