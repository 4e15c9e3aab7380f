"""Sources of detection data: what a command line names, and the files that it stands for."""

import argparse
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from eva_data.classes import ALLOW_EMPTY
from eva_data.detection.box_tables import COLUMNS, find_tables, open_tables
from eva_data.detection.coco import file_name_of
from eva_data.detection.datasets import PART_NAMES, ForeignDataset, Report, refuse
from eva_data.detection.label_tools import find_labels
from eva_data.detection.tiles import Slicing, add_overlap, add_slicing
from eva_data.detection.voc import find_voc, open_voc
from eva_data.detection.yolo import YAML, find_yaml, open_yolo
from eva_data.files import load_json

PARTS = ("train", "val")
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


@dataclass(frozen=True, kw_only=True)
class DataRequest:
    """Detection data as a user names them.

    Attributes:
        paths: Datasets of `--data`, which are merged.
        files: Files in COCO format in place of them.
        parts: Parts that are needed.
        val_fraction: Fraction of the training images to evaluate on; None where others are named.
        boxes_only: Leave masks alone.
        tile: Tiles that are trained on.
        allow_empty: Whether classes may have no object.
    """

    paths: tuple[Path, ...] = ()
    files: Files = field(default_factory=dict)
    parts: tuple[str, ...] = PARTS
    val_fraction: float | None = None
    boxes_only: bool = False
    tile: Slicing | None = None
    allow_empty: bool = False

    @property
    def first_path(self) -> Path | None:
        """The first file or folder that is named; None without any."""
        return next(iter([*self.paths, *(file for file, _ in self.files.values())]), None)

    @classmethod
    def from_json(cls, stated: Mapping[str, Any], parts: tuple[str, ...]) -> Self:
        """Make the request of what `DetectionData.as_json` has stated, for some parts of it.

        Raises:
            ValueError: If the files of a part are not stated.
        """
        if not all(stated.get(part, {}).get("annotations") for part in parts):
            raise ValueError("the config is of own data whose files it does not state: name data")
        return cls(
            files={
                part: (Path(stated[part]["annotations"]), Path(stated[part]["images"]))
                for part in parts
            },
            parts=parts,
            boxes_only=stated["boxes_only"],
            tile=Slicing(*stated["tile"]) if stated["tile"] and "train" in parts else None,
            allow_empty=True,  # as the run may have been
        )

    def check(self) -> None:
        """Refuse a path without a dataset; labels are read by `open`."""
        for path in self.paths:
            require_opener(path.absolute())

    def open(self) -> dict[Path, Source]:
        """Open the sources, by the paths that errors name."""
        if self.files:
            return {next(iter(self.files.values()))[0]: self.files}
        return {path.absolute(): open_source(path.absolute()) for path in self.paths}


def add_arguments(parser: argparse.ArgumentParser, *, training: bool = True) -> None:
    """Add the flags for own data and for tiles; those of training where a program is `training`."""
    about = "any dataset in the form of YOLO, Pascal VOC, COCO or a table of boxes"
    if training:
        about += "; the training data define the classes"
    group = parser.add_argument_group("your own data", about)
    add = group.add_argument
    help_text = (
        "data.yaml of YOLO, folder of Pascal VOC, CSV of boxes, or folder of a COCO export, in "
        "place of the files and folders below; several are merged"
    )
    add("--data", action="append", type=Path, metavar="PATH", help=help_text)
    for part, purpose in (("train", "training"), ("val", "evaluation")):
        if training or part == "val":
            add(f"--{part}-annotations", type=Path, metavar="FILE", help=f"COCO JSON for {purpose}")
            help_text = f"folder of images for {purpose}"
            add(f"--{part}-images", type=Path, metavar="DIR", help=help_text)
    help_text = (
        "fraction of the training images to evaluate on, such as 0.1, where none are named; "
        "chosen by their names, always the same; 1 evaluates on all that is trained on"
    )
    add("--val-fraction", "--val-share", type=float, metavar="FRACTION", help=help_text)
    if training:
        help_text = (
            "train on tiles of this side of larger images, which are cropped as they are read"
        )
        tile = add("--tile", type=int, metavar="PIXELS", help=help_text)
        add_overlap(group, "--tile-overlap", tile)
    if training:
        add(ALLOW_EMPTY, action="store_true", help="train on classes that no object is of, too")
    add("--boxes-only", action="store_true", help="no mask head; masks are not looked at")
    add_slicing(parser)


def read_request(args: argparse.Namespace, *, training: bool) -> DataRequest | None:
    """Read the flags of `add_arguments`; None if they name no data.

    Without `training` those for evaluation are needed alone, or those that some are held out of.
    """
    flags = [f"{part}_{kind}" for part in PARTS for kind in ("annotations", "images")]
    values = {flag: getattr(args, flag, None) for flag in ("data", *flags)}
    stated = {flag: value for flag, value in values.items() if value}
    fraction, side = args.val_fraction, getattr(args, "tile", None)
    if not stated and fraction is None and not args.boxes_only and side is None:
        return None
    has_train = not {"train_annotations", "train_images"}.isdisjoint(stated)
    both = training or (fraction is None and has_train)
    needed = ("train",) if fraction is not None else PARTS if both else ("val",)
    required = [flag for flag in flags if flag.partition("_")[0] in needed]
    missing = [] if args.data else [flag for flag in required if flag not in stated]
    excluded = [] if args.data is None else [flag for flag in flags if flag in stated]
    if fraction is not None:
        excluded += [flag for flag in flags[2:] if flag in stated]
    if missing or excluded:
        used = [*stated, *(["val_fraction"] if fraction is not None else [])]
        raise ValueError(
            "own data are named with --data alone, or with annotations and images of each part; "
            "--val-fraction stands in place of data for evaluation, and --boxes-only beside data: "
            f"given {_as_flags(used)}, missing {_as_flags(missing)}"
        )
    files = {
        part: (
            stated[f"{part}_annotations"].absolute(),
            stated[f"{part}_images"].absolute(),
        )
        for part in (() if args.data else needed)
    }
    return DataRequest(
        paths=tuple(args.data or ()),
        files=files,
        parts=PARTS if both else ("val",),
        val_fraction=fraction,
        boxes_only=args.boxes_only,
        tile=None if side is None else Slicing(side, args.tile_overlap),
        allow_empty=getattr(args, "allow_empty_classes", False),
    )


def _as_flags(names: list[str]) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in names) or "none"


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
