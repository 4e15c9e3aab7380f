"""Own data as detectron2's records, and what is said and checked of the records of any dataset."""

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from detectron2.data import DatasetFromList, MetadataCatalog
from detectron2.data.build import (
    filter_images_with_only_crowd_annotations,
    print_instances_class_histogram,
)
from detectron2.structures import BoxMode
from omegaconf import DictConfig

from eva_backbone.checkpoints.reading import list_names
from eva_data.detection.coco import CocoDataset, read_coco
from eva_data.detection.tiles import Slicing, tile_dataset

_THREADS, _AT_ONCE = 16, 1000  # a network file system answers many questions at once
_LOOKS = 20_000  # images; a network file system takes some milliseconds for each
_ENDLESS = "is a pipe, socket or device"


def load_records(
    *,
    annotations: str,
    images: str,
    categories: Mapping[int, str],
    filter_empty: bool,
    boxes_only: bool = False,
    tile: Sequence[Any] | None = None,
    dataset: CocoDataset | None = None,
) -> list[dict[str, Any]]:
    """Load a dataset in detectron2's format: one record for each image, in the order of their ids.

    `annotations` is a COCO file, read already if there is a `dataset`; `categories` are the model's
    classes in the order of the ids. `filter_empty` leaves out images without objects, or with
    crowds alone, `boxes_only` masks. Of `tile`, side and overlap, there is a record each; objects
    that a border cuts below 30 % are crowds, which detectron2 leaves out.
    """
    dataset = dataset or read_coco(annotations, boxes_only=boxes_only)
    dataset = tile_dataset(dataset, Slicing(*tile)) if tile else dataset
    dataset.check_categories(categories, of="the config")
    classes = {category: index for index, category in enumerate(sorted(categories))}
    records = {
        key: {
            "file_name": str(Path(images) / entry["file_name"]),
            "image_id": key,
            "height": entry["height"],
            "width": entry["width"],
            "annotations": [],
            **{name: entry[name] for name in ("tile",) if name in entry},
        }
        for key, entry in sorted(dataset.images.items())
    }
    for annotation in dataset.objects:
        new = {"bbox_mode": BoxMode.XYWH_ABS, "category_id": classes[annotation["category_id"]]}
        fields = {
            key: value for key, value in annotation.items() if key not in ("image_id", "area")
        }
        records[annotation["image_id"]]["annotations"].append(fields | new)
    listed = list(records.values())
    if filter_empty:
        listed = filter_images_with_only_crowd_annotations(listed)
    print_instances_class_histogram(listed, [categories[key] for key in sorted(categories)])
    return listed


def records_of(dataset: Any) -> Any:
    """Return the records of a dataset that a config builds; none for other kinds."""
    if isinstance(dataset, DatasetFromList):
        return dataset
    plain = isinstance(dataset, (list, tuple)) and all(
        isinstance(record, Mapping) for record in dataset
    )
    return dataset if plain else ()


def describe_data(node: Any, records: Sequence[Mapping[str, Any]]) -> str:
    """Describe a dataset in one line: numbers of images, objects, classes, and its file."""
    names = registered_names(node)
    names_of_classes = MetadataCatalog.get(names[0]).get("thing_classes", ()) if names else ()
    classes = (node.get("categories") if isinstance(node, DictConfig) else None) or names_of_classes
    objects = sum(len(record.get("annotations", ())) for record in records)
    images = "tiles" if records and "tile" in records[0] else "images"
    counts = {images: len(records), "objects": objects, "classes": len(classes)}
    summary = ", ".join(f"{count:,} {unit}" for unit, count in counts.items() if count)
    location = ", ".join(annotation_files(node))
    return f"{summary} ({location})" if location else summary


def registered_names(node: Any) -> list[str]:
    """List the names of registered datasets in a node of a config; none for own data."""
    names = node.get("names") if isinstance(node, DictConfig) else None
    return [names] if isinstance(names, str) else [str(name) for name in names or ()]


def annotation_files(node: Any) -> list[str]:
    """List the annotation files of the dataset of a node."""
    return _places(node, "annotations", "json_file")


def image_folder(node: Any) -> str | None:
    """Return the image folder of a node's dataset; None if it is not known."""
    return next(iter(_places(node, "images", "image_root")), None)


def _places(node: Any, stated: str, registered: str) -> list[str]:
    if isinstance(node, DictConfig) and node.get(stated):
        return [str(node[stated])]
    values = [MetadataCatalog.get(name).get(registered) for name in registered_names(node)]
    return [str(value) for value in values if value]


def check_files(records: Sequence[Mapping[str, Any]], *, part: str, allowed: int = 0) -> list[str]:
    """Look at image files of a dataset, evenly over all, before hours are spent on the rest."""
    seen = (records[number] for number in range(0, len(records), -(-len(records) // _LOOKS) or 1))
    files = [
        (str(record["file_name"]), record.get("image_id"))
        for record in seen
        if "file_name" in record
    ]
    groups = [files[start : start + _AT_ONCE] for start in range(0, len(files), _AT_ONCE)]
    with ThreadPoolExecutor(_THREADS) as pool:
        texts = [problem for problems in pool.map(_problems, groups) for problem in problems]
    endless = [problem for problem in texts if problem.endswith(_ENDLESS)]
    if endless or len(texts) > allowed:
        raise ValueError(
            f"{len(texts)} of {len(files)} images looked at for {part} cannot be read: "
            f"{list_names(endless or texts, 10)}; put them there, or take them out of the "
            "annotations"
        )
    return texts


def _problems(files: Sequence[tuple[str, Any]]) -> list[str]:
    problems = ((name, image, _problem(name)) for name, image in files if "://" not in name)
    return [f"{name} (id {image}) {problem}" for name, image, problem in problems if problem]


def _problem(name: str) -> str:
    try:
        status = os.stat(name)  # noqa: PTH116 (of millions: no object for each)
    except OSError as error:
        return f"({error.strerror})"
    if not stat.S_ISREG(status.st_mode):
        return "is a folder" if stat.S_ISDIR(status.st_mode) else _ENDLESS
    return "" if status.st_size else "is empty"


def check_labels(records: Iterable[Mapping[str, Any]], classes: int) -> None:
    """Refuse objects of a class that the detector does not have."""
    for record in records:
        for annotation in record.get("annotations", ()):
            if not 0 <= annotation["category_id"] < classes:
                raise ValueError(
                    f"{record.get('file_name')} (id {record.get('image_id')}) has an object of "
                    f"class {annotation['category_id']}, but "
                    f"model.roi_heads.num_classes={classes}: set "
                    "that to the number of classes of the data"
                )
