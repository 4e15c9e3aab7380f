"""Detection datasets: what a command line names, and what it resolves to.

`--data data.yaml`, `--train-annotations train.json` and the like become a `DatasetSpec`; `resolve`
turns it into validated training and validation datasets, for detectron2 and mmdetection alike.
What is not a COCO file on disk becomes one in the folder of the run.
"""

import argparse
import dataclasses
import os
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eva_data.detection.coco import (
    CocoDataset,
    ImageList,
    LabelledImages,
    Report,
    read_coco,
    refuse,
    to_coco,
    validate,
)
from eva_data.detection.voc import find_voc, open_voc
from eva_data.detection.yolo import YAML, find_yaml, open_yolo
from eva_data.holdout import check_share, held_out, stem

PARTS = ("train", "val")
FOLDER = "data"  # of a run, for the annotation files that are made for it
_FLAGS = tuple(f"{part}_{what}" for part in PARTS for what in ("annotations", "images"))
_SHOWN = 12  # names of classes in a message
_FORMATS = (
    "a data.yaml of YOLO or its folder, a folder of Pascal VOC (Annotations, JPEGImages), or a "
    "folder of COCO files (train/_annotations.coco.json, or annotations/instances_train.json)"
)
_ROBOFLOW = "_annotations.coco.json"
_ROBOFLOW_FOLDERS = {"train": ("train",), "val": ("valid", "val", "validation"), "test": ("test",)}
_COCO_STEMS = {"train": ("train", "default"), "val": ("val",)}  # "val" begins "valid" too

Files = dict[str, tuple[Path, Path]]  # part -> annotation file and image folder


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """Detection data that a command line names.

    Attributes:
        sources: Paths of `--data`, each in any format; several are merged.
        files: Part -> annotation file in COCO format and image folder, in place of `sources`.
        val_fraction: Fraction of the training data that is held out for evaluation; None if data
            for evaluation are named.
        boxes_only: Leave masks alone.
        parts: Parts that are needed: "train", "val" or both.
    """

    sources: tuple[Path, ...] = ()
    files: Mapping[str, tuple[Path, Path]] = field(default_factory=dict)
    val_fraction: float | None = None
    boxes_only: bool = False
    parts: tuple[str, ...] = PARTS

    def check_parts(self, there: Container[str], name: str) -> None:
        """Refuse a source without the parts that are needed.

        Raises:
            ValueError: With the part.
        """
        if self.val_fraction is None:
            for part in self.parts:
                if part not in there:
                    hint = "; --val-fraction 0.1 holds out some of the training images"
                    raise ValueError(f"{name} has no data for {part}{hint * (part == 'val')}")
        elif "train" not in there or "val" in there:
            problem = (
                "has data for evaluation already" if "val" in there else "has no training data"
            )
            raise ValueError(f"{name} {problem}: leave out --val-fraction {self.val_fraction:g}")


@dataclass(kw_only=True)
class DetectionData:
    """Resolved data, owned by a run.

    Attributes:
        parts: Part -> dataset.
        notes: Messages for the log.
        generated: Parts that are not an annotation file on disk; their paths name their source
            until `place` gives them one.
    """

    parts: dict[str, CocoDataset] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    generated: frozenset[str] = frozenset()

    def place(self, folder: Path) -> None:
        """Give generated parts their files in the folder of a run; `write` writes them."""
        alone = "train" not in self.parts
        for part in self.generated:
            path = folder.absolute() / FOLDER / f"{'evaluated' if alone else part}.json"
            self.parts[part] = dataclasses.replace(self.parts[part], path=path)

    def write(self, *, continues: bool) -> None:
        """Write the files of generated parts, see `CocoDataset.write`."""
        for part in self.parts:
            if part in self.generated:
                self.parts[part].write(continues=continues)

    def for_detector(
        self, saved: Mapping[int, str] | None, *, boxes_only: bool
    ) -> tuple[dict[int, str], str | None, list[str]]:
        """Decide what a detector on these data is like.

        Args:
            saved: Categories that the config of a trained detector states; None or none without.
            boxes_only: Whether it shall have no masks.

        Returns:
            Name of each category id, in the order of the classes; why it cannot have masks, or
            None; messages for the log.

        Raises:
            ValueError: If the data for evaluation have other categories, or only some of the
                objects to train on have a mask.
        """
        train, val = self.parts.get("train"), self.parts["val"]
        categories, of = saved or val.categories, "the config"
        if train is not None:
            categories, of = train.categories, str(train.path)
        val.check_categories(categories, of=of)
        reason = "--boxes-only" if boxes_only else None
        if reason is None and (train is not None or not saved):  # else as it was trained
            reason = (train or val).reason_against_masks(training=train is not None)
        notes = [*self.notes, *(f"Own data: {one.describe()}" for one in self.parts.values())]
        for one in self.parts.values():
            if one.lvis:
                notes.append(f"{one.path} is in LVIS format: read as if all objects were annotated")
        classes = _listed([f"{key} {name}" for key, name in categories.items()])
        notes.append(f"The detector has {len(categories)} classes (id, name): {classes}")
        return dict(categories), reason, notes

    def take(self, path: str | Path) -> CocoDataset | None:
        """Give away the dataset of an annotation file, which is not held here any more."""
        part = next((part for part, one in self.parts.items() if one.path == Path(path)), None)
        return self.parts.pop(part) if part is not None else None


