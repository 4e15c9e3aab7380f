"""A detector for one image at a time, usable from Python in three lines.

from eva_mmdetection.inference.predictor import Predictor
predictor = Predictor.from_config("coco/cascade_mask_rcnn_eva_g_1536", weights="eva_coco_seg.pth")
found = predictor("photo.jpg")  # bboxes, scores, labels and masks; names in predictor.names

The folder of a run has both: `Predictor.from_config("output/mmdet")`.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_api
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from eva_backbone import no_init_weights
from eva_data.files import DEMO_IMAGE_SUFFIXES
from eva_data.images import UnreadableImageError, read_rgb
from eva_data.inputs import predicted
from eva_openmmlab.config import named_predictor
from eva_openmmlab.stand_in import import_data_sets, install_stand_in
from eva_report.detection_demo import Detections, as_drawn
from eva_report.drawing import draw_objects

install_stand_in()  # before mmdetection's models
import_data_sets("mmdet.datasets")
from mmdet.datasets import CocoDataset  # noqa: E402
from mmdet.registry import DATASETS, MODELS  # noqa: E402

from eva_mmdetection.model.weights import load_detector  # noqa: E402

ImageLike = NDArray[np.uint8] | Image.Image | str | os.PathLike[str]
Color = tuple[int, int, int]
# COCO numbers its 80 classes from 1 to 90, without these
_NOT_IN_COCO = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
_READER = "LoadImageFromFile"
__all__ = ["Predictor"]


class Predictor:
    """A detector with its preprocessing; `from_config` builds one.

    Args:
        model: The detector with its weights.
        pipeline: Transforms of a test picture, without those that read it and its objects.
        categories: Id -> name of each class, in the model's order.
        score_threshold: Least score of a detection.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        pipeline: Sequence[Any],
        categories: dict[int, str],
        score_threshold: float = 0.5,
    ) -> None:
        self.model: Any = model.eval()  # mmengine's, with `test_step`
        self.categories = categories
        self.names = tuple(categories.values())
        self.score_threshold = score_threshold
        self._prepare = Compose([{"type": "LoadImageFromNDArray"}, *pipeline])

    @classmethod
    def from_config(
        cls,
        config: str | os.PathLike[str],
        *,
        weights: str | os.PathLike[str] | None = None,
        score_threshold: float = 0.5,
        device: str | None = None,
    ) -> "Predictor":
        """Build the detector of a config and load its weights.

        Args:
            config: Name of a recipe, a config file, or the folder of a run, which has its own.
            weights: Name of an official file, a path, or the folder of a run; a detector, not a
                backbone. None for those of the run that `config` names.
            score_threshold: Least score of a detection.
            device: Such as "cuda" or "cpu"; None for the GPU if there is one.

        Raises:
            ValueError: If the weights do not fit or lack a part, no step of the test pipeline reads
                pictures, or there is no such recipe or device.
            FileNotFoundError: If the weights do not exist.
        """
        cfg, weights, place = named_predictor(config, weights, device, task="mmdetection")
        dataset = cfg.test_dataloader.dataset
        pipeline = _without_reading(dataset.pipeline, cfg.filename)
        init_default_scope(cfg.get("default_scope", "mmdet"))
        with no_init_weights():
            model = MODELS.build(cfg.model)
        load_detector(model, weights, complete=True)
        model.to(place)
        return cls(
            model,
            pipeline=pipeline,
            categories=_categories(dataset),
            score_threshold=score_threshold,
        )

    def __call__(
        self, image: ImageLike | Sequence[ImageLike]
    ) -> InstanceData | list[InstanceData] | Iterator[tuple[Path, InstanceData]]:
        """Detect objects, in one picture or in several.

        Args:
            image: (H, W, 3) RGB in uint8, a PIL image, or the path of an image file; a list of
                them; a folder, or a pattern such as `photos/*.jpg`.

        Returns:
            `bboxes` (n, 4) as x0, y0, x1, y1 in px, `scores` (n,), `labels` (n,) indices of
            `names`, and `masks` (n, H, W) bool where the detector has them; on the CPU, the
            highest score first. A list of them for a list; pairs of file and objects, one after
            another, for a folder or a pattern.

        Raises:
            UnreadableImageError: A ValueError, if the file or picture cannot be read.
        """
        return predicted(
            self.objects_of, image, suffixes=DEMO_IMAGE_SUFFIXES, unreadable=UnreadableImageError
        )

    def objects_of(self, image: ImageLike) -> InstanceData:
        """Detect objects in one picture.

        Args:
            image: As for a call, but one.

        Returns:
            Objects with a score of at least `score_threshold`.

        Raises:
            UnreadableImageError: A ValueError, if the file or picture cannot be read.
        """
        found = self._all_objects(image)
        return found[found.scores >= self.score_threshold]

    def in_coco_format(self, image: ImageLike) -> Detections:
        """Detect objects in one picture, for a file in COCO's format.

        Args:
            image: As for `objects_of`.

        Returns:
            The objects, and the best score of those below `score_threshold`.

        Raises:
            UnreadableImageError: A ValueError, if the file or picture cannot be read.
        """
        found = self._all_objects(image)
        best = float(found.scores[0]) if len(found) else None
        return Detections(as_coco(found[found.scores >= self.score_threshold]), lambda: best)

    def _all_objects(self, image: ImageLike) -> InstanceData:
        """Detect objects, whatever their score; the highest first."""
        rgb = read_rgb(image, upright=True)
        bgr = np.ascontiguousarray(rgb[:, :, ::-1])  # as mmdetection reads files
        try:
            prepared = self._prepare({"img": bgr, "img_id": 0, "img_path": ""})
        except ValueError as error:  # a side of less than half a pixel at the detector's size
            height, width = rgb.shape[:2]
            raise UnreadableImageError(
                f"a picture of {width} x {height} px cannot be resized: {error}"
            ) from error
        data = pseudo_collate([prepared])
        with torch.inference_mode():
            (sample,) = self.model.test_step(data)
        found: InstanceData = sample.pred_instances.cpu()
        return found[found.scores.argsort(descending=True, stable=True)]

    def draw(self, rgb: NDArray[np.uint8], found: InstanceData) -> NDArray[np.uint8]:
        """Draw boxes, masks, names and scores; small pictures are enlarged.

        Args:
            rgb: (H, W, 3) RGB.
            found: Detections in it.

        Returns:
            (H * s, W * s, 3) RGB, with s = 1 for pictures of 512 px and more.
        """
        return draw_objects(rgb, [as_drawn(one, self.names) for one in as_coco(found)])


