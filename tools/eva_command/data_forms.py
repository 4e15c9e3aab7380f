"""Forms of data on disk: which tasks they are for, and how `eva TASK train` is told of them."""

import itertools
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from eva_backbone.checkpoints.run_folders import describe_missing
from eva_data.captions.lists import CAPTION_COLUMNS, IMAGE_COLUMNS
from eva_data.checks.images import find_parts
from eva_data.files import (
    ARRAY_SUFFIXES,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    find_files,
    open_regular,
)
from eva_data.labelled_videos.lists import COLUMNS
from eva_data.tables import find_columns
from eva_data.tar import shard_pattern

try:
    from eva_data.detection import coco, foreign, sources
except ImportError:  # pycocotools, which only detectors and segmentors have
    sources = None  # type: ignore[assignment]

Options = dict[str, str]  # flag of `eva TASK train` -> value
FEWEST = 5  # samples; of fewer all are evaluated on
_MANY = 50  # samples; of fewer a larger share is evaluated on
_IMAGES = ("images", "image", "imgs", "img", "photos")
_MAPS = ("annotations", "annotation", "labels", "label", "maps", "map", "masks", "mask")
_CLASSES = "classes.toml"  # of label maps
_LISTS = (".csv", ".tsv", ".txt", ".tar", ".parquet", ".safetensors", ".jsonl")
_END = 2**16  # bytes of a JSON file that are looked at on both sides
_FEW = 8  # folders beside each other, in which a dataset of boxes may lie


def find_tasks(data: Path) -> dict[str, Options]:
    """Find the tasks that data fit, with the options that name the data to `eva TASK train`."""
    parts = find_parts(data) if data.is_dir() else []
    patterns = [shard_pattern(part) for part in parts or [data]]
    if all(patterns):
        return dict.fromkeys(("video", "clip"), _samples(*map(Path, filter(None, patterns))))
    missing = describe_missing(data)
    if missing:
        raise ValueError(missing)
    options = _objects(data)
    if options:
        return {"mmdetection" if _has_segments(data) else "detection": options}
    if not data.is_dir():
        return {task: _samples(data) for task in _tasks_of_list(data)}
    options = map_folders(data)
    if options:
        return {"segmentation": options}
    _refuse_folder_of_datasets(data)
    tasks = _tasks_of_class_folders(*(parts or [data]))
    images = islice(find_files(data, IMAGE_SUFFIXES), 20)
    if any((data / name).with_suffix(".txt").is_file() for name in images):
        tasks["clip"] = _samples(data)
    return tasks


def _refuse_folder_of_datasets(data: Path) -> None:
    """Refuse a folder whose subfolders, which could pass for classes, are datasets themselves."""
    subfolders = [entry for entry in data.iterdir() if entry.is_dir()]
    sets = [entry for entry in subfolders if (entry / _CLASSES).is_file() and map_folders(entry)]
    sets += [entry for entry in subfolders if len(subfolders) < _FEW and _objects(entry)]
    if sets:
        raise ValueError(f"{data} holds the dataset {', '.join(map(str, sets))}: name that")


def _tasks_of_class_folders(train: Path, *other_parts: Path) -> dict[str, Options]:
    """Find the tasks of folders with a folder of images, or of videos, for each class."""
    below, tasks = _folders_in(train), dict[str, Options]()
    labelled_parts = [part for part in other_parts if _folders_in(part)]
    kinds = (("classification", IMAGE_SUFFIXES | ARRAY_SUFFIXES), ("video", VIDEO_SUFFIXES))
    for task, suffixes in kinds:
        if sum(any(find_files(folder, suffixes)) for folder in below) > 1:
            tasks[task] = _samples(train, *labelled_parts)
    return tasks