def add_arguments(parser: argparse.ArgumentParser, *, training: bool = True) -> None:
    """Add the flags for own data.

    Args:
        parser: Parser of a program that trains or evaluates a detector.
        training: Add the flags for training data too.
    """
    about = "any dataset in the form of YOLO, Pascal VOC or COCO"
    if training:
        about += "; the training data define the classes"
    add = parser.add_argument_group("your own data", about).add_argument
    add(
        "--data",
        action="append",
        type=Path,
        metavar="PATH",
        help="data.yaml of YOLO, folder of Pascal VOC, or folder of a COCO export, in place of the "
        "files and folders below; several are merged",
    )
    for part, what in (("train", "training"), ("val", "evaluation")):
        if training or part == "val":
            add(f"--{part}-annotations", type=Path, metavar="FILE", help=f"COCO JSON for {what}")
            add(f"--{part}-images", type=Path, metavar="DIR", help=f"folder of images for {what}")
    add(
        "--val-fraction",
        "--val-share",
        type=float,
        metavar="FRACTION",
        help="fraction of the training images to evaluate on, such as 0.1, where no others are "
        "named; chosen by their names, always the same",
    )
    add("--boxes-only", action="store_true", help="no mask head; masks are not looked at")


def named_data(args: argparse.Namespace) -> dict[str, Any]:
    """Return the flags that name data, without those that are not given.

    Raises:
        ValueError: If flags exclude each other, or one has no effect.
    """
    found = {flag: getattr(args, flag, None) for flag in ("data", *_FLAGS)}
    found = {flag: value for flag, value in found.items() if value}
    fraction = getattr(args, "val_fraction", None)
    if not found:
        if getattr(args, "boxes_only", False) or fraction is not None:
            raise ValueError("--boxes-only and --val-fraction go with --data, or with files")
        return {}
    if "data" in found and len(found) > 1:
        others = ", ".join(_flag(name) for name in found if name != "data")
        raise ValueError(
            f"--data {' '.join(map(str, args.data))} names all data: leave out {others}"
        )
    if fraction is not None:
        check_share(fraction, name="--val-fraction")
        if both := [_flag(name) for name in found if name.startswith("val")]:
            raise ValueError(
                f"--val-fraction {fraction:g} takes images for evaluation from the training data: "
                f"leave it out, or {', '.join(both)}"
            )
    return found


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def first_path(args: argparse.Namespace) -> str | None:
    """Return the first path of own data on a command line; None without any."""
    first = next(iter(named_data(args).values()), None)
    return None if first is None else str(first[0] if isinstance(first, list) else first)


def resolve_arguments(args: argparse.Namespace, parts: Sequence[str]) -> DetectionData:
    """Resolve the data that the flags of `add_arguments` name; nothing without them.

    Args:
        args: The command line; it keeps the data as `resolved`, so that they are read once.
        parts: Parts that the program needs.

    Raises:
        ValueError: If flags are missing or the data are wrong.
    """
    named = named_data(args)
    if not named:
        return DetectionData()
    kept: DetectionData | None = getattr(args, "resolved", None)
    if kept is not None and {*kept.parts} == {*parts}:
        return kept
    fraction, files = getattr(args, "val_fraction", None), {}
    if "data" not in named:
        needed = ("train",) if fraction is not None else parts
        flags = [f"{part}_{what}" for part in needed for what in ("annotations", "images")]
        if missing := [_flag(flag) for flag in flags if flag not in named]:
            raise ValueError(
                f"{', '.join(missing)} missing: name annotations and images for training and for "
                "evaluation, or --val-fraction in place of the latter; or --data alone"
            )
        for part in needed:
            file, folder = named[f"{part}_annotations"], named[f"{part}_images"]
            files[part] = (Path(file).absolute(), Path(folder).absolute())
    spec = DatasetSpec(
        sources=tuple(dict.fromkeys(Path(one).absolute() for one in named.get("data", ()))),
        files=files,
        val_fraction=fraction,
        boxes_only=bool(getattr(args, "boxes_only", False)),
        parts=tuple(parts),
    )
    args.resolved = resolve(spec)
    return args.resolved


