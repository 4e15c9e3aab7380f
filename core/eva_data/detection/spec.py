"""Detection datasets: what a command line names, and what it resolves to for both detectors."""

import argparse
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eva_data.classes import list_names
from eva_data.detection.box_tables import COLUMNS, find_tables, open_tables
from eva_data.detection.coco import (
    PART_NAMES,
    CocoDataset,
    Entry,
    ImageList,
    LabelledImages,
    Report,
    read_coco,
    refuse,
    validate,
)
from eva_data.detection.tiles import Slicing, add_overlap, add_slicing, tile_dataset
from eva_data.detection.voc import find_voc, open_voc
from eva_data.detection.yolo import YAML, find_yaml, open_yolo
from eva_data.holdout import Flags, holdout_mask, stem
from eva_data.images import ImageFacts, UnreadableImageError, inspect_image
from eva_data.pools import ordered_map

PARTS = ("train", "val")
FOLDER = "data"  # of a run, for the annotation files that are made for it
NO_FEDERATED_LOSS = (  # a note of both detectors
    "No federated loss, which is for LVIS: every object of a class counts as annotated. The "
    "recipe's sigmoid classifier and sampler stay"
)
_FLAGS = tuple(f"{part}_{kind}" for part in PARTS for kind in ("annotations", "images"))
_MOST_UNREADABLE = 10  # images; as many as a run may meet by default
_FEW = 20_000  # images whose sizes one process reads in some seconds
_FORMATS = (
    "a data.yaml of YOLO or its folder, a folder of Pascal VOC (Annotations, JPEGImages; or images "
    f"with .xml beside them), a table of boxes (.csv with {COLUMNS}) or its folder, or a folder of "
    "COCO files (train/_annotations.coco.json, or annotations/instances_train.json); a COCO file "
    "is named with --train-annotations or --val-annotations, and YOLO needs a data.yaml with "
    "names, train and val"
)
_ROBOFLOW = "_annotations.coco.json"
_COCO_STEMS = {"train": ("train", "default"), "val": ("val",), "test": ("test",)}

Files = dict[str, tuple[Path, Path]]  # part -> annotation file and image folder
Source = LabelledImages | Files


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """Detection data that a command line names; several sources are merged.

    `sources` are by the path of `--data` or of a file in COCO format; `val_fraction` of the
    training data is held out; `parts` are needed; `tile` are the tiles that are trained on.
    """

    sources: Mapping[Path, Source]
    val_fraction: float | None = None
    boxes_only: bool = False
    parts: tuple[str, ...] = PARTS
    tile: Slicing | None = None

    def check_parts(self, available: Collection[str], name: str) -> None:
        """Refuse a source without the parts that are needed."""
        held_out = self.val_fraction is not None
        needed = ("train",) if held_out else self.parts
        if held_out and "val" in available:
            raise ValueError(f"{name} has validation data: leave out --val-share (--val-fraction)")
        if not {*needed} <= {*available}:
            raise ValueError(
                f"{name} has data for {' and '.join(available) or 'nothing'}; needed are "
                f"{' and '.join(needed)}. --val-share 0.1 takes training images in place of val"
            )


