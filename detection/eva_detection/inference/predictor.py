"""A detector for one image at a time.

predictor = Predictor.from_run("output/mine")     # or from_config(RECIPE, weights=WEIGHTS)
instances = predictor("photo.jpg")  # or an array, a PIL image, a list of them, a folder
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.transforms import AugInput
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor, nn

from eva_data.bands import Bands
from eva_data.detection.keypoints import KeypointNames
from eva_data.files import load_json
from eva_detection.building import bands_of, build, load_initial_weights, resolve_errors
from eva_detection.command_line import slice_settings
from eva_detection.config.files import own_keypoints
from eva_detection.config.recipes import box_predictors, update_each
from eva_detection.config.settings import load_recipe
from eva_detection.data.datasets import registered_keypoints
from eva_detection.data.mapper import Augmentations
from eva_detection.inference.test_time_augmentation import (
    encode_masks,
    tabulate_instances,
    with_slicing,
    with_test_time_augmentation,
)
from eva_detection.training.output_folder import config_of_run
from eva_runs.options import Precision
from eva_runs.precision import lower_backbone, require_device
from eva_runs.predictor import BasePredictor
from eva_runs.record import read_threshold
from eva_runs.run_folder import require_config

logger = logging.getLogger(__name__)

ImageLike = NDArray[Any] | Image.Image | str | os.PathLike[str]


class Category(NamedTuple):
    """A class of the detector: its id in the dataset's files, and its name."""

    id: int
    name: str


class NamedInstances(Instances):
    """detectron2's `Instances` that know the names of their classes."""

    def __init__(self, instances: Instances, names: tuple[str, ...]) -> None:
        super().__init__(instances.image_size, **instances.get_fields())
        self._names = names

    def __getitem__(self, item: Any) -> "NamedInstances":
        """Choose some of them, as `Instances` do."""
        return NamedInstances(super().__getitem__(item), self._names)

    def to_supervision(self) -> Any:
        """Make `supervision.Detections` of them, with `data["class_name"]`."""
        from supervision import Detections as Supervised

        detections = Supervised.from_detectron2({"instances": self})
        detections.data["class_name"] = np.array(self._names)[detections.class_id]
        return detections


class Predictor(BasePredictor[NamedInstances]):
    """A detector with its preprocessing, such as a resize; `from_config` builds one.

    Detections below the `score_threshold` are left out; `categories` are in the model's order,
    `keypoints` names and skeleton of those that it detects.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        augmentations: Sequence[Any],
        categories: Sequence[Category],
        score_threshold: float = 0.5,
        keypoints: KeypointNames | None = None,
        bands: Bands | None = None,
    ) -> None:
        self.keypoints, self.bands = keypoints, bands
        self.model: Any = model.eval()
        self.categories = tuple(categories)
        self._threshold = score_threshold
        self._augment = Augmentations(list(augmentations))

    @classmethod
    def from_config(
        cls,
        config_file: str | os.PathLike[str],
        *,
        weights: str | os.PathLike[str],
        score_threshold: float | None = None,
        device: str | None = None,
        precision: Precision = "fp32",
        slice: int | str | None = None,
        overlap: float = 0.2,
        overrides: Sequence[str] = (),
    ) -> "Predictor":
        """Build the detector of a config and load its weights.

        Args:
            config_file: Name of a recipe or path of a LazyConfig, whose test set gives the resize,
                and the class names by its metadata or annotation file; without one, numbers.
            weights: Name of an official file, a path, or the folder of a run; a complete detector.
            score_threshold: Least score of a detection, in place of the config's thresholds; None
                for what was best in the evaluation of a run, or 0.5.
            device: Such as "cuda" or "cpu"; None for the config's.
            precision: Of the backbone, see `eva_runs.precision.resolve`; the heads are in fp32.
            slice: Side in px of tiles of large images, or "auto"; see `--slice` of the demo.
            overlap: Least fraction of a tile that its neighbour has, too.
            overrides: Settings of the config as on the command line, such as
                "test.aug.min_sizes=[1280,1536]".

        Raises:
            ValueError: If recipe, overrides, weights or device cannot be used.
            FileNotFoundError: If the weights are missing.
        """
        if score_threshold is None:
            score_threshold = read_threshold(weights)
        settings = [*overrides, *slice_settings(slice, overlap)]
        cfg = load_recipe(config_file, settings, weights=weights)
        # Before the model's NMS: suppression only ever comes from higher scores, so the result is
        # the same as with filtering afterwards, without masks for what is then thrown away.
        with resolve_errors():
            device_name, heads = device or cfg.train.device, cfg.model.roi_heads
            update_each(box_predictors(heads), test_score_thresh=score_threshold)
        require_device(device_name)
        if "override_score_thresh" in heads:
            heads.override_score_thresh = score_threshold
        model = build(cfg.model, "model")
        model.to(device_name)
        load_initial_weights(model, os.fspath(weights), complete=True)
        lower_backbone(model.backbone, precision, torch.device(device_name))
        detector = with_slicing(cfg, with_test_time_augmentation(cfg, model))
        resize = instantiate(cfg.dataloader.test.mapper.augmentations)
        return cls(
            detector,
            augmentations=resize if detector is model else (),  # it resizes the image itself
            categories=find_categories(cfg),
            score_threshold=score_threshold,
            keypoints=find_keypoints(cfg),
            bands=bands_of(cfg),
        )

    @classmethod
    def from_run(cls, run: str | os.PathLike[str], **options: Any) -> "Predictor":
        """Build the detector of a run; `options` are those of `from_config`."""
        return cls.from_config(require_config(config_of_run(run), run), weights=run, **options)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of `pred_classes`."""
        return tuple(category.name for category in self.categories)

    @property
    def score_threshold(self) -> float:
        """Least score of a detection; the model's own thresholds follow when it is set."""
        return self._threshold

    @score_threshold.setter
    def score_threshold(self, least: float) -> None:
        self._threshold = least
        for module in self.model.modules():
            for name in ("test_score_thresh", "override_score_thresh"):
                if vars(module).get(name) is not None:
                    setattr(module, name, least)

    def predict(self, source: ImageLike) -> NamedInstances:
        """Detect the objects of an image.

        Returns:
            `pred_boxes`, `scores`, `pred_classes` and, with a mask head, `pred_masks` (n, H, W),
            with one of keypoints `pred_keypoints` (n, k, 3), x, y and score, on the CPU and in
            coordinates of the image, best score first; `to_supervision()` makes
            `supervision.Detections` of them.
        """
        raw, *size = self._infer(source)
        with torch.inference_mode():
            instances = detector_postprocess(raw, *size).to("cpu")
        return NamedInstances(instances[self._chosen(instances.scores)], self.class_names)

    def with_encoded_masks(self, image: ImageLike) -> Instances:
        """Detect as a call does, with compressed RLEs: `pred_masks_rle` in place of `pred_masks`.

        It takes little memory in large images.
        """
        instances, height, width = self._infer(image)
        with torch.inference_mode():
            chosen = instances[self._chosen(instances.scores)]
            return encode_masks(chosen, height, width).to("cpu")

    def in_coco_format(self, image: ImageLike) -> list[dict[str, Any]]:
        """Detect objects in COCO's format."""
        detections: list[dict[str, Any]]
        detections = tabulate_instances(self.with_encoded_masks(image), 0).results()
        for detection in detections:
            del detection["image_id"]
        return detections

    def _infer(self, image: ImageLike) -> tuple[Instances, int, int]:
        """Detect in coordinates of the resized image; return the original's height and width."""
        sample = self.prepare(image)
        with torch.inference_mode():
            (instances,) = self.model.inference([sample], do_postprocess=False)
        return instances, sample["height"], sample["width"]

    def prepare(self, image: ImageLike) -> dict[str, Any]:
        """Make the detector's input of an image: `image` (3, H, W), and the original's size."""
        pixels = self.read_image(image)
        height, width = pixels.shape[:2]
        if self.bands is not None:
            pixels = self.bands.scale(pixels)
        inputs = AugInput(pixels if self.model.input_format == "RGB" else pixels[:, :, ::-1])
        self._augment(inputs)
        seen = torch.from_numpy(np.array(inputs.image.transpose(2, 0, 1), dtype=np.float32))
        return {"image": seen, "height": height, "width": width}

    def _chosen(self, scores: Tensor) -> Tensor:
        order = scores.argsort(descending=True, stable=True)
        # maskness rescoring lowers scores after the model's own threshold
        return order[scores[order] >= self.score_threshold]