def as_coco(found: InstanceData) -> list[dict[str, Any]]:
    """Write detections as COCO's format has them, with the index of the class as `category_id`.

    Args:
        found: Detections as `Predictor` returns them.
    """
    detections: list[dict[str, Any]] = []
    boxes, scores, labels = (found[name].tolist() for name in ("bboxes", "scores", "labels"))
    for (x0, y0, x1, y1), score, label in zip(boxes, scores, labels, strict=True):
        box = [x0, y0, x1 - x0, y1 - y0]
        detections.append({"category_id": label, "bbox": box, "score": score})
    if "masks" in found:
        for one, mask in zip(detections, found.masks.numpy(), strict=True):
            code = mask_api.encode(np.asfortranarray(mask, np.uint8))
            one["segmentation"] = {**code, "counts": code["counts"].decode()}
    return detections


def _without_reading(steps: Sequence[Any], path: os.PathLike[str] | str) -> list[Any]:
    """Leave out what reads the picture, or its objects, which a picture of one's own has not."""
    kinds = [step["type"].rpartition(".")[2] for step in steps]
    if _READER not in kinds:
        raise ValueError(
            f"{path}: test_dataloader's pipeline has no {_READER}, in place of which a picture "
            f"is given; it is {', '.join(kinds)}"
        )
    left_out = (_READER, "LoadAnnotations")
    return [step for step, kind in zip(steps, kinds, strict=True) if kind not in left_out]


def _categories(dataset: Any) -> dict[int, str]:
    """Read names and ids of a test set, whose files need not be there.

    Ids are those that the config states or COCO's own; others count from 1.
    """
    settings = {**dataset, "lazy_init": True, "pipeline": []}
    metainfo = DATASETS.build(settings).metainfo
    names = tuple(metainfo["classes"])
    ids = metainfo.get("category_ids")
    if not ids and names == CocoDataset.METAINFO["classes"]:
        ids = [number for number in range(1, 91) if number not in _NOT_IN_COCO]
    ids = ids or range(1, len(names) + 1)
    return dict(zip(ids, names, strict=True))