def resolve(spec: DatasetSpec) -> DetectionData:
    """Read and validate the data of a spec.

    Raises:
        ValueError: If something is missing or wrong: file, id and value are named.
    """
    if not spec.sources:
        (name, _), *_ = spec.files.values()
        found = _resolve_files(dict(spec.files), spec, str(name))
    else:
        opened = {path: open_source(path) for path in spec.sources}
        found = _merge(opened, spec) if len(opened) > 1 else _resolve_one(*opened.popitem(), spec)
    if "train" in found.parts and not found.parts["train"].instances:
        raise ValueError(f"{found.parts['train'].path} has no objects to train on, crowds aside")
    return found


def open_source(path: Path, *, report: Report = refuse) -> LabelledImages | Files:
    """Find the format of a dataset, and open it.

    Args:
        path: A `data.yaml`, or a folder.
        report: Takes errors of VOC's annotations; by default they are raised.

    Returns:
        Images of YOLO or VOC with their labels; or part -> file in COCO format and its images.

    Raises:
        ValueError: If it is in no such format, or something in it is wrong.
    """
    try:
        if path.is_dir():
            if exports := find_exports(path):
                return exports
            if (voc := find_voc(path)) is not None:
                return open_voc(voc, report=report)
            if (description := find_yaml(path)) is not None:
                return open_yolo(description)
        elif path.is_file() and path.suffix.lower() in YAML:
            return open_yolo(path)
    except OSError as error:
        raise ValueError(f"{error.filename or path} cannot be read: {error.strerror}") from error
    if path.suffix.lower() == ".json" and path.is_file():
        raise ValueError(
            f"{path} is a file in COCO format, and not a folder: name it with --train-annotations "
            "or --val-annotations, beside --train-images and --val-images"
        )
    hint = ""
    if (path / "images").is_dir() and (path / "labels").is_dir():
        hint = "; for YOLO, write a data.yaml into it with names, train and val"
    what = "is not" if path.exists() else "is not there; it must be"
    raise ValueError(f"{path} {what} {_FORMATS}{hint}")


def find_exports(folder: Path) -> Files:
    """Find annotation files in COCO format and their images, by the usual names.

    `train/_annotations.coco.json` with the images beside it and `valid/` (Roboflow), or
    `annotations/instances_train*.json` with `train*/` or `images/train*/` (COCO, CVAT).

    Raises:
        ValueError: If a file is there and its image folder is not, or two files may be meant.
    """
    found: Files = {}
    for part, names in _ROBOFLOW_FOLDERS.items():
        for name in names:
            if part not in found and (folder / name / _ROBOFLOW).is_file():
                found[part] = folder / name / _ROBOFLOW, folder / name
    if {*found} & {*PARTS}:
        return found
    if (folder / _ROBOFLOW).is_file():
        return {"train": (folder / _ROBOFLOW, folder)}
    found = {}
    for part, stems in _COCO_STEMS.items():
        patterns = [f"instances_{one}*.json" for one in stems]
        files = [file for one in patterns for file in sorted((folder / "annotations").glob(one))]
        if len(files) > 1:
            names_ = ", ".join(file.name for file in files)
            raise ValueError(
                f"{folder / 'annotations'} holds {names_}: name one with --{part}-annotations and "
                f"its images with --{part}-images"
            )
        if files:
            name = files[0].stem.removeprefix("instances_")
            places = [folder / name, folder / "images" / name, folder / "images"]
            there = next((place for place in places if place.is_dir()), None)
            if there is None:
                raise ValueError(
                    f"the images of {files[0]} are not in {' or '.join(map(str, places))}: name "
                    f"their folder with --{part}-images, and the file with --{part}-annotations"
                )
            found[part] = files[0], there
    return found


def _resolve_one(path: Path, source: LabelledImages | Files, spec: DatasetSpec) -> DetectionData:
    parts, notes = _parts_of(source, spec, str(path))
    if isinstance(source, LabelledImages):
        found = _resolve_labels(dataclasses.replace(source, parts=parts), spec)
    else:
        found = _resolve_files(parts, spec, str(path))
    found.notes[:0] = notes
    return found


