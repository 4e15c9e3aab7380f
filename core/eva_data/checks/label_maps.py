"""Check images and label maps for semantic segmentation, pixel by pixel.

    python tools/verify_data.py semantic --layout ade20k --root data/ade/ADEChallengeData2016
    python tools/verify_data.py semantic --layout coco-stuff --root data/coco_stuff164k
    python tools/verify_data.py semantic --images photos --maps labels --classes classes.toml

Pairs, pictures that do not decode, sizes, labels that no class has, and pixels of each class.
"""

import argparse
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eva_data.checks.command import add_shared
from eva_data.checks.findings import Findings, Kind, write_json
from eva_data.checks.pictures import inspect
from eva_data.label_maps import (
    IGNORED,
    ClassFile,
    Pair,
    find_pairs,
    read_class_file,
    read_label_map,
)
from eva_data.pools import ordered_map
from eva_runs.commands import check_outputs, say

BY_HAND = "by hand"
KINDS: Mapping[str, Kind] = {
    "image_alone": Kind("image without a label map", BY_HAND),
    "map_alone": Kind("label map without an image", BY_HAND),
    "folder_absent": Kind("split without a folder", BY_HAND),
    "name_twice": Kind("two files of one name but for the suffix", BY_HAND),
    "image_broken": Kind("image that cannot be decoded", BY_HAND),
    "image_unread": Kind("image of fractions or 32 bits, which training cannot read", BY_HAND),
    "map_broken": Kind("label map that cannot be read, or of colours", BY_HAND),
    "size_differs": Kind("label map of another size than its image", BY_HAND),
    "label_unknown": Kind("label map with labels that no class has", BY_HAND),
    "map_empty": Kind("label map without a pixel of any class", "-", True),
    "class_absent": Kind("class without a pixel", "-", True),
    "split_size": Kind("split with another number of images than the official one", "-", True),
}
_TABLE_ROWS = 20  # classes that are printed; a report has all


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


class Checked(NamedTuple):
    """What is known of a pair.

    Attributes:
        problems: Kind and detail of each problem.
        labels: Values in the map.
        pixels: Number of pixels of each of these values.
    """

    problems: list[tuple[str, str]]
    labels: list[int]
    pixels: list[int]


def check_pair(pair: Pair, *, classes: ClassFile, decode: bool = True) -> Checked:
    """Look at an image and its label map.

    Args:
        pair: The two files.
        classes: Labels that are allowed.
        decode: Read all pixels of the image, not just its header.
    """
    problems = []
    picture = inspect(pair.image.parent, pair.image.name, decode=decode)
    if picture.problem:
        problems.append(("image_broken", picture.problem))
    elif picture.bits == 32:
        problems.append(("image_unread", f"mode {picture.mode}"))
    try:
        values = read_label_map(pair.label_map)
    except ValueError as error:
        return Checked([*problems, ("map_broken", str(error))], [], [])
    size = values.shape[::-1]
    if picture.seen_size and picture.seen_size != size:
        text = f"{size[0]} x {size[1]} px, the image {picture.seen_size[0]} x"
        problems.append(("size_differs", f"{text} {picture.seen_size[1]} px"))
    labels, pixels = np.unique(values, return_counts=True)
    unknown = sorted({*labels.tolist()} - {*classes.labels, *classes.ignore})
    if unknown:
        some = ", ".join(map(str, unknown[:5])) + (", ..." if unknown[5:] else "")
        problems.append(("label_unknown", some))
    if not {*labels.tolist()} & {*classes.labels}:
        problems.append(("map_empty", ""))
    return Checked(problems, labels.tolist(), pixels.tolist())


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
        kind = "folder_absent" if isinstance(error, FileNotFoundError) else "name_twice"
        findings.add(kind, str(images), str(error))
        return {"images": str(images), "maps": str(maps), "pairs": 0, "classes": []}
    findings.add_many("image_alone", len(lonely), map(str, lonely), f"none of its name in {maps}")
    findings.add_many("map_alone", len(unused), map(str, unused), f"none of its name in {images}")
    seen = dict.fromkeys(classes.labels, 0)
    area = dict.fromkeys(classes.labels, 0)
    check = functools.partial(check_pair, classes=classes, decode=decode)
    results = ordered_map(check, pairs, workers=workers, what="pairs")
    for pair, checked in zip(pairs, results, strict=True):
        for kind, detail in checked.problems:
            of_image = kind.startswith("image_")
            findings.add(kind, str(pair.image if of_image else pair.label_map), detail)
        for label, count in zip(checked.labels, checked.pixels, strict=True):
            if label in seen:
                seen[label] += 1
                area[label] += count
    listed = [
        {"name": name, "label": label, "images": seen[label], "pixels": area[label]}
        for name, label in zip(classes.names, classes.labels, strict=True)
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
    add_shared(
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
