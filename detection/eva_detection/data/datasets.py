"""Datasets beyond detectron2's builtin ones, registered on import, and what LVIS recipes count.

Objects365 v1 and v2 have other classes under the same numbers: heads of one are not for the other,
though they load. A backbone, and a class-agnostic regressor, can come from either.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances, register_lvis_instances
from detectron2.data.datasets.lvis import get_lvis_instances_meta
from detectron2.data.samplers import RepeatFactorTrainingSampler
from torch import Tensor, tensor

from eva_data.detection.keypoints import KeypointNames
from eva_data.files import expand_home
from eva_runs.commands import require_data

ROOT_VARIABLE = "DETECTRON2_DATASETS"
DIGIT_SCENES = "digit_scenes"  # folder that `tools/make_demo_data.py` writes for the demo configs
FREQUENCY_WEIGHT_POWER = 0.5  # paper Table 18

# name -> (images, annotations) below the root
COCO_STYLE: dict[str, tuple[str, str]] = {
    f"{name}_{part}": (f"{folder}/{part}", f"{folder}/annotations/{file}_{part}.json")
    for name, folder, file in (
        ("digit_scenes", f"{DIGIT_SCENES}/coco", "instances"),
        ("digit_scenes_keypoints", f"{DIGIT_SCENES}/keypoints", "instances"),
        ("objects365_v1", "objects365_v1", "objects365"),  # 600k training images
        # 1.7M training images; the paper trains on both splits
        ("objects365_v2", "objects365", "zhiyuan_objv2"),
    )
    for part in ("train", "val")
}

_POINTS = ("centre", "top", "bottom", "left", "right")
_DIGIT_POINTS = {
    "keypoint_names": _POINTS,
    "keypoint_connection_rules": [(_POINTS[0], name, (0, 0, 0)) for name in _POINTS[1:]],
}

# The part of LVIS v1 val that lies in COCO val2017 (`eva detection coco-lvis-gap subset` writes the
# first file), and that part with COCO's 80 classes, for detectors trained on COCO. Nobody
# distributes the files; the names are the official code's.
LVIS_STYLE: dict[str, tuple[str, str]] = {
    "lvis_v1_val_5k": ("coco", "lvis/lvis_v1_val_5k.json"),
    "lvis_v1_val_cocofied": ("coco", "lvis/lvis_v1_val_5k_cocofied.json"),
}


def dataset_root() -> Path:
    """Return the folder that holds the data sets, as detectron2 defines it."""
    return expand_home(os.environ.get(ROOT_VARIABLE, "datasets"))


def require_registered(names: Iterable[str]) -> None:
    """Refuse registered datasets whose files are not there, before anything is built."""
    root = os.environ.get(ROOT_VARIABLE)
    forms = f"{ROOT_VARIABLE} (it is {root}), or data of your own with --data"
    for name in names:
        metadata = MetadataCatalog.get(name)
        for path in (metadata.get("json_file"), metadata.get("image_root")):
            if path and "://" not in path:  # detectron2 can read other places than files
                require_data(path, name=f"the dataset {name}", forms=forms)


def registered_keypoints(name: str) -> KeypointNames | None:
    """Return the keypoints of a registered dataset, by its metadata; None without any."""
    return keypoints_of(name) if MetadataCatalog.get(name).get("keypoint_names") else None


def keypoints_of(name: str) -> KeypointNames:
    """Return the keypoints of a registered dataset that has some; else an AttributeError."""
    metadata = MetadataCatalog.get(name)
    names, lines = metadata.keypoint_names, metadata.get("keypoint_connection_rules") or ()
    pairs = ((names.index(first) + 1, names.index(second) + 1) for first, second, _ in lines)
    return KeypointNames(names=(*names,), skeleton=(*pairs,))


def register_all(root: Path) -> None:
    """Register every dataset of this module below a folder, if it is not yet; reads no file."""
    for name, (images, annotations) in COCO_STYLE.items():
        if name not in DatasetCatalog:
            about = _DIGIT_POINTS if "_keypoints_" in name else {}
            register_coco_instances(name, about, str(root / annotations), str(root / images))
    for name, (images, annotations) in LVIS_STYLE.items():
        if name not in DatasetCatalog:
            metadata = get_lvis_instances_meta(name)
            folder = f"{root / images}/"  # detectron2 appends the rest of the image's URL
            register_lvis_instances(name, metadata, str(root / annotations), folder)


def federated_class_weights(
    dataset: str = "lvis_v1_train", power: float = FREQUENCY_WEIGHT_POWER
) -> Tensor:
    """Compute each class's sampling weight in the federated loss: image count ** power.

    (classes,), by `class_image_count` of the dataset's metadata (arXiv 2103.07461).
    """
    counts = sorted(MetadataCatalog.get(dataset).class_image_count, key=lambda entry: entry["id"])
    return tensor([float(entry["image_count"]) for entry in counts]) ** power


def repeat_factors(dataset_dicts: list[dict[str, Any]], *, repeat_thresh: float) -> Tensor:
    """Compute how often each image is seen in an epoch, at least once: (images,).

    More often for images with a category below the frequency (LVIS paper, arXiv 1908.03195).
    """
    return RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        dataset_dicts, repeat_thresh
    )


register_all(dataset_root())
