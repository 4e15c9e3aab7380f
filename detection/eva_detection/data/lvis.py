"""Federated class weights and repeat factors, for the LVIS recipes.

Functions with a name, not lambdas, so that a config can be saved and read again.
"""

from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.data.samplers import RepeatFactorTrainingSampler
from torch import Tensor, tensor

FREQUENCY_WEIGHT_POWER = 0.5  # paper Table 18


def federated_class_weights(
    dataset: str = "lvis_v1_train", power: float = FREQUENCY_WEIGHT_POWER
) -> Tensor:
    """Compute the sampling weight of each class in the federated loss (arXiv 2103.07461).

    Args:
        dataset: Registered data set with `class_image_count` in its metadata.
        power: Exponent of the image count.

    Returns:
        (classes,) image count ** power.
    """
    counts = sorted(MetadataCatalog.get(dataset).class_image_count, key=lambda entry: entry["id"])
    return tensor([float(entry["image_count"]) for entry in counts]) ** power


def repeat_factors(dataset_dicts: list[dict[str, Any]], *, repeat_thresh: float) -> Tensor:
    """Compute how often each image is seen in an epoch (LVIS paper, arXiv 1908.03195).

    Args:
        dataset_dicts: The training set in detectron2's format.
        repeat_thresh: Frequency below which a category is repeated.

    Returns:
        (images,) factors of at least 1.
    """
    return RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        dataset_dicts, repeat_thresh
    )