def _parts_of(
    source: LabelledImages | Files, spec: DatasetSpec, name: str
) -> tuple[dict[str, Any], list[str]]:
    """Return the parts of a source; without data for evaluation, those for tests stand in."""
    parts = dict(source.parts if isinstance(source, LabelledImages) else source)
    test = parts.pop("test", None)
    if test is None or "val" in parts or spec.val_fraction is not None:
        return parts, []
    return parts | {"val": test}, [f"{name} has no val: its test images are evaluated on"]


def _resolve_files(files: Files, spec: DatasetSpec, name: str) -> DetectionData:
    spec.check_parts(files, name)
    if spec.val_fraction is None:
        read = {part: files[part] for part in spec.parts}
        return DetectionData(
            parts={
                part: read_coco(
                    file.absolute(), folder=folder.absolute(), boxes_only=spec.boxes_only
                )
                for part, (file, folder) in read.items()
            }
        )
    file, folder = (path.absolute() for path in files["train"])
    dataset = read_coco(file, folder=folder, boxes_only=spec.boxes_only)
    images = list(dataset.images.values())
    names = (_relative(one["file_name"], dataset.folder) for one in images)
    sides, note = _split(names, spec.val_fraction)
    parts = {}
    for part in spec.parts:
        ids = {one["id"] for one, is_in in zip(images, sides[part], strict=True) if is_in}
        parts[part] = dataclasses.replace(
            dataset,
            images={key: entry for key, entry in dataset.images.items() if key in ids},
            objects=[one for one in dataset.objects if one["image_id"] in ids],
        )
    notes = [note, *_classes_not_trained(parts)]
    return DetectionData(parts=parts, notes=notes, generated=frozenset(parts))


def _resolve_labels(source: LabelledImages, spec: DatasetSpec) -> DetectionData:
    spec.check_parts(source.parts, str(source.source))
    images, notes = dict(source.parts), []
    if spec.val_fraction is not None:
        train = images["train"]
        sides, note = _split(train.names, spec.val_fraction)
        notes.append(note)
        for part, side in sides.items():
            names = [name for name, is_in in zip(train.names, side, strict=True) if is_in]
            missing = train.missing if part == "train" else ()
            images[part] = dataclasses.replace(train, names=names, missing=missing)
    parts = {}
    for part in spec.parts:
        parts[part], unreadable = _from_labels(source, images[part], part, spec)
        if unreadable:
            notes.append(f"left out of {part}: {len(unreadable)} images, such as {unreadable[0]}")
    if spec.val_fraction is not None:
        notes += _classes_not_trained(parts)
    notes.append(f"{source.source} is read as {source.format}")
    return DetectionData(parts=parts, notes=notes, generated=frozenset(parts))


def _from_labels(
    source: LabelledImages, images: ImageList, part: str, spec: DatasetSpec
) -> tuple[CocoDataset, list[str]]:
    lists = to_coco(source, images, scored=part == "val")
    data = {"images": lists.images, "categories": lists.categories}
    dataset = validate(
        source.source,
        data,
        lists.annotations,
        folder=images.folder,
        boxes_only=spec.boxes_only,
    )
    return dataset, lists.unreadable


def _split(names: Iterator[str] | Sequence[str], fraction: float) -> tuple[dict[str, Any], str]:
    """Choose the images of both parts; return a flag for each image, and a note."""
    chosen = held_out(map(stem, names), fraction, name="--val-fraction")
    note = (
        f"--val-fraction {fraction:g}: {int(chosen.sum())} of {len(chosen)} images are held out "
        f"for evaluation, {int((~chosen).sum())} are trained on; their names decide"
    )
    return {"train": ~chosen, "val": chosen}, note


def _relative(name: str, folder: str) -> str:
    """Return a name that does not depend on the place of the data, also where a file has paths."""
    return os.path.relpath(name, folder) if os.path.isabs(name) else name  # noqa: PTH117


