"""Datasets that are used together: classes of training and validation, and several merged into one.

In one that is merged, no image stands twice.
"""

import itertools
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from eva_data.classes import ALLOW_EMPTY, find_respelled, folded, list_names
from eva_data.detection.datasets import CocoDataset, Entry
from eva_data.detection.foreign import ForeignDataset
from eva_data.detection.request import DataRequest
from eva_data.detection.sources import Source


def merge(
    sources: Mapping[Path, Source],
    datasets: Mapping[str, Sequence[CocoDataset]],
    request: DataRequest,
) -> dict[str, CocoDataset]:
    """Merge several sources, which have the same classes, or have no lists of them."""
    every = [dataset for part in request.parts for dataset in datasets[part]]
    categories = _common_categories(sources.values(), every)
    owners: dict[str, Path] = {}
    merged = {}
    for part in request.parts:
        if request.val_fraction is None:
            owners = {}  # where a fraction of each is held out, an image is in one of all parts
        merged[part] = _merge_part(datasets[part], owners, categories)
    return merged


def _common_categories(
    sources: Collection[Source], datasets: Sequence[CocoDataset]
) -> Mapping[int, str]:
    """Return the categories of the first dataset, whose names all have in the same order.

    The classes of VOC and of tables are those of which objects were found, and of no list: the
    names of all are then joined, sorted, and numbered from 1.
    """
    unlisted = [
        source.classes
        for source in sources
        if isinstance(source, ForeignDataset) and source.format != "YOLO"
    ]
    if len(unlisted) == len(sources):
        return dict(enumerate(sorted({*itertools.chain(*unlisted)}), start=1))
    first, *others = datasets
    names = [*first.categories.values()]
    for dataset in others:
        others_names = [*dataset.categories.values()]
        if others_names != names:
            raise ValueError(
                f"merged datasets need the same classes in the same order: {dataset.path} has "
                f"{len(others_names)} ({list_names(others_names)}); {first.path} has {len(names)} "
                f"({list_names(names)})"
            )
    return first.categories


def _merge_part(
    datasets: Sequence[CocoDataset], owners: dict[str, Path], categories: Mapping[int, str]
) -> CocoDataset:
    """Merge datasets in the image folder of the first; names elsewhere are absolute.

    Their keypoints are the same. `owners` has the dataset of each image; one of two is an error.
    """
    root = os.path.normpath(datasets[0].folder)
    numbers = {name: key for key, name in categories.items()}
    images: dict[int, Entry] = {}
    objects: list[Entry] = []
    for dataset in datasets:
        dataset.check_keypoints(datasets[0].keypoints, of=str(datasets[0].path))
        ids = {}
        for key, entry in dataset.images.items():
            name = os.path.normpath(Path(dataset.folder, entry["file_name"]))
            if owners.setdefault(name, dataset.path) != dataset.path:
                raise ValueError(
                    f"{name} is an image of {owners[name]} and of {dataset.path}: leave one of "
                    f"them out, or take it out of one"
                )
            ids[key] = len(images) + 1
            below = name.removeprefix(root.rstrip(os.sep) + os.sep)
            images[ids[key]] = {**entry, "id": ids[key], "file_name": below}
        for annotation in dataset.objects:
            category = numbers[dataset.categories[annotation["category_id"]]]
            objects.append(
                {**annotation, "image_id": ids[annotation["image_id"]], "category_id": category}
            )
    return CocoDataset(
        path=Path(" and ".join(str(dataset.path) for dataset in datasets)),
        folder=root,
        categories=categories,
        images=images,
        objects=objects,
        left_out=sum(dataset.left_out for dataset in datasets),
        lvis=any(dataset.lvis for dataset in datasets),
        keypoints=datasets[0].keypoints,
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