@dataclass(kw_only=True)
class DetectionData:
    """Resolved data, owned by a run: the datasets of the parts, and messages for the log.

    `generated` parts are not an annotation file on disk; their paths name their source until
    `place` gives them one.
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
        for part in self.generated & self.parts.keys():
            self.parts[part].write(continues=continues)

    def for_detector(
        self, saved: Mapping[int, str] | None, *, boxes_only: bool
    ) -> tuple[dict[int, str], str | None, list[str]]:
        """Decide what a detector on these data, or one with `saved` categories, is like.

        Returns:
            Name of each category id, in the order of the classes; why it cannot have masks, or
            None; messages for the log.
        """
        train, val = self.parts.get("train"), self.parts["val"]
        categories = train.categories if train is not None else saved or val.categories
        val.check_categories(categories, of="the config" if train is None else str(train.path))
        reason = "--boxes-only" if boxes_only else None
        if reason is None and (train is not None or not saved):  # else as it was trained
            reason = (train or val).reason_against_masks(training=train is not None)
        classes = list_names([f"{key} {name}" for key, name in categories.items()], 12)
        notes = [
            *self.notes,
            *(f"Own data: {part.describe()}" for part in self.parts.values()),
            *(
                f"{part.path} is in LVIS format: read as if all objects were annotated"
                for part in self.parts.values()
                if part.lvis
            ),
            f"The detector has {len(categories)} classes (id, name): {classes}",
        ]
        return dict(categories), reason, notes

    def take(self, path: str | Path) -> CocoDataset | None:
        """Give away the dataset of an annotation file, which is not held here any more."""
        parts = [part for part, dataset in self.parts.items() if dataset.path == Path(path)]
        return self.parts.pop(parts[0]) if parts else None


def add_arguments(parser: argparse.ArgumentParser, *, training: bool = True) -> None:
    """Add the flags for own data and for tiles; those of training where a program is `training`."""
    about = "any dataset in the form of YOLO, Pascal VOC, COCO or a table of boxes"
    if training:
        about += "; the training data define the classes"
    group = parser.add_argument_group("your own data", about)
    add = group.add_argument
    help_text = (
        "data.yaml of YOLO, folder of Pascal VOC, CSV of boxes, or folder of a COCO export, in "
    )
    help_text += "place of the files and folders below; several are merged"
    add("--data", action="append", type=Path, metavar="PATH", help=help_text)
    for part, purpose in (("train", "training"), ("val", "evaluation")):
        if training or part == "val":
            add(f"--{part}-annotations", type=Path, metavar="FILE", help=f"COCO JSON for {purpose}")
            add(
                f"--{part}-images", type=Path, metavar="DIR", help=f"folder of images for {purpose}"
            )
    help_text = (
        "fraction of the training images to evaluate on, such as 0.1, where none are named; "
    )
    help_text += "chosen by their names, always the same"
    add("--val-fraction", "--val-share", type=float, metavar="FRACTION", help=help_text)
    if training:
        help_text = (
            "train on tiles of this side of larger images, which are cropped as they are read"
        )
        add_overlap(
            group, "--tile-overlap", add("--tile", type=int, metavar="PIXELS", help=help_text)
        )
    add("--boxes-only", action="store_true", help="no mask head; masks are not looked at")
    add_slicing(parser)


def named_data(args: argparse.Namespace) -> dict[str, Any]:
    """Return the flags that name data, without those that are not given."""
    values = {flag: getattr(args, flag, None) for flag in ("data", *_FLAGS)}
    return {flag: value for flag, value in values.items() if value}


def first_path(args: argparse.Namespace) -> str | None:
    """Return the first path of own data on a command line; None without any."""
    first = next(iter(named_data(args).values()), None)
    return None if first is None else str(first[0] if isinstance(first, list) else first)


def resolve_arguments(args: argparse.Namespace, parts: Sequence[str]) -> DetectionData:
    """Resolve the parts that a program needs of the data that the flags name, if they do.

    The command line keeps the data as `resolved`, so that they are read once.
    """
    flags_given, fraction = named_data(args), getattr(args, "val_fraction", None)
    boxes_only = bool(getattr(args, "boxes_only", False))
    side = getattr(args, "tile", None)
    tile = None if side is None else Slicing(side, args.tile_overlap)
    if not flags_given and fraction is None and not boxes_only and tile is None:
        return DetectionData()
    resolved: DetectionData | None = getattr(args, "resolved", None)
    if resolved is not None and {*resolved.parts} == {*parts}:
        return resolved
    needed = ("train",) if fraction is not None else parts
    flags = [f"{part}_{kind}" for part in needed for kind in ("annotations", "images")]
    missing = [] if "data" in flags_given else [flag for flag in flags if flag not in flags_given]
    excluded = "data" in flags_given and len(flags_given) > 1
    if fraction is not None:
        excluded = excluded or any(flag.startswith("val") for flag in flags_given)
    if missing or excluded:
        flags_used = [*flags_given, *(["val_fraction"] if fraction is not None else [])]
        raise ValueError(
            "own data are named with --data alone, or with annotations and images of each part; "
            "--val-fraction stands in place of data for evaluation, and --boxes-only beside data: "
            f"given {_as_flags(flags_used) or 'none'}, missing {_as_flags(missing) or 'none'}"
        )
    sources: dict[Path, Source] = {}
    for source in flags_given.pop("data", ()):
        sources[Path(source).absolute()] = open_source(Path(source).absolute())
    if not sources:
        paths = {flag: Path(path).absolute() for flag, path in flags_given.items()}
        files = {p: (paths[f"{p}_annotations"], paths[f"{p}_images"]) for p in needed}
        sources = {files[needed[0]][0]: files}
    settings: Any = dict(
        val_fraction=fraction, boxes_only=boxes_only, parts=tuple(parts), tile=tile
    )
    args.resolved = data = resolve(DatasetSpec(sources=sources, **settings))
    return data


def _as_flags(names: Sequence[str]) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in names)


def resolve(spec: DatasetSpec) -> DetectionData:
    """Read and validate the data of a spec; an error names file, id and value."""
    (path, source), *others = spec.sources.items()
    data = _merge(spec) if others else _resolve_one(path, source, spec)
    if spec.tile is not None and (whole := data.parts.get("train")) is not None:
        data.parts["train"] = tiles = tile_dataset(whole, spec.tile)
        size, count = spec.tile.size, len(whole.images)
        data.notes.append(f"{len(tiles.images)} tiles of {size} px of {count} training images")
    if "train" in data.parts and not data.parts["train"].instances:
        raise ValueError(f"{data.parts['train'].path} has no objects to train on, crowds aside")
    return data


def open_source(path: Path, *, report: Report = refuse) -> Source:
    """Find the format of a dataset, a file or a folder, and open it.

    `report` takes errors of labels that are read now, which are raised by default, as are others.

    Returns:
        Images with their labels; or part -> file in COCO format and its images.
    """
    opener = find_opener(path)
    if opener is not None:
        return opener(report)
    problem = "is not" if path.exists() else "is not there; it must be"
    raise ValueError(f"{path} {problem} {_FORMATS}")


def find_opener(path: Path) -> Callable[[Report], Source] | None:
    """Find the format of a dataset; return what opens it, None if there is no dataset."""
    is_folder = path.is_dir()
    if is_folder and (exports := find_exports(path)):
        return lambda report: exports
    if is_folder and (voc := find_voc(path)) is not None:
        return lambda report: open_voc(voc, report=report)
    description = find_yaml(path) if is_folder else path
    if description is not None and description.suffix.lower() in YAML and description.is_file():
        return lambda report: open_yolo(description)
    tables = find_tables(path)
    if tables:
        return lambda report: open_tables(tables, report=report)
    return None


def find_exports(folder: Path) -> Files:
    """Find annotation files in COCO format and their images, by the usual names.

    `train/_annotations.coco.json` with the images beside it and `valid/` (Roboflow), or
    `annotations/instances_train*.json` with `train*/` or `images/train*/` (COCO, CVAT).
    """
    files_of_parts: Files = {}
    for part, names in PART_NAMES.items():
        for path in (folder / name for name in names):
            if (path / _ROBOFLOW).is_file():
                files_of_parts.setdefault(part, (path / _ROBOFLOW, path))
    if {*files_of_parts} & {*PARTS}:
        return files_of_parts
    if (folder / _ROBOFLOW).is_file():
        return {"train": (folder / _ROBOFLOW, folder)}
    files_of_parts = {}
    for part, stems in _COCO_STEMS.items():
        if part == "test" and "val" in files_of_parts:  # for which it only stands in
            continue
        patterns = [f"instances_{stem}*.json" for stem in stems]
        files = [
            file for pattern in patterns for file in sorted((folder / "annotations").glob(pattern))
        ]
        name = files[0].stem.removeprefix("instances_") if files else ""
        below = (folder / name, folder / "images" / name, folder / "images")
        places = [path for path in below if path.is_dir()]
        if part == "test" and (len(files) != 1 or not places):
            continue
        if len(files) > 1 or (files and not places):
            raise ValueError(
                f"{', '.join(map(str, files))}: there is not one such file, with a folder of "
                f"images of its name in {folder} or {folder / 'images'}; name one with "
                f"--{part}-annotations, and its images with --{part}-images"
            )
        if files:
            files_of_parts[part] = files[0], places[0]
    return files_of_parts


def read_labels(
    source: LabelledImages,
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
    pairs = zip(images.names, facts, strict=True)
    sized = [(name, fact.seen_size[::-1]) for name, fact in pairs if not isinstance(fact, str)]
    lost = [f"{name} is not there" for name in images.missing]
    lost += [fact for fact in facts if isinstance(fact, str)]

    def annotations() -> Iterator[Entry]:
        for number, (name, size) in enumerate(sized, start=1):
            label = images.labels.get(name)
            if label is not None:
                for annotation in source.read(label, size, name in scored, report):
                    yield {"image_id": number, **annotation}

    lists: dict[str, Iterable[Any]] = {
        "images": [
            {"id": number, "file_name": name, "height": size[0], "width": size[1]}
            for number, (name, size) in enumerate(sized, start=1)
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate(source.classes, start=1)],
        "annotations": annotations(),
    }
    dataset = validate(
        source.source, lists, folder=images.folder, boxes_only=boxes_only, report=report
    )
    return dataset, lost, sum(not isinstance(fact, str) and fact.transparent for fact in facts)


def _facts(folder: str, name: str) -> ImageFacts | str:
    try:
        return inspect_image(f"{folder}/{name}", decode=False)
    except UnreadableImageError as error:
        return str(error)


def _parts_of(source: Source, spec: DatasetSpec, name: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the parts of a source; without data for evaluation, those for tests stand in."""
    parts = dict(source.parts if isinstance(source, LabelledImages) else source)
    whole = isinstance(source, LabelledImages) and not source.is_split
    if whole and spec.parts == ("val",) and spec.val_fraction is None:
        return {"val": parts["train"]}, []
    test = parts.pop("test", None)
    if test is None or "val" in parts or spec.val_fraction is not None:
        return parts, []
    return parts | {"val": test}, [f"{name} has no val: its test images are evaluated on"]


