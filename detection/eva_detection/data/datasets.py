"""Data sets beyond detectron2's builtin ones, registered when this module is imported."""

from pathlib import Path

from detectron2.data import DatasetCatalog
from detectron2.data.datasets import register_coco_instances, register_lvis_instances
from detectron2.data.datasets.lvis import get_lvis_instances_meta

from eva_detection.data.places import COCO_STYLE, LVIS_STYLE
from eva_detection.data.places import DIGIT_SCENES as DIGIT_SCENES
from eva_detection.data.places import dataset_root as dataset_root


def register_all(root: Path) -> None:
    """Register every data set of this module that is not registered yet; reads no file.

    Args:
        root: Folder that holds the data sets.
    """
    for name, (images, annotations) in COCO_STYLE.items():
        if name not in DatasetCatalog:
            register_coco_instances(name, {}, str(root / annotations), str(root / images))
    for name, (images, annotations) in LVIS_STYLE.items():
        if name not in DatasetCatalog:
            metadata = get_lvis_instances_meta(name)
            folder = f"{root / images}/"  # detectron2 appends the rest of the image's URL
            register_lvis_instances(name, metadata, str(root / annotations), folder)


register_all(dataset_root())
