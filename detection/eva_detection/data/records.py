"""The records of a dataset in detectron2's form: made of own data, counted, looked at once."""

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
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf

from eva_backbone.checkpoints.reading import list_names
from eva_data.detection.datasets import CocoDataset
from eva_data.files import display_path
from eva_report.terminal import counted

_THREADS = 16  # a network file system answers many questions at once
_LOOKS = 20_000  # images; a network file system takes some milliseconds for each


def looks_at_files() -> bool:
    """Return whether this process looks at the data for all of its machine."""
    return comm.get_world_size() == 1 or comm.get_local_rank() == 0


def make_records(
    dataset: CocoDataset, categories: Mapping[int, str], *, filter_empty: bool
) -> list[dict[str, Any]]:
    """Make detectron2's records: one for each image or tile, in the order of their ids.

    `categories` are the model's classes in the order of the ids. `filter_empty` leaves out images
    without objects, or with crowds alone.
    """
    dataset.check_categories(categories, of="the config")
    classes = {category: index for index, category in enumerate(sorted(categories))}
    records = {
        key: {
            "file_name": str(Path(dataset.folder) / entry["file_name"]),
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
        if "keypoints" in fields:  # of pixels, whose middle detectron2 takes, as it does of COCO's
            halves = [0.5, 0.5, 0] * (len(fields["keypoints"]) // 3)
            points = zip(fields["keypoints"], halves, strict=True)
            fields["keypoints"] = [value + half for value, half in points]
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


def describe_data(cfg: DictConfig, part: str, records: Sequence[Mapping[str, Any]]) -> str:
    """Describe a dataset in one line: numbers of images, objects, classes, and its file."""
    classes = OmegaConf.select(cfg, "own_data.categories")
    if classes is None:
        names = registered_names(cfg, part)
        classes = MetadataCatalog.get(names[0]).get("thing_classes", ()) if names else ()
    objects = sum(len(record.get("annotations", ())) for record in records)
    image = "tile" if records and "tile" in records[0] else "image"
    counts = {image: len(records), "object": objects, "class": len(classes)}
    summary = ", ".join(counted(count, unit) for unit, count in counts.items() if count)
    location = ", ".join(map(display_path, annotation_files(cfg, part)))
    return f"{summary} ({location})" if location else summary


def registered_names(cfg: DictConfig, part: str) -> list[str]:
    """List the names of the registered datasets of "train" or "val"; none for own data."""
    loader = cfg.dataloader.train if part == "train" else cfg.dataloader.test
    names = loader.dataset.get("names")
    return [names] if isinstance(names, str) else [str(name) for name in names or ()]


def annotation_files(cfg: DictConfig, part: str) -> list[str]:
    """List the annotation files of "train" or "val"."""
    return _paths(cfg, part, "annotations", "json_file")


def image_folder(cfg: DictConfig) -> str | None:
    """Return the folder of the images for evaluation; None if it is not known."""
    return next(iter(_paths(cfg, "val", "images", "image_root")), None)


def _paths(cfg: DictConfig, part: str, own: str, registered: str) -> list[str]:
    if "own_data" in cfg:
        return [str(cfg.own_data[part][own])]
    values = [MetadataCatalog.get(name).get(registered) for name in registered_names(cfg, part)]
    return [str(value) for value in values if value]


def check_files(records: Sequence[Mapping[str, Any]], *, part: str, allowed: int = 0) -> list[str]:
    """Look at image files of a dataset, evenly over all, before hours are spent on the rest."""
    seen = (records[number] for number in range(0, len(records), -(-len(records) // _LOOKS) or 1))
    files = [record for record in seen if "://" not in str(record.get("file_name", "://"))]
    with ThreadPoolExecutor(_THREADS) as pool:
        looks = list(pool.map(_find_problem, files))
    problems = [problem for problem in looks if problem]
    if len(problems) > allowed:
        raise ValueError(
            f"{len(problems)} of {len(files)} images looked at for {part} cannot be read: "
            f"{list_names(problems, 10)}; put them there, or take them out of the annotations"
        )
    return problems


def _find_problem(record: Mapping[str, Any]) -> str:
    """Say why the file of a record cannot be an image; nothing if it may be one."""
    name = f"{record['file_name']} (id {record.get('image_id')})"
    try:
        status = Path(record["file_name"]).stat()
    except OSError as error:
        return f"{name} ({error.strerror})"
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return f"{name} is no file, or empty"
    return ""


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
