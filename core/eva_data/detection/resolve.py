"""Resolution of own data: sources are read, split and merged into a dataset for each part."""

import functools
import itertools
import os
from collections import defaultdict
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from eva_data.band_files import inspect_bands
from eva_data.classes import ALLOW_EMPTY, find_respelled, folded, list_names
from eva_data.detection.coco import read_coco, validate
from eva_data.detection.datasets import (
    CocoDataset,
    Entry,
    ForeignDataset,
    ImageList,
    Report,
    refuse,
)
from eva_data.detection.merge import merge
from eva_data.detection.request import DataRequest
from eva_data.detection.resolved import DetectionData
from eva_data.detection.sources import PARTS, Source
from eva_data.detection.tiles import tile_dataset
from eva_data.holdout import Flags, holdout_mask, stem
from eva_data.images import ImageFacts, UnreadableImageError, warn_of_depth
from eva_data.pools import ordered_map

_MOST_UNREADABLE = 10  # images; as many as a run may meet by default
_FEW = 20_000  # images whose sizes one process reads in some seconds


def resolve(request: DataRequest) -> DetectionData:
    """Read and validate the data of a request; an error names file, id and value."""
    sources, notes = request.open(), list[str]()
    available = {path: _parts_of(source, request, path, notes) for path, source in sources.items()}
    _check_parts(available, request)
    datasets: dict[str, list[CocoDataset]] = defaultdict(list)
    for path, source in sources.items():
        for part, dataset in _read_source(source, available[path], request, notes).items():
            datasets[part].append(dataset)
    _check_panoptic([*itertools.chain(*datasets.values())], request)
    if len(sources) > 1:
        parts = merge(sources, datasets, request)
        notes.append(f"{len(sources)} datasets are merged: {', '.join(map(str, sources))}")
    else:
        parts = {part: first for part, (first,) in datasets.items()}
    whole = parts.get("train")
    if whole is not None and not whole.instances:
        raise ValueError(f"{whole.path} has no objects to train on, crowds aside")
    if whole is not None and "val" in parts:
        parts["val"], respelled = take_names(parts["val"], whole.categories)
        notes += respelled
        notes += check_classes(whole, parts["val"], request)
    for dataset in parts.values():
        files = dataset.files
        warn_of_depth(len(files), files.__getitem__)
    if whole is not None and request.tile is not None:
        parts["train"] = tiles = tile_dataset(whole, request.tile)
        count, size = len(whole.images), request.tile.size
        notes.append(f"{len(tiles.images)} tiles of {size} px of {count} training images")
    labelled = any(isinstance(source, ForeignDataset) for source in sources.values())
    return DetectionData(
        parts=parts,
        notes=tuple(notes),
        generated=labelled or len(sources) > 1 or request.val_fraction is not None,
        boxes_only=request.boxes_only,
        tile=request.tile,
    )


def take_names(val: CocoDataset, expected: Mapping[int, str]) -> tuple[CocoDataset, list[str]]:
    """Give classes the names of training where they differ by case or spaces; say which."""
    names = {key: expected.get(key, name) for key, name in val.categories.items()}
    respelled = [
        f"{name!r} is {names[key]!r}"
        for key, name in val.categories.items()
        if names[key] != name and folded(names[key]) == folded(name)
    ]
    if len(respelled) < sum(names[key] != name for key, name in val.categories.items()):
        return val, []
    notes = [f"{val.path}: names of classes in other letters: {list_names(respelled)}"]
    return replace(val, categories=names), notes if respelled else []


def _check_panoptic(datasets: Sequence[CocoDataset], request: DataRequest) -> None:
    """Refuse what panoptic segments do not go with."""
    names = " and ".join(dict.fromkeys(str(part.path) for part in datasets if part.panoptic))
    if names and (len(request.paths) > 1 or request.tile or request.boxes_only):
        raise ValueError(f"{names}: panoptic segments go with one --data, no --tile, --boxes-only")


def check_classes(train: CocoDataset, val: CocoDataset, request: DataRequest) -> list[str]:
    """Refuse classes without an object; return what to say of those missing in validation alone."""
    empty, unseen = train.empty_classes, val.empty_classes
    if request.val_fraction is not None:  # of both, which are parts of one
        empty = [name for name in empty if name in unseen]
    if empty and not request.allow_empty:
        raise ValueError(
            f"{train.path}: no object for training is of {describe_empty(train, empty)}"
        )
    if not val.instances:
        another = "" if request.val_fraction is None else ": choose another --val-share"
        raise ValueError(f"{val.path} has no objects to evaluate on, crowds aside{another}")
    missing = [name for name in unseen if name not in empty]
    return [f"no object for validation is of {list_names(missing)}: no score"] if missing else []


def describe_empty(dataset: CocoDataset, empty: Sequence[str]) -> str:
    """Say which classes no object is of, of which the others are, and what to do."""
    others = [name for name in dataset.categories.values() if name not in empty]
    lines = [f"{list_names(empty)}; there are objects of {list_names(others) or 'no class'}"]
    alike = [f"{name!r} is {other!r}" for name, other in find_respelled(empty, others).items()]
    lines += [f"but for case or spaces {list_names(alike)}"] if alike else []
    return "; ".join([*lines, f"take it out of the classes, or allow that by {ALLOW_EMPTY}"])


