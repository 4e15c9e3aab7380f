"""Where the files of registered data sets lie; nothing heavy is imported.

As detectron2's builtin ones, all lie below the folder `$DETECTRON2_DATASETS` (default `datasets`).

Objects365 v1 and v2 both have 365 classes, under other ids and partly other names: class 4 of v1 is
"hat", of v2 "Other Shoes". The heads of a checkpoint of one are therefore not for the other, though
they load without complaint: its predictions would be named wrongly and score next to nothing.
A backbone, and the boxes of a class-agnostic regressor, can come from either.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from eva_data.files import home_expanded
from eva_runs.commands import require_data

ROOT_VARIABLE = "DETECTRON2_DATASETS"
DIGIT_SCENES = "digit_scenes"  # folder that `tools/make_demo_data.py` writes for the demo configs

# name -> (images, annotations) below the root
COCO_STYLE: dict[str, tuple[str, str]] = {
    f"{name}_{part}": (f"{folder}/{part}", f"{folder}/annotations/{file}_{part}.json")
    for name, folder, file in (
        ("digit_scenes", f"{DIGIT_SCENES}/coco", "instances"),
        ("objects365_v1", "objects365_v1", "objects365"),  # 600k training images
        # 1.7M training images; the paper trains on both splits
        ("objects365_v2", "objects365", "zhiyuan_objv2"),
    )
    for part in ("train", "val")
}

# The part of LVIS v1 val that lies in COCO val2017 (`eva detection coco-lvis-gap subset` writes the
# first file), and that part with COCO's 80 classes, for detectors trained on COCO. Nobody
# distributes the files; the names are the official code's.
LVIS_STYLE: dict[str, tuple[str, str]] = {
    "lvis_v1_val_5k": ("coco", "lvis/lvis_v1_val_5k.json"),
    "lvis_v1_val_cocofied": ("coco", "lvis/lvis_v1_val_5k_cocofied.json"),
}

# What the recipes take of detectron2's builtin ones; the images of LVIS are COCO's.
BUILTIN: dict[str, tuple[str, str]] = {
    "coco_2017_train": ("coco/train2017", "coco/annotations/instances_train2017.json"),
    "coco_2017_val": ("coco/val2017", "coco/annotations/instances_val2017.json"),
    "lvis_v1_train": ("coco", "lvis/lvis_v1_train.json"),
    "lvis_v1_val": ("coco", "lvis/lvis_v1_val.json"),
}


def dataset_root() -> Path:
    """Return the folder that holds the data sets, as detectron2 defines it."""
    return home_expanded(os.environ.get(ROOT_VARIABLE, "datasets"))


def require_registered(names: Iterable[str]) -> None:
    """Refuse registered datasets whose files are not there, before anything is built."""
    root, places = os.environ.get(ROOT_VARIABLE), COCO_STYLE | LVIS_STYLE | BUILTIN
    if "://" in (root or ""):  # detectron2 can read other places than files
        return
    forms = f"{ROOT_VARIABLE} (it is {root}), or data of your own with --data"
    for name in names:
        for place in reversed(places.get(name, ())):
            require_data(str(dataset_root() / place), name=f"the dataset {name}", forms=forms)
