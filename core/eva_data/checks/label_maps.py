"""Check of images and label maps for semantic segmentation: what training would refuse."""

import functools
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eva_data.band_files import inspect_bands
from eva_data.checks.findings import Findings, Kind
from eva_data.checks.images import DARK
from eva_data.images import UnreadableImageError, describe_dark
from eva_data.label_maps import (
    IGNORED,
    ClassFile,
    LabelMapError,
    LabelTable,
    Pair,
    compare_labels,
    find_pairs,
    read_values,
)
from eva_data.pools import ordered_map

KINDS: Mapping[str, Kind] = {
    "labels": Kind("maps whose labels are not those of the class file", "by hand"),
    "image_alone": Kind("image without a label map", "by hand"),
    "map_alone": Kind("label map without an image", "by hand"),
    "split_broken": Kind("split without a folder, or with two files of one name", "by hand"),
    "image_broken": Kind("image that training cannot read", "by hand"),
    "map_broken": Kind("label map that training refuses", "by hand"),
    "unseen": Kind("class without a pixel", "by hand", note=True),
    "ignored": Kind("label that the class file ignores", "by hand", note=True),
    "dark": DARK,
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
    split: Split,
    classes: ClassFile,
    findings: Findings,
    *,
    workers: int,
    decode: bool,
    file: Path | None = None,
    may_lack: bool = False,
    bands: int | None = None,
) -> dict[str, Any]:
    """Read all pairs of two folders as training does; `decode` reads all pixels of the images too.

    `findings` gains what is wrong. The class file of own data is compared with the maps, of which
    some classes `may_lack` pixels.

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
    counts = {label: np.zeros(2, np.int64) for label in classes.labels}  # images and pixels of each
    values = Counter[int]()
    check = functools.partial(_check_pair, classes=classes, decode=decode, bands=bands)
    results = ordered_map(check, pairs, workers=workers, title="pairs")
    largest = 0
    for pair, (kind, detail, pixels, value) in zip(pairs, results, strict=True):
        if kind:
            findings.add(kind, str(pair.label_map if kind == "map_broken" else pair.image), detail)
        largest = max(largest, value)
        values.update(pixels)
        for label in counts.keys() & pixels.keys():
            counts[label] += (1, pixels[label])
    if line := describe_dark(largest):
        findings.add("dark", str(split.images), line)
    if file is not None and values:
        misfit = compare_labels(values, classes, file, may_lack=may_lack)
        findings.add_many("labels", bool(misfit.problem), [str(split.maps)], misfit.problem)
        findings.add_many("unseen", len(misfit.unseen), misfit.unseen)
        for label in misfit.ignored:
            findings.add("ignored", f"{label}, {values[label] / values.total():.2%} of the pixels")
    keys = ("name", "label", "images", "pixels")
    rows = zip(classes.names, classes.labels, strict=True)
    listed = [dict(zip(keys, (*row, *counts[row[1]].tolist()), strict=True)) for row in rows]
    return about | {"pairs": len(pairs), "classes": listed}


def _check_pair(
    pair: Pair, *, classes: ClassFile, decode: bool, bands: int | None
) -> tuple[str, str, dict[int, int], int]:
    """Return kind and detail of a problem, pixels of each label, largest value of 16 bits."""
    counts = dict[int, int]()
    try:
        facts = inspect_bands(pair.image, decode=decode, count=bands)
        if facts.bits == 32:
            return "image_broken", f"mode {facts.mode}, which only --bands trains on", counts, 0
        values = read_values(pair)
        labels, pixels = np.unique(values, return_counts=True)
        counts = dict(zip(labels.tolist(), pixels.tolist(), strict=True))
        LabelTable(classes.labels, classes.ignore)(values, pair.label_map)
    except UnreadableImageError as error:
        kind = "map_broken" if isinstance(error, LabelMapError) else "image_broken"
        return kind, str(error).removeprefix(f"{pair.label_map} "), counts, 0
    return "", "", counts, facts.largest
