"""Data sets beyond detectron2's builtin ones, registered when this module is imported.

As for the builtin ones, files lie below the folder `$DETECTRON2_DATASETS` (default `datasets`).
"""

import os
from pathlib import Path

from detectron2.data import DatasetCatalog
from detectron2.data.datasets import register_coco_instances

DIGIT_SCENES = "digit_scenes"  # folder that `tools/make_demo_data.py` writes for the demo configs

# name -> (images, annotations) below the root
_COCO_STYLE: dict[str, tuple[str, str]] = {
    "digit_scenes_train": (
        f"{DIGIT_SCENES}/coco/train",
        f"{DIGIT_SCENES}/coco/annotations/instances_train.json",
    ),
    "digit_scenes_val": (
        f"{DIGIT_SCENES}/coco/val",
        f"{DIGIT_SCENES}/coco/annotations/instances_val.json",
    ),
    # Objects365 v2, 365 classes; the paper trains on both
    "objects365_v2_train": (
        "objects365/train",
        "objects365/annotations/zhiyuan_objv2_train.json",
    ),
    "objects365_v2_val": (
        "objects365/val",
        "objects365/annotations/zhiyuan_objv2_val.json",
    ),
}


def dataset_root() -> Path:
    """Folder that holds the data sets, as detectron2 defines it."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()


def register_all(root: Path) -> None:
    """Register every data set of this module that is not registered yet; reads no file.

    Args:
        root: Folder that holds the data sets.
    """
    for name, (images, annotations) in _COCO_STYLE.items():
        if name not in DatasetCatalog:
            register_coco_instances(name, {}, str(root / annotations), str(root / images))


register_all(dataset_root())
