"""Check of images and label maps for semantic segmentation: what training would refuse."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eva_data.checks.findings import Findings, Kind
from eva_data.images import UnreadableImageError, inspect_image
from eva_data.label_maps import (
    IGNORED,
    ClassFile,
    LabelMapError,
    LabelTable,
    Pair,
    find_pairs,
    read_pair,
)
from eva_data.pools import ordered_map

KINDS: Mapping[str, Kind] = {
    "image_alone": Kind("image without a label map", "by hand"),
    "map_alone": Kind("label map without an image", "by hand"),
    "split_broken": Kind("split without a folder, or with two files of one name", "by hand"),
    "image_broken": Kind("image that training cannot read", "by hand"),
    "map_broken": Kind("label map that training refuses", "by hand"),
}


# Splits, labels of the classes, the label to ignore, and the ending of the maps' names.
_LAYOUTS = {
    "ade20k": (("training", "validation"), range(1, 151), 0, ""),
    "coco-stuff": (("train2017", "val2017"), range(171), IGNORED, "_labelTrainIds"),
}


class Split(NamedTuple):
    """Folders of images and of label maps."""

    images: Path
    maps: Path


def open_layout(name: str, root: Path) -> tuple[ClassFile, dict[str, Split]]:
    """Find the splits of a public dataset, "ade20k" or "coco-stuff", below a folder."""
    parts, labels, ignore, ending = _LAYOUTS[name]
    splits = {}
    for part in parts:
        images = root / "images" / part
        images_folder = images if images.is_dir() else root / part
        splits[part] = Split(images_folder, root / "annotations" / part)
    classes = ClassFile(
        names=tuple(f"label {label}" for label in labels),
        labels=tuple(labels),
        colors=((0, 0, 0),) * len(labels),
        ignore=(ignore,),
        map_ending=ending,
    )
    return classes, splits


def check_split(
    split: Split, classes: ClassFile, findings: Findings, *, workers: int, decode: bool
) -> dict[str, Any]:
    """Read all pairs of two folders as training does; `decode` reads all pixels of the images too.

    `findings` gains what is wrong.

    Returns:
        Part of the report: the number of pairs, and images and pixels of each class.
    """
    about: dict[str, Any] = {"images": str(split.images), "maps": str(split.maps)}
    try:
        pairs, lonely, unused = find_pairs(
            *split, image_ending=classes.image_ending, map_ending=classes.map_ending
        )
    except (OSError, ValueError) as error:
        findings.add("split_broken", str(split.images), str(error))
        return about | {"pairs": 0, "classes": []}
    findings.add_many("image_alone", len(lonely), map(str, lonely))
    findings.add_many("map_alone", len(unused), map(str, unused))
    counts = np.zeros((2, len(classes.labels)), np.int64)  # images and pixels of each class
    check = functools.partial(_check_pair, classes=classes, decode=decode)
    results = ordered_map(check, pairs, workers=workers, title="pairs")
    for pair, (kind, detail, pixels) in zip(pairs, results, strict=True):
        if kind:
            file = pair.image if kind == "image_broken" else pair.label_map
            findings.add(kind, str(file), detail)
        else:
            counts += np.stack([np.array(pixels) > 0, pixels])
    columns = zip(classes.names, classes.labels, *counts.tolist(), strict=True)
    keys = ("name", "label", "images", "pixels")
    listed = [dict(zip(keys, row, strict=True)) for row in columns]
    return about | {"pairs": len(pairs), "classes": listed}


def _check_pair(pair: Pair, *, classes: ClassFile, decode: bool) -> tuple[str, str, list[int]]:
    """Return the kind and the detail of what is wrong, or the pixels of each class."""
    try:
        facts = inspect_image(pair.image, decode=decode)
        if facts.bits == 32:
            return "image_broken", f"mode {facts.mode}", []
        indices = read_pair(pair, LabelTable(classes.labels, classes.ignore))
    except UnreadableImageError as error:
        kind = "map_broken" if isinstance(error, LabelMapError) else "image_broken"
        return kind, str(error), []
    pixels = np.bincount(indices.ravel(), minlength=IGNORED + 1)[: len(classes.labels)]
    return "", "", pixels.tolist()
