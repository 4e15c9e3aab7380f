"""A detector for one image at a time, usable from Python in three lines.

from eva_mmdetection.inference.predictor import Predictor
predictor = Predictor.from_run("output/mmdet")  # or from_config(RECIPE, weights=WEIGHTS)
instances = predictor("photo.jpg")  # bboxes, scores, labels and masks; names in predictor.names
"""

import importlib
import types
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pycocotools.mask as mask_api
import torch
from mmengine.structures import InstanceData, PixelData
from supervision import Detections as Supervised
from torch import nn
from torchvision.ops import masks_to_boxes

from eva_data.detection.tiles import encode_mask
from eva_openmmlab.predictor import ImageLike, ImagePredictor, Source, load_model
from eva_runs.options import Precision
from eva_runs.record import read_threshold

importlib.import_module("eva_mmdetection.plugin")  # before anything of mmdetection
from mmdet.datasets import CocoDataset  # noqa: E402
from mmdet.structures import INSTANCE_OFFSET  # noqa: E402

from eva_mmdetection.model.slices import slice_images  # noqa: E402

# COCO numbers its 80 classes from 1 to 90, without these
_NOT_IN_COCO = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
__all__ = ["Predictor"]


class NamedInstances(InstanceData):
    """mmengine's `InstanceData` that know the names of their classes, `classes`."""

    def to_supervision(self) -> Any:
        """Make `supervision.Detections` of them, with `data["class_name"]`."""
        detections = Supervised.from_mmdetection(types.SimpleNamespace(pred_instances=self))
        detections.data["class_name"] = np.array(self.classes)[detections.class_id]
        return detections


class Predictor(ImagePredictor[NamedInstances]):
    """A detector with its preprocessing; `from_config` builds one.

    Args:
        model: The detector with its weights.
        pipeline: Transforms of a test image; those that read files are left out.
        categories: Id -> name of each class, in the model's order.
        score_threshold: Least score of a detection.

    Attributes:
        things: Indices of the classes that are counted, of a model of panoptic segments; else None.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        pipeline: Sequence[Any],
        categories: dict[int, str],
        score_threshold: float = 0.5,
    ) -> None:
        super().__init__(model, pipeline)
        self.categories = categories
        self.names = tuple(categories.values())
        self.score_threshold = score_threshold
        self.things: frozenset[int] | None = None
        inside: Any = getattr(model, "module", model)
        if (getattr(inside, "test_cfg", None) or {}).get("panoptic_on"):
            self.things = frozenset(range(inside.num_things_classes))

    @classmethod
    def from_config(
        cls,
        config: Source,
        *,
        weights: Source | None = None,
        score_threshold: float | None = None,
        device: str | None = None,
        precision: Precision = "fp32",
        slice: int | str | None = None,
        overlap: float = 0.2,
    ) -> "Predictor":
        """Build the detector of a config and load its weights.

        Args:
            config: Name of a recipe, a config file, or the folder of a run, which has its own.
            weights: Name of an official file, a path, or the folder of a run; a detector, not a
                backbone. None for those of the run that `config` names.
            score_threshold: Least score of a detection; None is what was best in the evaluation of
                a run, or 0.5.
            device: Such as "cuda" or "cpu"; None for the GPU if there is one.
            precision: Of the backbone, see `eva_runs.precision.resolve`; the heads are in fp32.
            slice: Side in px of tiles of large images, or "auto"; see `--slice` of the demo.
            overlap: Least fraction of a tile that its neighbour has, too.

        Raises:
            ValueError: If the weights do not fit or lack a part, or there is no such recipe or
                device.
            FileNotFoundError: If the weights do not exist.
        """
        change = partial(slice_images, size=slice, overlap=overlap)
        model, pipeline, metainfo = load_model(
            config, weights, device, task="mmdetection", precision=precision, change=change
        )
        categories = _categories(metainfo)
        if score_threshold is None:
            score_threshold = read_threshold(weights or config)
        return cls(model, pipeline=pipeline, categories=categories, score_threshold=score_threshold)

    def predict(self, source: ImageLike) -> NamedInstances:
        """Detect the objects of one image with a score of at least `score_threshold`.

        Returns:
            `bboxes` (n, 4) as x0, y0, x1, y1 in px, `scores` (n,), `labels` (n,) indices of
            `names`, and `masks` (n, H, W) bool where the detector has them; on the CPU, the
            highest score first. `to_supervision()` makes `supervision.Detections` of them. Of a
            model of panoptic segments these, whose masks do not overlap; see `things`.
        """
        instances, shape = self._all_objects(source)
        instances = instances[instances.scores >= self.score_threshold]
        if isinstance(instances.get("masks"), list):  # of slices
            masks = np.array([mask_api.decode(code) for code in instances.masks], bool)
            instances.masks = torch.from_numpy(masks.reshape(-1, *shape))
        return NamedInstances(metainfo={"classes": self.names}, **dict(instances.items()))

    def in_coco_format(self, image: ImageLike) -> list[dict[str, Any]]:
        """Detect objects in COCO's format."""
        instances, _ = self._all_objects(image)
        objects = as_coco(instances[instances.scores >= self.score_threshold])
        for detection in objects if self.things is not None else ():
            detection["isthing"] = int(detection["category_id"] in (self.things or ()))
        return objects

    def _all_objects(self, image: ImageLike) -> tuple[InstanceData, tuple[int, int]]:
        """Detect objects, whatever their score, the highest first; and the size of the image."""
        sample = self.sample(image)
        if self.things is None:
            instances = sample.pred_instances.cpu()
        else:
            instances = _segments(sample.pred_panoptic_seg, len(self.names))
        return instances[instances.scores.argsort(descending=True, stable=True)], sample.ori_shape