def _folders_in(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."]


def _tasks_of_list(data: Path) -> list[str]:
    suffix = data.suffix.lower()
    if suffix == ".json":
        return ["clip"] if _has_captions(data) else []
    if suffix not in (".csv", ".tsv"):
        return {".toml": ["clip"], ".txt": ["video"]}.get(suffix, [])
    pairs = find_columns(data, {"image": IMAGE_COLUMNS, "caption": CAPTION_COLUMNS}).places
    videos = find_columns(data, COLUMNS).places
    tasks = ["clip"] if len(pairs) == 2 else []
    return tasks + (["video"] if "label" in videos and {"path", "id"} & {*videos} else [])


def _finds_objects(data: Path) -> bool:
    return sources is not None and sources.find_opener(data) is not None


def _has_segments(data: Path) -> bool:
    files: Any = sources.open_source(data.absolute())
    return isinstance(files, Mapping) and any(
        file.name.startswith(sources.PANOPTIC) for file, _ in files.values()
    )


def _objects(data: Path) -> Options:
    if not _finds_objects(data):
        return {}
    source = sources.open_source(data.absolute())
    parts: Any = getattr(source, "parts", source)  # of files in COCO format a table
    train = parts.get("train")
    if train is None or ({*parts} != {"train"} and parts.get("val") != train):
        return {"--data": str(data)}
    names = (
        train.names
        if isinstance(source, foreign.ForeignDataset)
        else coco.load_lists(train[0])["images"]
    )
    return {"--data": str(data), "--val-share": _share(names)}


def guess_check(arguments: Sequence[str]) -> list[str]:
    """Put the name of a check of `eva data verify` in front of the path that words begin with."""
    path, rest = Path(arguments[0]), arguments[1:]
    has_images = any(word.partition("=")[0] == "--images" for word in rest)
    return [*_find_check(path, has_images), *rest]


def _find_check(path: Path, has_images: bool) -> list[str]:
    """Return the check of data, and the words that name the data to it."""
    suffix = "" if path.is_dir() else path.suffix.lower()
    if suffix == ".toml":
        return ["images", str(path)]
    if suffix in (".yaml", ".yml") or (not has_images and _finds_objects(path)):
        return ["coco", "--data", str(path)]
    if suffix == ".json":
        words = ["captions"] if _has_captions(path) else ["coco", "--annotations"]
        return [*words, str(path)]
    if path.is_dir():
        options = map_folders(path)
        options.pop("--val-share", None)
        if options:
            renamed = {"--train-images": "--images", "--train-maps": "--maps"}
            named = {renamed.get(flag, flag): value for flag, value in options.items()}
            return ["semantic", *itertools.chain(*named.items())]
        for check, suffixes in (("folders", IMAGE_SUFFIXES), ("video", VIDEO_SUFFIXES)):
            if any(find_files(path, suffixes)):
                return [check, str(path)]
    tasks = _tasks_of_list(path) if path.is_file() else []
    if len(tasks) == 1:
        return ["captions" if tasks == ["clip"] else tasks[0], str(path)]
    is_list = suffix in _LISTS or shard_pattern(path)
    quoted = shlex.quote(str(path))
    hint = f"`video {quoted}` or `captions {quoted}`" if is_list else "one of the checks"
    what = "a file that says what is in it" if path.exists() else "a path that is there"
    raise ValueError(f"{path} is neither a check nor {what}: write {hint}, see --help")


def _has_captions(file: Path) -> bool:
    """Return whether a JSON file is of captions, by its ends: COCO's are behind its images."""
    with open_regular(file) as stream:
        ends = stream.read(_END)
        stream.seek(-min(_END, stream.seek(0, os.SEEK_END)), os.SEEK_END)
        ends += stream.read()
    return any(name in ends for name in (b'"caption"', b'"sentences"'))


def map_folders(data: Path) -> Options:
    """Name folders of images and label maps; training and validation may lie above or below."""
    pairs = []
    for top in find_parts(data)[:2] or [data]:
        folders = [
            (top / images, top / maps)
            for images in _IMAGES
            for maps in _MAPS
            if (top / images).is_dir() and (top / maps).is_dir()
            if any(find_files(top / maps, IMAGE_SUFFIXES))
        ]
        if len(folders) > 1:
            names = ", ".join(str(maps) for _, maps in folders)
            raise ValueError(f"{names} may all be the label maps: name folders by their options")
        pairs += folders
    for images, maps in pairs[:1]:
        pairs = [(part, maps / part.name) for part in find_parts(images)[:2]] or pairs
    share = _share(find_files(pairs[0][1], IMAGE_SUFFIXES)) if len(pairs) == 1 else ""
    options = {"--val-share": share} if share not in ("", "1") else {}
    pairs *= 2 if share == "1" else 1
    for part, (images, maps) in zip(("train", "val"), pairs, strict=False):
        options |= {f"--{part}-images": str(images), f"--{part}-maps": str(maps)}
    classes = data / _CLASSES
    return options | ({"--classes": str(classes)} if options and classes.is_file() else {})


def _samples(train: Path, *others: Path) -> Options:
    kinds = IMAGE_SUFFIXES | ARRAY_SUFFIXES | VIDEO_SUFFIXES
    below = find_files(train, kinds) if train.is_dir() else ()
    share = _share(below) if train.is_dir() and not others else "0.1"
    others = (train,) if share == "1" else others
    options = {"--data.train": str(train), "--data.val": str(others[0]) if others else ""}
    return options if others else options | {"--data.val-share": share}


def _share(samples: Iterable[Any]) -> str:
    """Choose the share of samples to evaluate on where nothing else is named; "1" is all of few."""
    count = sum(1 for _ in islice(samples, _MANY))
    return "1" if count < FEWEST else "0.2" if count < _MANY else "0.1"
