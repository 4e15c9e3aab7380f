"""Datasets beyond detectron2's builtin ones, registered on import, and what LVIS recipes count.

Functions with a name, not lambdas, so that a config can be saved and read again.
"""

from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances, register_lvis_instances
from detectron2.data.datasets.lvis import get_lvis_instances_meta
from detectron2.data.samplers import RepeatFactorTrainingSampler
from torch import Tensor, tensor

from eva_detection.data.places import COCO_STYLE, LVIS_STYLE
from eva_detection.data.places import DIGIT_SCENES as DIGIT_SCENES
from eva_detection.data.places import dataset_root as dataset_root

FREQUENCY_WEIGHT_POWER = 0.5  # paper Table 18


def register_all(root: Path) -> None:
    """Register every dataset of this module below a folder, if it is not yet; reads no file."""
    for name, (images, annotations) in COCO_STYLE.items():
        if name not in DatasetCatalog:
            register_coco_instances(name, {}, str(root / annotations), str(root / images))
    for name, (images, annotations) in LVIS_STYLE.items():
        if name not in DatasetCatalog:
            metadata = get_lvis_instances_meta(name)
            folder = f"{root / images}/"  # detectron2 appends the rest of the image's URL
            register_lvis_instances(name, metadata, str(root / annotations), folder)


def federated_class_weights(
    dataset: str = "lvis_v1_train", power: float = FREQUENCY_WEIGHT_POWER
) -> Tensor:
    """Compute each class's sampling weight in the federated loss (arXiv 2103.07461).

    Returns:
        (classes,) image count ** power, from `class_image_count` of the dataset's metadata.
    """
    counts = sorted(MetadataCatalog.get(dataset).class_image_count, key=lambda entry: entry["id"])
    return tensor([float(entry["image_count"]) for entry in counts]) ** power


def repeat_factors(dataset_dicts: list[dict[str, Any]], *, repeat_thresh: float) -> Tensor:
    """Compute how often each image is seen in an epoch (LVIS paper, arXiv 1908.03195).

    Returns:
        (images,) factors of at least 1; above it for images with a category below the frequency.
    """
    return RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        dataset_dicts, repeat_thresh
    )


register_all(dataset_root())