def _classes_not_trained(parts: Mapping[str, CocoDataset]) -> Iterator[str]:
    """Name the classes all of whose objects were held out."""
    if not {"train", "val"} <= parts.keys():
        return
    trained = {one["category_id"] for one in parts["train"].instances}
    held = {one["category_id"] for one in parts["val"].instances}
    if lost := [parts["val"].categories[key] for key in sorted(held - trained)]:
        yield (
            f"no image that is trained on has {_listed(lost)}: name data for evaluation, or "
            "another fraction"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + ", ..." * (len(names) > _SHOWN)


def _merge(opened: Mapping[Path, LabelledImages | Files], spec: DatasetSpec) -> DetectionData:
    """Merge several sources, which have the same classes, or are all of VOC."""
    parts = {path: _parts_of(source, spec, str(path))[0] for path, source in opened.items()}
    if spec.val_fraction is None:
        spec.check_parts(set().union(*parts.values()), " and ".join(map(str, opened)))
    found = {}
    for path, source in opened.items():
        there = spec.parts
        if spec.val_fraction is None:
            there = tuple(part for part in spec.parts if part in parts[path])
        if there:
            found[path] = _resolve_one(path, source, dataclasses.replace(spec, parts=there))
    ids = _common_ids(opened, found)
    categories = dict(sorted({pair for one in ids.values() for pair in one.values()}))
    known: dict[str, Path] = {}
    merged = {}
    for part in spec.parts:
        if spec.val_fraction is None:
            known = {}  # where a fraction of each is held out, an image is in one of all parts
        chosen = [(one.parts[part], ids[path]) for path, one in found.items() if part in one.parts]
        merged[part] = _merge_part(chosen, known, categories)
    notes = [note for one in found.values() for note in one.notes]
    notes.append(f"{len(opened)} datasets are merged: {', '.join(map(str, opened))}")
    return DetectionData(parts=merged, notes=notes, generated=frozenset(merged))


_Ids = Mapping[int, tuple[int, str]]  # category id of a dataset -> id and name after the merge


def _common_ids(
    opened: Mapping[Path, LabelledImages | Files], found: Mapping[Path, DetectionData]
) -> dict[Path, _Ids]:
    """Number the classes of all datasets as those of the first.

    The classes of VOC are those of which objects were found, and of no list: the names of all are
    then joined, sorted, and numbered from 1.
    """
    labelled = {path: one for path, one in opened.items() if isinstance(one, LabelledImages)}
    if len(labelled) == len(opened) and {one.format for one in labelled.values()} == {"Pascal VOC"}:
        names = sorted({name for one in labelled.values() for name in one.classes})
        new = {name: (number, name) for number, name in enumerate(names, start=1)}
        return {
            path: {key: new[name] for key, name in enumerate(one.classes, start=1)}
            for path, one in labelled.items()
        }
    own: dict[Path, Mapping[int, str]] = {}
    for path, one in found.items():
        first, *others = one.parts.values()
        own[path] = first.categories
        for other in others:
            other.check_categories(first.categories, of=str(first.path))
    first_path, common = next(iter(own.items()))
    for path, categories in own.items():
        theirs, ours = [*categories.values()], [*common.values()]
        if theirs != ours:
            raise ValueError(
                f"merged datasets need the same classes in the same order: {path} has "
                f"{len(theirs)} ({_listed(theirs)}); {first_path} has {len(ours)} ({_listed(ours)})"
            )
    return {path: dict(zip(one, common.items(), strict=True)) for path, one in own.items()}


def _merge_part(
    datasets: Sequence[tuple[CocoDataset, _Ids]],
    known: dict[str, Path],
    categories: Mapping[int, str],
) -> CocoDataset:
    """Merge datasets, whose images may have equal names in different folders.

    Args:
        datasets: Each dataset and its classes.
        known: Images that are in a dataset already -> its file; those of these are added.
        categories: Name of each id after the merge.

    Returns:
        A dataset in the image folder of the first: names are relative to it, or absolute where
        images are elsewhere.

    Raises:
        ValueError: If an image is in two of the datasets.
    """
    place = os.path.normpath(datasets[0][0].folder)
    images: dict[int, dict[str, Any]] = {}
    objects: list[dict[str, Any]] = []
    for dataset, classes in datasets:
        ids = {}
        for key, entry in dataset.images.items():
            name = os.path.normpath(Path(dataset.folder, entry["file_name"]))
            if known.setdefault(name, dataset.path) != dataset.path:
                raise ValueError(
                    f"{name} is an image of {known[name]} and of {dataset.path}: leave one of them "
                    "out, or take it out of one"
                )
            ids[key] = len(images) + 1
            below = name.removeprefix(place.rstrip(os.sep) + os.sep)
            images[ids[key]] = {**entry, "id": ids[key], "file_name": below}
        for one in dataset.objects:
            new = {"image_id": ids[one["image_id"]]}
            objects.append({**one, **new, "category_id": classes[one["category_id"]][0]})
    every = [dataset for dataset, _ in datasets]
    return CocoDataset(
        path=Path(" and ".join(str(one.path) for one in every)),
        folder=place,
        categories=categories,
        images=images,
        objects=objects,
        left_out=sum(one.left_out for one in every),
        thin=all(one.thin for one in every),
        lvis=any(one.lvis for one in every),
    )
