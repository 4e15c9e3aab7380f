"""What a user asks for with the flags of own data: paths, files, parts, tiles."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from eva_data.classes import ALLOW_EMPTY
from eva_data.detection.sources import PARTS, Files, Source, open_source, require_opener
from eva_data.detection.tiles import Slicing, add_overlap, add_slicing

_FILE_FLAGS = [f"{part}_{kind}" for part in PARTS for kind in ("annotations", "images")]


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
    values = {flag: getattr(args, flag, None) for flag in ("data", *_FILE_FLAGS)}
    stated = {flag: value for flag, value in values.items() if value}
    fraction, side = args.val_fraction, getattr(args, "tile", None)
    if not stated and fraction is None and not args.boxes_only and side is None:
        return None
    has_train = not {"train_annotations", "train_images"}.isdisjoint(stated)
    both = training or (fraction is None and has_train)
    needed = ("train",) if fraction is not None else PARTS if both else ("val",)
    _check_flags([*stated, *(["val_fraction"] if fraction is not None else [])], needed)
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


def _check_flags(used: list[str], needed: Sequence[str]) -> None:
    """Refuse files beside `--data`, those of parts that are not needed, and half a part."""
    files = [flag for flag in _FILE_FLAGS if flag in used]
    required = [flag for flag in _FILE_FLAGS if flag.partition("_")[0] in needed]
    missing = [] if "data" in used else [flag for flag in required if flag not in files]
    named_and_held_out = "val_fraction" in used and not set(files).isdisjoint(_FILE_FLAGS[2:])
    if missing or named_and_held_out or ("data" in used and files):
        raise ValueError(
            "own data are named with --data alone, or with annotations and images of each part; "
            "--val-fraction stands in place of data for evaluation, and --boxes-only beside data: "
            f"given {_as_flags(used)}, missing {_as_flags(missing)}"
        )


def _as_flags(names: list[str]) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in names) or "none"
