"""Check images and label maps for semantic segmentation: what training would refuse, and pixels.

eva data verify semantic --layout ade20k --root data/ade/ADEChallengeData2016
eva data verify semantic --layout coco-stuff --root data/coco_stuff164k
eva data verify semantic --images photos --maps labels --classes classes.toml
"""

import argparse
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eva_data.checks.findings import Findings, Kind, write_json
from eva_data.images import inspect_image
from eva_data.label_maps import (
    IGNORED,
    ClassFile,
    LabelTable,
    Pair,
    find_pairs,
    read_class_file,
    read_pair,
)
from eva_data.pools import ordered_map
from eva_runs.commands import check_outputs, say
from eva_runs.options import add_check_options

BY_HAND = "by hand"
KINDS: Mapping[str, Kind] = {
    "image_alone": Kind("image without a label map", BY_HAND),
    "map_alone": Kind("label map without an image", BY_HAND),
    "split_broken": Kind("split without a folder, or with two files of one name", BY_HAND),
    "image_broken": Kind("image that training cannot read", BY_HAND),
    "map_broken": Kind("label map that training refuses", BY_HAND),
    "map_empty": Kind("label map without a pixel of any class", "-", True),
    "class_absent": Kind("class without a pixel", "-", True),
    "split_size": Kind("split with another number of images than the official one", "-", True),
}
_TABLE_ROWS = 20  # classes that are printed; a report has all
_UNREAD_BITS = 32  # of fractions and whole numbers, which OpenCV does not read


class Layout(NamedTuple):
    """How a public data set lies on disk.

    Attributes:
        classes: Labels and file names.
        splits: Name -> possible folders of images, folder of label maps, official number of images.
    """

    classes: ClassFile
    splits: Mapping[str, tuple[Sequence[str], str, int]]


def _numbered(labels: range, *, ignore: int, map_ending: str = "") -> ClassFile:
    names = tuple(f"label {label}" for label in labels)
    colors = ((0, 0, 0),) * len(labels)
    return ClassFile(
        names=names, labels=tuple(labels), colors=colors, ignore=(ignore,), map_ending=map_ending
    )


LAYOUTS: Mapping[str, Layout] = {
    "ade20k": Layout(
        _numbered(range(1, 151), ignore=0),
        {
            "training": (("images/training",), "annotations/training", 20210),
            "validation": (("images/validation",), "annotations/validation", 2000),
        },
    ),
    "coco-stuff": Layout(
        _numbered(range(171), ignore=IGNORED, map_ending="_labelTrainIds"),
        {
            "train2017": (("images/train2017", "train2017"), "annotations/train2017", 118287),
            "val2017": (("images/val2017", "val2017"), "annotations/val2017", 5000),
        },
    ),
}


def check_pair(
    pair: Pair, *, classes: ClassFile, decode: bool = True
) -> tuple[dict[str, str], list[int]]:
    """Look at an image and its label map as training does.

    Args:
        pair: The two files.
        classes: Labels that are allowed.
        decode: Read all pixels of the image, not just its header.

    Returns:
        Kind -> detail of what is wrong, and pixels of each class; none of a map that is refused.
    """
    wrong: dict[str, str] = {}
    try:
        facts = inspect_image(pair.image, decode=decode)
        if facts.bits == _UNREAD_BITS:
            wrong["image_broken"] = f"mode {facts.mode}"
    except (ValueError, OSError) as error:
        wrong["image_broken"] = str(error)
    try:
        indices = read_pair(pair, LabelTable(classes.labels, classes.ignore))
    except (ValueError, OSError) as error:
        return wrong or {"map_broken": str(error)}, []
    pixels = np.bincount(indices.ravel(), minlength=IGNORED + 1)[: len(classes.labels)]
    return wrong | ({} if pixels.any() else {"map_empty": ""}), pixels.tolist()


