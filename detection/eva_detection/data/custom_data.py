"""Any data set in COCO format as detectron2's records, and the memory that its file takes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.data.build import (
    filter_images_with_only_crowd_annotations,
    print_instances_class_histogram,
)
from detectron2.structures import BoxMode
from omegaconf import DictConfig, OmegaConf

from eva_data.coco.files import check_categories, forget, read_coco


def load_records(
    *,
    annotations: str,
    images: str,
    categories: Mapping[int, str],
    filter_empty: bool,
    boxes_only: bool = False,
) -> list[dict[str, Any]]:
    """Load a data set in detectron2's format.

    Args:
        annotations: File in COCO format.
        images: Folder of its images.
        categories: Name of each category id; the classes of the model, in order of the ids.
        filter_empty: Leave out images without objects, or with crowds alone.
        boxes_only: Leave masks alone, whatever they are.

    Returns:
        One record for each image, in order of the image ids.

    Raises:
        ValueError: If the file is not right, has other categories, or no image is left.
    """
    file = read_coco(annotations, boxes_only=boxes_only)
    check_categories(file, categories, of="the config")
    classes = {category: index for index, category in enumerate(sorted(categories))}
    records = {
        key: {
            "file_name": str(Path(images) / entry["file_name"]),
            "image_id": key,
            "height": entry["height"],
            "width": entry["width"],
            "annotations": [],
        }
        for key, entry in sorted(file.images.items())
    }
    for one in file.objects:
        new = {"bbox_mode": BoxMode.XYWH_ABS, "category_id": classes[one["category_id"]]}
        kept = {key: value for key, value in one.items() if key not in ("image_id", "area")}
        records[one["image_id"]]["annotations"].append(kept | new)
    found = list(records.values())
    if filter_empty:
        found = filter_images_with_only_crowd_annotations(found)
    if not found:
        raise ValueError(f"{annotations} has no image with objects")
    print_instances_class_histogram(found, [categories[key] for key in sorted(categories)])
    return found


def forget_training_file(cfg: DictConfig) -> None:
    """Free the memory of the training file, which is not read again once its records are there.

    Args:
        cfg: The config; nothing is done for data sets of another kind, or where the evaluation
            needs the same file.
    """
    train, test = (
        OmegaConf.select(cfg, f"dataloader.{part}.dataset.annotations")
        for part in ("train", "test")
    )
    if train and train != test:
        forget(train)