def _resolve_one(path: Path, source: Source, spec: DatasetSpec) -> DetectionData:
    parts, notes = _parts_of(source, spec, path)
    spec.check_parts(parts, str(path))
    datasets = {}
    for part in spec.parts if spec.val_fraction is None else ("train",):
        if isinstance(source, LabelledImages):
            datasets[part] = _read_images(source, parts[part], part, spec, notes)
        else:
            file, folder = parts[part]
            datasets[part] = read_coco(file, folder=folder, boxes_only=spec.boxes_only)
    if isinstance(source, LabelledImages):
        notes.append(f"{source.source} is read as {source.format}")
    elif spec.val_fraction is None:
        return DetectionData(parts=datasets, notes=notes)
    if spec.val_fraction is not None:
        datasets = _split(datasets["train"], spec, notes)
    return DetectionData(parts=datasets, notes=notes, generated=frozenset(datasets))


def _read_images(
    source: LabelledImages, images: ImageList, part: str, spec: DatasetSpec, notes: list[str]
) -> CocoDataset:
    scored = {*images.names} if part == "val" else set[str]()
    if spec.val_fraction is not None:
        scored = {*itertools.compress(images.names, _held_out(images.names, spec))}
    dataset, lost, alpha = read_labels(source, images, scored=scored, boxes_only=spec.boxes_only)
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