def verify_split(
    images: Path,
    maps: Path,
    classes: ClassFile,
    *,
    findings: Findings,
    workers: int = 1,
    decode: bool = True,
) -> dict[str, Any]:
    """Check all pairs of two folders.

    Args:
        images: Folder of images.
        maps: Folder of label maps.
        classes: Labels and endings of names.
        findings: Receives what is wrong.
        workers: Number of processes.
        decode: Read all pixels of the images.

    Returns:
        Part of the report: the number of pairs, and images and pixels of each class.
    """
    try:
        pairs, lonely, unused = find_pairs(
            images, maps, image_ending=classes.image_ending, map_ending=classes.map_ending
        )
    except (FileNotFoundError, ValueError) as error:
        findings.add("split_broken", str(images), str(error))
        return {"images": str(images), "maps": str(maps), "pairs": 0, "classes": []}
    findings.add_many("image_alone", len(lonely), map(str, lonely), f"none of its name in {maps}")
    findings.add_many("map_alone", len(unused), map(str, unused), f"none of its name in {images}")
    seen = np.zeros(len(classes.labels), np.int64)
    area = np.zeros(len(classes.labels), np.int64)
    check = functools.partial(check_pair, classes=classes, decode=decode)
    results = ordered_map(check, pairs, workers=workers, what="pairs")
    for pair, (wrong, pixels) in zip(pairs, results, strict=True):
        for kind, detail in wrong.items():
            file = pair.image if kind == "image_broken" else pair.label_map
            findings.add(kind, str(file), detail)
        if pixels:
            seen += np.array(pixels) > 0
            area += np.array(pixels)
    listed = [
        {"name": name, "label": label, "images": int(images_of), "pixels": int(pixels_of)}
        for name, label, images_of, pixels_of in zip(
            classes.names, classes.labels, seen, area, strict=True
        )
    ]
    absent = [entry["name"] for entry in listed if not entry["images"]] if pairs else []
    findings.add_many("class_absent", len(absent), absent, f"in {maps}")
    return {"images": str(images), "maps": str(maps), "pairs": len(pairs), "classes": listed}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.set_defaults(run=_run)
    add = parser.add_argument
    add("--layout", choices=sorted(LAYOUTS), help="a public data set below --root")
    add("--root", type=Path, metavar="DIR", help="folder of the data set of --layout")
    add("--images", type=Path, metavar="DIR", help="own images")
    add("--maps", type=Path, metavar="DIR", help="own label maps, of the same names")
    add("--classes", type=Path, metavar="TOML", help="names and labels of own classes")
    add_check_options(
        parser,
        "files",
        skip="read headers of images only, and all of the maps",
        report="findings and counts of all classes",
    )


def _run(args: argparse.Namespace) -> int:
    check_outputs([args.report], overwrite=args.overwrite, inputs={"class file": args.classes})
    classes, splits = _plan(args)
    findings, decode = Findings(KINDS), not args.skip_decode
    done = {}
    for name, (images, maps, official) in splits.items():
        split = verify_split(
            images, maps, classes, findings=findings, workers=args.workers, decode=decode
        )
        if official and split["pairs"] != official:
            findings.add("split_size", name, f"{split['pairs']:,} pairs, not {official:,}")
        say(f"{name}: {split['pairs']:,} pairs in {images} and {maps}")
        _print_classes(split["classes"])
        done[name] = split
    listed = findings.as_json()
    if listed:
        say(findings.table())
    if args.report:
        problems = {"problems": findings.problems}
        write_json(args.report, problems | {"splits": done, "findings": listed})
    say(findings.summary())
    return 1 if findings.problems else 0


def _plan(args: argparse.Namespace) -> tuple[ClassFile, dict[str, tuple[Path, Path, int]]]:
    """Choose the classes, and name -> images, maps and official number (0 if there is none)."""
    own = (args.images, args.maps, args.classes)
    if args.layout:
        if any(own) or not args.root:
            raise ValueError("--layout goes with --root, not with --images, --maps and --classes")
        if not args.root.is_dir():
            raise FileNotFoundError(f"there is no folder {args.root}")
        layout = LAYOUTS[args.layout]
        splits = {}
        for name, (places, maps, official) in layout.splits.items():
            there = [place for place in places if (args.root / place).is_dir()]
            splits[name] = (args.root / (there or places)[0], args.root / maps, official)
        return layout.classes, splits
    if args.root or not all(own):
        raise ValueError("give --layout and --root, or all of --images, --maps and --classes")
    for folder in (args.images, args.maps):
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
    return read_class_file(args.classes), {"own": (args.images, args.maps, 0)}


def _print_classes(listed: list[dict[str, Any]]) -> None:
    if not listed or len(listed) > _TABLE_ROWS:
        return
    total = sum(entry["pixels"] for entry in listed) or 1
    width = max(len(entry["name"]) for entry in listed)
    for entry in listed:
        share = f"{entry['pixels'] / total:7.2%} of the pixels"
        say(f"  {entry['name']:<{width}}  in {entry['images']:>7,} maps, {share}")