def find_categories(cfg: DictConfig) -> tuple[Category, ...]:
    """Read the classes of a config's test set, in the model's order.

    The config states them (own data, and what a run has saved), or the metadata, or the annotation
    file; else ids are from 1 and names the model's numbers (from 0).
    """
    if "class_names" in cfg and len(cfg.class_names) == cfg.model.roi_heads.num_classes:
        return tuple(Category(*pair) for pair in cfg.class_names)
    stated = OmegaConf.select(cfg, "own_data.categories")
    if stated:
        return tuple(Category(key, stated[key]) for key in sorted(stated))
    names = OmegaConf.select(cfg, "dataloader.test.dataset.names")
    dataset = names if isinstance(names, str) or not names else names[0]
    categories = _registered_categories(dataset) if dataset in DatasetCatalog else ()
    count = cfg.model.roi_heads.num_classes
    if len(categories) == count:
        return categories
    message = "%d classes are known of %r and the model has %d: classes have numbers for names"
    logger.warning(message, len(categories), dataset, count)
    return tuple(Category(index + 1, str(index)) for index in range(count))


def find_keypoints(cfg: DictConfig) -> KeypointNames | None:
    """Return the keypoints of a config's own data, or of its test set; None without their head."""
    if "keypoint_head" not in cfg.model.roi_heads:
        return None
    if "own_data" in cfg:
        return own_keypoints(cfg)
    names = OmegaConf.select(cfg, "dataloader.test.dataset.names")
    return registered_keypoints(names if isinstance(names, str) else names[0]) if names else None


def _registered_categories(dataset: str) -> tuple[Category, ...]:
    metadata = MetadataCatalog.get(dataset).as_dict()
    if "thing_classes" in metadata:
        classes = metadata["thing_classes"]
        to_index = metadata.get("thing_dataset_id_to_contiguous_id")
        ids = sorted(to_index, key=to_index.__getitem__) if to_index else range(1, len(classes) + 1)
        return tuple(Category(*pair) for pair in zip(ids, classes, strict=True))
    file = Path(metadata.get("json_file", ""))
    entries = load_json(file)["categories"] if file.is_file() else ()
    return tuple(sorted(Category(entry["id"], entry["name"]) for entry in entries))
