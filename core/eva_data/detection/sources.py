"""Sources of detection data: the format of a file or folder, what opens it, and its labels."""

import functools
import itertools
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from eva_data.band_files import inspect_bands
from eva_data.detection.box_tables import COLUMNS, find_tables, open_tables
from eva_data.detection.coco import file_name_of, validate
from eva_data.detection.datasets import PART_NAMES, CocoDataset, Entry, Report, refuse
from eva_data.detection.foreign import ForeignDataset, ImageList
from eva_data.detection.label_tools import find_labels
from eva_data.detection.voc import find_voc, open_voc
from eva_data.detection.yolo import YAML, find_yaml, open_yolo
from eva_data.files import load_json
from eva_data.images import ImageFacts, UnreadableImageError
from eva_data.pools import ordered_map

PARTS = ("train", "val")
_FEW = 20_000  # images whose sizes one process reads in some seconds
_FORMATS = (
    "a data.yaml of YOLO or its folder, a folder of Pascal VOC (Annotations, JPEGImages; or images "
    f"with .xml beside them), a table of boxes (.csv with {COLUMNS}) or its folder, a folder of "
    "COCO files (train/_annotations.coco.json, or annotations/instances_train.json), or an export "
    "of CVAT (annotations.xml), Label Studio (tasks.json) or FiftyOne (labels.json), or a file of "
    "these; YOLO needs a data.yaml with names, train and val"
)
_ROBOFLOW = "_annotations.coco.json"
PANOPTIC = "panoptic_"  # begins the names of files in COCO's panoptic format
_PREFIXES = ("instances_", "person_keypoints_", PANOPTIC)  # the first that there is
_COCO_STEMS = {"train": ("train", "default"), "val": ("val",), "test": ("test",)}

Files = Mapping[str, tuple[Path, Path]]  # part -> annotation file in COCO format, image folder
Source = ForeignDataset | Files


def open_source(path: Path, *, report: Report = refuse) -> Source:
    """Find the format of a dataset, a file or a folder, and open it.

    `report` takes errors of labels that are read now, which are raised by default, as are others.

    Returns:
        Images with their labels; or part -> file in COCO format and its images.
    """
    return require_opener(path)(report)


def require_opener(path: Path) -> Callable[[Report], Source]:
    """Find the format of a dataset; return what opens it, or raise a ValueError."""
    opener = find_opener(path)
    if opener is not None:
        return opener
    problem = "is not" if path.exists() else "is not there; it must be"
    raise ValueError(f"{path} {problem} {_FORMATS}")


def find_opener(path: Path) -> Callable[[Report], Source] | None:
    """Find the format of a dataset; return what opens it, None if there is no dataset."""
    if path.is_dir():
        exports = find_exports(path)
        if exports:
            return lambda report: exports
        voc = find_voc(path)
        if voc is not None:
            return lambda report: open_voc(voc, report=report)
    elif path.suffix == ".json" and path.is_file() and (export := _find_export(path)):
        return lambda report: export
    description = find_yaml(path) if path.is_dir() else path
    if description is not None and description.suffix.lower() in YAML and description.is_file():
        return lambda report: open_yolo(description)
    tables = find_tables(path)
    if tables:
        return lambda report: open_tables(tables, report=report)
    return find_labels(path)


def _find_export(file: Path) -> dict[str, tuple[Path, Path]]:
    """Find the images of a file in COCO format by the name of the first; {} for another JSON."""
    content = load_json(file)
    entries = content.get("images") if isinstance(content, dict) else None
    if not isinstance(entries, list) or "categories" not in content:
        return {}
    first = file_name_of(entries[0]) if entries and isinstance(entries[0], dict) else ""
    if not first:
        return {}
    name = _part_of(file)
    above = (file.parent, file.parent.parent)
    parts = ("", name, "images", f"images/{name}", "data")
    folders = [folder / part for folder in above for part in parts]
    images = next((folder for folder in folders if (folder / first).is_file()), None)
    if images is None:
        raise ValueError(
            f"{file}: its first image {first} is in none of {', '.join(map(str, folders))}; name "
            "the folder with --train-annotations FILE --train-images DIR, or with --images DIR to "
            "eva data verify"
        )
    return {"train": (file, images)}