def _segments(panoptic: PixelData, classes: int) -> InstanceData:
    """Make instances of panoptic segments, stuff too."""
    ids = panoptic.sem_seg[0].cpu()
    keys = [key for key in ids.unique().tolist() if key % INSTANCE_OFFSET < classes]
    masks = ids == torch.tensor(keys, dtype=ids.dtype).view(-1, 1, 1)  # (n, H, W)
    boxes, scores = masks_to_boxes(masks), panoptic.metainfo.get("scores", {})
    boxes[:, 2:] += 1  # behind the last pixels
    return InstanceData(
        bboxes=boxes,
        scores=torch.tensor([scores.get(key, 1.0) for key in keys]),
        labels=torch.tensor(keys, dtype=torch.int64) % INSTANCE_OFFSET,
        masks=masks,
    )


def as_coco(instances: InstanceData) -> list[dict[str, Any]]:
    """Write detections as COCO's format has them, with the index of the class as `category_id`."""
    detections: list[dict[str, Any]] = []
    boxes, scores, labels = (instances[name].tolist() for name in ("bboxes", "scores", "labels"))
    for (x0, y0, x1, y1), score, label in zip(boxes, scores, labels, strict=True):
        box = [x0, y0, x1 - x0, y1 - y0]
        detections.append({"category_id": label, "bbox": box, "score": score})
    for detection, mask in zip(detections, instances.get("masks", ()), strict="masks" in instances):
        detection["segmentation"] = mask if isinstance(mask, dict) else encode_mask(mask.numpy())
    return detections


def _categories(metainfo: Mapping[str, Any]) -> dict[int, str]:
    """Number the classes of a dataset: as its config states, as COCO does its own, or from 1."""
    names = tuple(metainfo["classes"])
    ids = metainfo.get("category_ids")
    if not ids and names == CocoDataset.METAINFO["classes"]:
        ids = [number for number in range(1, 91) if number not in _NOT_IN_COCO]
    ids = ids or range(1, len(names) + 1)
    return dict(zip(ids, names, strict=True))