def _held_out(names: Sequence[str], spec: DatasetSpec) -> Flags:
    return holdout_mask(map(stem, names), spec.val_fraction or 0, name="--val-fraction")


def _split(dataset: CocoDataset, spec: DatasetSpec, notes: list[str]) -> dict[str, CocoDataset]:
    """Split training data into what is trained on and what is evaluated on."""
    names = [image["file_name"] for image in dataset.images.values()]
    # a name must not depend on the place of the data, also where a file has paths
    names = [os.path.relpath(n, dataset.folder) if os.path.isabs(n) else n for n in names]  # noqa: PTH117
    held_out = _held_out(names, spec)
    notes.append(
        f"--val-fraction {spec.val_fraction:g}: {int(held_out.sum())} of {len(held_out)} images "
        f"are held out for evaluation, {int((~held_out).sum())} are trained on; their names decide"
    )
    datasets = {}
    for part, side in (("train", ~held_out), ("val", held_out)):
        images = dict(itertools.compress(dataset.images.items(), side))
        objects = [annotation for annotation in dataset.objects if annotation["image_id"] in images]
        datasets[part] = dataclasses.replace(dataset, images=images, objects=objects)
    trained, held = (
        {annotation["category_id"] for annotation in datasets[part].instances} for part in PARTS
    )
    lost = [dataset.categories[key] for key in sorted(held - trained)]
    if lost:
        notes.append(
            f"no image that is trained on has {list_names(lost)}: name data for evaluation, or "
            "another fraction"
        )
    return {part: datasets[part] for part in spec.parts}