def _part_of(file: Path) -> str:
    """Return the part of a dataset that a file is named by, such as val2017."""
    prefix = next((prefix for prefix in _PREFIXES if file.stem.startswith(prefix)), "")
    return file.stem.removeprefix(prefix)


def find_exports(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Find annotation files in COCO format and their images, by the usual names.

    `train/_annotations.coco.json` with the images beside it and `valid/` (Roboflow), or
    `annotations/instances_train*.json`, or `person_keypoints_train*.json` without these, or else
    `panoptic_train*.json` with a folder of its name beside it, with `train*/` or `images/train*/`
    (COCO, CVAT), or `labels.json` with `data/` (FiftyOne).
    """
    exports: dict[str, tuple[Path, Path]] = {}
    for part, names in PART_NAMES.items():
        for path in (folder / name for name in names):
            if (path / _ROBOFLOW).is_file():
                exports.setdefault(part, (path / _ROBOFLOW, path))
    if {*exports} & {*PARTS}:
        return exports
    for name, below in ((_ROBOFLOW, folder), ("labels.json", folder / "data")):
        if (folder / name).is_file() and below.is_dir():
            return {"train": (folder / name, below)}
    exports = {}
    for part, stems in _COCO_STEMS.items():
        files: list[Path] = []
        for prefix in _PREFIXES:
            patterns = [f"{prefix}{stem}*.json" for stem in stems]
            every = [sorted((folder / "annotations").glob(pattern)) for pattern in patterns]
            files = files or [*itertools.chain(*every)]
        if not files or (part == "test" and "val" in exports):  # for which it only stands in
            continue
        name = _part_of(files[0])
        folders = [folder / name, folder / "images" / name, folder / "images"]
        images = next((path for path in folders if path.is_dir()), None)
        if len(files) == 1 and images is not None:
            exports[part] = files[0], images
        elif part != "test":
            raise ValueError(
                f"{', '.join(map(str, files))}: there is not one such file, with a folder of "
                f"images of its name in {folder} or {folder / 'images'}; name one with "
                f"--{part}-annotations, and its images with --{part}-images"
            )
    return exports


def read_labels(
    source: ForeignDataset,
    images: ImageList,
    *,
    scored: Container[str] = (),
    boxes_only: bool = False,
    report: Report = refuse,
) -> tuple[CocoDataset, list[str], int]:
    """Read images and labels of a part of a dataset; ids count from 1 in the order of the names.

    `scored` are the names of images for evaluation; `report` takes errors of labels, which are
    raised by default.

    Returns:
        The dataset; each image that is not in it, with the reason; how many have alpha.
    """
    workers = 1 if len(images.names) < _FEW else min(8, os.cpu_count() or 1)
    work = functools.partial(_facts, str(images.folder))
    facts = list(ordered_map(work, images.names, workers=workers, title="image sizes", chunk=256))
    lost = [f"{name} is not there" for name in images.missing]
    entries: list[Entry] = []
    transparent = 0
    for name, fact in zip(images.names, facts, strict=True):
        if isinstance(fact, str):
            lost.append(fact)
            continue
        width, height = fact.seen_size
        number = len(entries) + 1
        entries.append({"id": number, "file_name": name, "height": height, "width": width})
        transparent += fact.transparent

    def annotations() -> Iterator[Entry]:
        for entry in entries:
            name, size = entry["file_name"], (entry["height"], entry["width"])
            if name in images.labels:
                for annotation in source.read(images.labels[name], size, name in scored, report):
                    yield {"image_id": entry["id"], **annotation}

    lists: dict[str, Iterable[Any]] = {
        "images": entries,
        "categories": [{"id": n, "name": name} for n, name in enumerate(source.classes, start=1)],
        "annotations": annotations(),
    }
    dataset = validate(
        source.source, lists, folder=images.folder, boxes_only=boxes_only, report=report
    )
    return dataset, lost, transparent


def _facts(folder: str, name: str) -> ImageFacts | str:
    try:
        return inspect_bands(f"{folder}/{name}", decode=False)
    except UnreadableImageError as error:
        return str(error)
