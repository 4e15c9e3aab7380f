"""Data sets beyond detectron2's builtin ones, registered when this module is imported.

As for the builtin ones, files lie below the folder `$DETECTRON2_DATASETS` (default `datasets`).

Objects365 v1 and v2 both have 365 classes, under other ids and partly other names: class 4 of v1 is
"hat", of v2 "Other Shoes". The heads of a checkpoint of one are therefore not for the other, though
they load without complaint: its predictions would be named wrongly and score next to nothing.
A backbone, and the boxes of a class-agnostic regressor, can come from either.
"""

import os
from pathlib import Path

from detectron2.data import DatasetCatalog
from detectron2.data.datasets import register_coco_instances, register_lvis_instances
from detectron2.data.datasets.lvis import get_lvis_instances_meta

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
    # Objects365 v1: 600k training images
    "objects365_v1_train": (
        "objects365_v1/train",
        "objects365_v1/annotations/objects365_train.json",
    ),
    "objects365_v1_val": (
        "objects365_v1/val",
        "objects365_v1/annotations/objects365_val.json",
    ),
    # Objects365 v2: 1.7M training images; the paper trains on both splits
    "objects365_v2_train": (
        "objects365/train",
        "objects365/annotations/zhiyuan_objv2_train.json",
    ),
    "objects365_v2_val": (
        "objects365/val",
        "objects365/annotations/zhiyuan_objv2_val.json",
    ),
}

# The part of LVIS v1 val that lies in COCO val2017 (`tools/coco_lvis_gap.py subset` writes the
# first file), and that part with COCO's 80 classes, for detectors trained on COCO. Nobody
# distributes the files; the names are the official code's.
_LVIS_STYLE: dict[str, tuple[str, str]] = {
    "lvis_v1_val_5k": ("coco", "lvis/lvis_v1_val_5k.json"),
    "lvis_v1_val_cocofied": ("coco", "lvis/lvis_v1_val_5k_cocofied.json"),
}


def dataset_root() -> Path:
    """Return the folder that holds the data sets, as detectron2 defines it."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()


def register_all(root: Path) -> None:
    """Register every data set of this module that is not registered yet; reads no file.

    Args:
        root: Folder that holds the data sets.
    """
    for name, (images, annotations) in _COCO_STYLE.items():
        if name not in DatasetCatalog:
            register_coco_instances(name, {}, str(root / annotations), str(root / images))
    for name, (images, annotations) in _LVIS_STYLE.items():
        if name not in DatasetCatalog:
            metadata = get_lvis_instances_meta(name)
            folder = f"{root / images}/"  # detectron2 appends the rest of the image's URL
            register_lvis_instances(name, metadata, str(root / annotations), folder)


register_all(dataset_root())
