"""Resolution of own data: sources are read, split and merged into a dataset for each part."""

import itertools
import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from eva_data.classes import list_names
from eva_data.detection.coco import read_coco
from eva_data.detection.datasets import CocoDataset
from eva_data.detection.foreign import ForeignDataset, ImageList
from eva_data.detection.merge import check_classes, merge, take_names
from eva_data.detection.request import DataRequest
from eva_data.detection.resolved import DetectionData
from eva_data.detection.sources import PARTS, Source, read_labels
from eva_data.detection.tiles import tile_dataset
from eva_data.files import display_path
from eva_data.holdout import Flags, holdout_mask, stem
from eva_data.images import warn_of_depth

_MOST_UNREADABLE = 10  # images; as many as a run may meet by default


def resolve(request: DataRequest) -> DetectionData:
    """Read and validate the data of a request; an error names file, id and value."""
    return _Resolver(request).resolve()


class _Resolver:
    """The resolution of a request, with notes on what its user may not expect."""

    def __init__(self, request: DataRequest) -> None:
        self.request, self.fraction, self.notes = request, request.val_fraction, list[str]()

    def resolve(self) -> DetectionData:
        """Read all sources, and make a dataset of each part."""
        request, sources = self.request, self.request.open()
        available = {path: self._parts_of(source, path) for path, source in sources.items()}
        self._check_parts(available)
        datasets: dict[str, list[CocoDataset]] = defaultdict(list)
        for path, source in sources.items():
            for part, dataset in self._read_source(source, available[path]).items():
                datasets[part].append(dataset)
        self._check_panoptic([*itertools.chain(*datasets.values())])
        if len(sources) > 1:
            parts = merge(sources, datasets, request)
            self.notes.append(f"{len(sources)} datasets are merged: {', '.join(map(str, sources))}")
        else:
            parts = {part: first for part, (first,) in datasets.items()}
        whole = parts.get("train")
        if whole is not None and not whole.instances:
            raise ValueError(f"{whole.path} has no objects to train on, crowds aside")
        if whole is not None and "val" in parts:
            parts["val"], respelled = take_names(parts["val"], whole.categories)
            self.notes += respelled
            self.notes += check_classes(whole, parts["val"], request)
        for dataset in parts.values():
            files = dataset.files
            warn_of_depth(len(files), files.__getitem__)
        if whole is not None and request.tile is not None:
            parts["train"] = tiles = tile_dataset(whole, request.tile)
            count, size = len(whole.images), request.tile.size
            self.notes.append(f"{len(tiles.images)} tiles of {size} px of {count} training images")
        labelled = any(isinstance(source, ForeignDataset) for source in sources.values())
        return DetectionData(
            parts=parts,
            notes=tuple(self.notes),
            generated=labelled or len(sources) > 1 or self.fraction is not None,
            boxes_only=request.boxes_only,
            tile=request.tile,
        )

    def _check_panoptic(self, datasets: Sequence[CocoDataset]) -> None:
        """Refuse what panoptic segments do not go with."""
        names = " and ".join(dict.fromkeys(str(part.path) for part in datasets if part.panoptic))
        request = self.request
        if names and (len(request.paths) > 1 or request.tile or request.boxes_only):
            raise ValueError(
                f"{names}: panoptic segments go with one --data, no --tile, --boxes-only"
            )

    def _parts_of(self, source: Source, path: Path) -> dict[str, Any]:
        """Return the parts of a source; without data for evaluation, those for tests stand in."""
        if isinstance(source, ForeignDataset):
            self.notes += source.notes
            parts: dict[str, Any] = dict(source.parts)
            is_split = source.is_split
        else:
            parts = dict(source)
            file, _ = next(iter(parts.values()))
            is_split = path not in (file, file.parent)
        # as in ultralytics' small examples
        if "val" in parts and parts["val"] == parts.get("train"):
            if self.fraction is not None or len(self.request.paths) > 1:
                del parts["val"]
            else:
                self.notes.append(
                    f"{path}: val has the images of train: scores say nothing of other images"
                )
        if self.fraction is not None:
            parts.pop("test", None)
        elif not is_split and "val" not in parts and self.request.parts == ("val",):
            return {"val": parts["train"]}
        elif "test" in parts and "val" not in parts:
            self.notes.append(f"{path} has no val: its test images are evaluated on")
            parts["val"] = parts.pop("test")
        return parts

    def _check_parts(self, available: Mapping[Path, Collection[str]]) -> None:
        """Refuse sources without the parts that are needed."""
        names, parts = " and ".join(map(str, available)), set().union(*available.values())
        held_out = self.fraction is not None
        if held_out and "val" in parts:
            raise ValueError(f"{names} has validation data: leave out --val-share (--val-fraction)")
        needed = ("train",) if held_out else self.request.parts
        if not {*needed} <= parts or (held_out and not all(available.values())):
            present = " and ".join(sorted(parts)) or "nothing"
            message = f"{names} has data for {present}; needed are {' and '.join(needed)}"
            if "train" in needed and not held_out:
                message += ". --val-share 0.1 takes training images in place of val"
            raise ValueError(message)

    def _read_source(self, source: Source, available: Mapping[str, Any]) -> dict[str, CocoDataset]:
        datasets = {}
        for part in self.request.parts if self.fraction is None else ("train",):
            if part not in available:  # another source has it
                continue
            if isinstance(source, ForeignDataset):
                datasets[part] = self._read_images(source, available[part], part)
            else:
                file, folder = available[part]
                datasets[part] = read_coco(file, folder=folder, boxes_only=self.request.boxes_only)
        if isinstance(source, ForeignDataset):
            self.notes.append(f"{display_path(source.source)} is read as {source.format}")
        if self.fraction is not None:
            return self._split(datasets["train"])
        return datasets

    def _read_images(self, source: ForeignDataset, images: ImageList, part: str) -> CocoDataset:
        scored = {*images.names} if part == "val" else set[str]()
        if self.fraction is not None:
            scored = {*itertools.compress(images.names, self._held_out(images.names))}
        dataset, lost, alpha = read_labels(
            source, images, scored=scored, boxes_only=self.request.boxes_only
        )
        count = len(dataset.images)
        if images.missing or len(lost) > _MOST_UNREADABLE or not count:
            raise ValueError(
                f"{source.source}: {len(lost)} of {len(lost) + count} images for {part} are "
                f"missing or cannot be read, such as {lost[0]}; up to {_MOST_UNREADABLE} "
                "unreadable ones are left out"
            )
        if lost:
            self.notes.append(f"left out of {part}: {len(lost)} images, such as {lost[0]}")
        if alpha:
            self.notes.append(
                f"{alpha} of {count} images for {part} have transparency: shown as white"
            )
        return dataset

    def _held_out(self, names: Sequence[str]) -> Flags:
        if self.fraction == 1:
            return np.ones(len(names), bool)
        return holdout_mask(map(stem, names), self.fraction or 0, name="--val-fraction")

    def _split(self, dataset: CocoDataset) -> dict[str, CocoDataset]:
        """Split training data into what is trained on and what is evaluated on."""
        names = [image["file_name"] for image in dataset.images.values()]
        # a name must not depend on the place of the data, also where a file has paths
        names = [os.path.relpath(n, dataset.folder) if os.path.isabs(n) else n for n in names]  # noqa: PTH117
        held_out = self._held_out(names)
        if held_out.all():  # a fraction of 1
            self.notes.append(
                "evaluated on the training images, which says nothing of other images"
            )
            return dict.fromkeys(self.request.parts, dataset)
        self.notes.append(
            f"--val-fraction {self.fraction:g}: {int(held_out.sum())} of {len(held_out)} images "
            f"are held out for evaluation, {int((~held_out).sum())} are trained on; their names "
            "decide"
        )
        datasets = {}
        for part, side in (("train", ~held_out), ("val", held_out)):
            images = dict(itertools.compress(dataset.images.items(), side))
            objects = [
                annotation for annotation in dataset.objects if annotation["image_id"] in images
            ]
            datasets[part] = replace(dataset, images=images, objects=objects)
        trained, held = (
            {annotation["category_id"] for annotation in datasets[part].instances} for part in PARTS
        )
        lost = [dataset.categories[key] for key in sorted(held - trained)]
        if lost:
            self.notes.append(
                f"no image that is trained on has {list_names(lost)}: name data for evaluation, or "
                "another fraction"
            )
        return {part: datasets[part] for part in self.request.parts}