def _merge(spec: DatasetSpec) -> DetectionData:
    """Merge several sources, which have the same classes, or have no lists of them."""
    opened = spec.sources
    parts = {path: _parts_of(source, spec, path)[0] for path, source in opened.items()}
    shared = spec.val_fraction is not None
    if not shared:
        spec.check_parts(set().union(*parts.values()), " and ".join(map(str, opened)))
    resolved = {}
    for path, source in opened.items():
        part_names = tuple(part for part in spec.parts if shared or part in parts[path])
        if part_names:
            resolved[path] = _resolve_one(path, source, dataclasses.replace(spec, parts=part_names))
    categories = _common_categories(opened.values(), resolved)
    folders: dict[str, Path] = {}
    merged = {}
    for part in spec.parts:
        if not shared:
            folders = {}  # where a fraction of each is held out, an image is in one of all parts
        datasets = [data.parts[part] for data in resolved.values() if part in data.parts]
        merged[part] = _merge_part(datasets, folders, categories)
    notes = [note for data in resolved.values() for note in data.notes]
    notes.append(f"{len(opened)} datasets are merged: {', '.join(map(str, opened))}")
    return DetectionData(parts=merged, notes=notes, generated=frozenset(merged))


def _common_categories(
    opened: Collection[Source], resolved: Mapping[Path, DetectionData]
) -> Mapping[int, str]:
    """Return the categories of the first dataset, whose names all have in the same order.

    The classes of VOC and of tables are those of which objects were found, and of no list: the
    names of all are then joined, sorted, and numbered from 1.
    """
    free = [
        source
        for source in opened
        if isinstance(source, LabelledImages) and source.format != "YOLO"
    ]
    if len(free) == len(opened):
        return dict(
            enumerate(sorted({name for source in free for name in source.classes}), start=1)
        )
    parts = [(path, part) for path, data in resolved.items() for part in data.parts.values()]
    first_path, first = parts[0]
    ours = [*first.categories.values()]
    for path, part in parts:
        theirs = [*part.categories.values()]
        if theirs != ours:
            raise ValueError(
                f"merged datasets need the same classes in the same order: {path} has "
                f"{len(theirs)} ({list_names(theirs)}); {first_path} has {len(ours)} "
                f"({list_names(ours)})"
            )
    return first.categories


def _merge_part(
    datasets: Sequence[CocoDataset], folders: dict[str, Path], categories: Mapping[int, str]
) -> CocoDataset:
    """Merge datasets in the image folder of the first; names elsewhere are absolute.

    An image that is `folders`, with the path of its dataset, from another one is an error.
    """
    root = os.path.normpath(datasets[0].folder)
    numbers = {name: key for key, name in categories.items()}
    images: dict[int, Entry] = {}
    objects: list[Entry] = []
    for dataset in datasets:
        ids = {}
        for key, entry in dataset.images.items():
            name = os.path.normpath(Path(dataset.folder, entry["file_name"]))
            if folders.setdefault(name, dataset.path) != dataset.path:
                raise ValueError(
                    f"{name} is an image of {folders[name]} and of {dataset.path}: leave one of "
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
    )