def _parts_of(source: Source, request: DataRequest, path: Path, notes: list[str]) -> dict[str, Any]:
    """Return the parts of a source; without data for evaluation, those for tests stand in."""
    if isinstance(source, ForeignDataset):
        notes += source.notes
        parts: dict[str, Any] = dict(source.parts)
        is_split = source.is_split
    else:
        parts = dict(source)
        file, _ = next(iter(parts.values()))
        is_split = path not in (file, file.parent)
    if "val" in parts and parts["val"] == parts.get("train"):  # as in ultralytics' small examples
        if request.val_fraction is not None or len(request.paths) > 1:
            del parts["val"]
        else:
            notes.append(f"{path}: val has the images of train: scores say nothing of other images")
    if request.val_fraction is not None:
        parts.pop("test", None)
    elif not is_split and "val" not in parts and request.parts == ("val",):
        return {"val": parts["train"]}
    elif "test" in parts and "val" not in parts:
        notes.append(f"{path} has no val: its test images are evaluated on")
        parts["val"] = parts.pop("test")
    return parts


def _check_parts(available: Mapping[Path, Collection[str]], request: DataRequest) -> None:
    """Refuse sources without the parts that are needed."""
    names, parts = " and ".join(map(str, available)), set().union(*available.values())
    held_out = request.val_fraction is not None
    if held_out and "val" in parts:
        raise ValueError(f"{names} has validation data: leave out --val-share (--val-fraction)")
    needed = ("train",) if held_out else request.parts
    if not {*needed} <= parts or (held_out and not all(available.values())):
        raise ValueError(
            f"{names} has data for {' and '.join(sorted(parts)) or 'nothing'}; needed are "
            f"{' and '.join(needed)}. --val-share 0.1 takes training images in place of val"
        )


def _read_source(
    source: Source, available: Mapping[str, Any], request: DataRequest, notes: list[str]
) -> dict[str, CocoDataset]:
    datasets = {}
    for part in request.parts if request.val_fraction is None else ("train",):
        if part not in available:  # another source has it
            continue
        if isinstance(source, ForeignDataset):
            datasets[part] = _read_images(source, available[part], part, request, notes)
        else:
            file, folder = available[part]
            datasets[part] = read_coco(file, folder=folder, boxes_only=request.boxes_only)
    if isinstance(source, ForeignDataset):
        notes.append(f"{source.source} is read as {source.format}")
    if request.val_fraction is not None:
        return _split(datasets["train"], request, notes)
    return datasets


def _read_images(
    source: ForeignDataset, images: ImageList, part: str, request: DataRequest, notes: list[str]
) -> CocoDataset:
    scored = {*images.names} if part == "val" else set[str]()
    if request.val_fraction is not None:
        scored = {*itertools.compress(images.names, _held_out(images.names, request))}
    dataset, lost, alpha = read_labels(source, images, scored=scored, boxes_only=request.boxes_only)
    if images.missing or len(lost) > _MOST_UNREADABLE or not dataset.images:
        raise ValueError(
            f"{source.source}: {len(lost)} of {len(lost) + len(dataset.images)} images for {part} "
            f"are missing or cannot be read, such as {lost[0]}; up to {_MOST_UNREADABLE} "
            "unreadable ones are left out"
        )
    if lost:
        notes.append(f"left out of {part}: {len(lost)} images, such as {lost[0]}")
    if alpha:
        notes.append(
            f"{alpha} of {len(dataset.images)} images for {part} have transparency: shown as white"
        )
    return dataset


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


def _held_out(names: Sequence[str], request: DataRequest) -> Flags:
    if request.val_fraction == 1:
        return np.ones(len(names), bool)
    return holdout_mask(map(stem, names), request.val_fraction or 0, name="--val-fraction")


def _split(dataset: CocoDataset, request: DataRequest, notes: list[str]) -> dict[str, CocoDataset]:
    """Split training data into what is trained on and what is evaluated on."""
    names = [image["file_name"] for image in dataset.images.values()]
    # a name must not depend on the place of the data, also where a file has paths
    names = [os.path.relpath(n, dataset.folder) if os.path.isabs(n) else n for n in names]  # noqa: PTH117
    held_out = _held_out(names, request)
    if held_out.all():  # a fraction of 1
        notes.append("evaluated on the training images, which says nothing of other images")
        return dict.fromkeys(request.parts, dataset)
    notes.append(
        f"--val-fraction {request.val_fraction:g}: {int(held_out.sum())} of {len(held_out)} images "
        f"are held out for evaluation, {int((~held_out).sum())} are trained on; their names decide"
    )
    datasets = {}
    for part, side in (("train", ~held_out), ("val", held_out)):
        images = dict(itertools.compress(dataset.images.items(), side))
        objects = [annotation for annotation in dataset.objects if annotation["image_id"] in images]
        datasets[part] = replace(dataset, images=images, objects=objects)
    trained, held = (
        {annotation["category_id"] for annotation in datasets[part].instances} for part in PARTS
    )
    lost = [dataset.categories[key] for key in sorted(held - trained)]
    if lost:
        notes.append(
            f"no image that is trained on has {list_names(lost)}: name data for evaluation, or "
            "another fraction"
        )
    return {part: datasets[part] for part in request.parts}
