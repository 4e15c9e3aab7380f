"""`eva train DATA`: task by the form of the data, recipe by the machine; `eva export RUN`."""

import argparse
import itertools
import os
import re
import shlex
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from eva_backbone.checkpoints.registry import weights_directories
from eva_backbone.checkpoints.run_folders import BEST, describe_missing
from eva_command.label import find_task
from eva_command.main import call
from eva_command.starting import find_start, plan_quick
from eva_command.table import COMMANDS
from eva_data.captions.lists import CAPTION_COLUMNS, IMAGE_COLUMNS
from eva_data.checks.folders import find_parts
from eva_data.files import (
    ARRAY_SUFFIXES,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    find_files,
    open_regular,
)
from eva_data.labelled_videos.lists import COLUMNS
from eva_data.tables import find_columns
from eva_data.tar import is_shard_pattern
from eva_runs.commands import Command, echo
from eva_runs.options import command_parser
from eva_runs.output_folder import number_folder
from eva_runs.recipes import TASKS, find_recipe, list_recipes, name_on_own_data

Words = list[str]
_MANY, _FEWEST = 50, 5  # samples; of fewer a larger share is evaluated on, or all are
_IMAGES, _MAPS = ("images", "imgs", "photos"), ("annotations", "labels", "maps", "masks")
_LISTS = (".csv", ".tsv", ".txt", ".tar", ".parquet", ".safetensors", ".jsonl")
_OBJECTS = "boxes: YOLO, Pascal VOC, a COCO file or a table"
_NEEDS: Mapping[str, str] = {
    "detection": _OBJECTS,
    "mmdetection": _OBJECTS,
    "segmentation": "label maps: images/ and masks/ with equal file names, and classes.toml",
    "classification": "a folder of images for each class",
    "video": "a folder of videos for each class, or a list",
    "clip": "captions: a table, shards, or a .txt beside each image",
}
_SAME = {"--val-fraction": "--val-share", "--work-dir": "--output", "--run.output": "--output"}
_SETTING = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*=")  # a word that begins so has a name itself
_START = 2**16  # bytes of a JSON file that are looked at
_FEW = 8  # folders beside each other, in which a dataset of boxes may lie
_LARGE = 22 * 2**30  # bytes of a card of 24 GB
# task -> recipe for such a card, and the official weights that it starts from
_RECIPES: Mapping[str, tuple[str, str]] = {
    "detection": ("custom/cascade_mask_rcnn_vitdet_eva_l_24gb", "eva_l_psz14.pt"),
    "mmdetection": ("custom/cascade_mask_rcnn_eva_l_24gb", "eva_l_psz14.pt"),
    "segmentation": (
        "ade20k/mask2former_eva_g_512_24gb",
        "eva_sem_seg_mask2former_ade_ss61p5_ms62p3.pth",
    ),
    "classification": ("eva_l_patch14_in21k_to_in1k_336px", "eva_l_psz14_21k_ft.pt"),
    "video": ("own_videos", "eva_video_k722.pth"),
    "clip": ("own_pairs", "eva_clip_psz14.pt"),
}
_EOMT = {
    "mmdetection": ("custom/eomt_eva_l_24gb", "eva_l_psz14.pt"),
    "segmentation": ("ade20k/eomt_eva_l_512_24gb", "eva_l_psz14.pt"),
}


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    description = """Train on own data: the task by their form, the recipe by this machine. The
command is printed, then run; further arguments are those of the task's training.

    eva train photos/         # a folder of images, or of videos, for each class
    eva train my/data.yaml    # objects: YOLO, Pascal VOC, a COCO file or export
    eva train my/             # images/ and masks/ with equal file names, and classes.toml
    eva train my/coco         # panoptic segments: annotations/panoptic_train.json and its PNG files
    eva train pairs.csv       # images with captions
    eva train fields/ --bands 5 --show-bands 3,2,1    # TIFF, .npy or .npz of 1 to 32 bands"""
    parser = command_parser(description)
    add = parser.add_argument
    add("data", type=Path, metavar="DATA", help="folder or file, in front of further arguments")
    add("--task", choices=_RECIPES, help="task, where the data fit several")
    choice = parser.add_mutually_exclusive_group()
    help_text = "a recipe of `eva recipes TASK`, or its path"
    choice.add_argument("--recipe", metavar="NAME", help=help_text)
    help_text = "a linear head on frozen features, in minutes (classification, segmentation)"
    choice.add_argument("--quick", action="store_true", help=help_text)
    help_text = "masks by queries in the ViT itself: of label maps, or of objects in mmdetection"
    choice.add_argument("--head", choices=["eomt"], help=help_text)
    options, rest = parser.parse_known_args(arguments)
    options.rest = rest
    return options


def _run(options: argparse.Namespace) -> int:
    tasks = find_tasks(options.data)
    task = options.task or (next(iter(tasks)) if len(tasks) == 1 else "")
    if options.head and task not in _EOMT:
        if task != "detection" or options.task:
            raise ValueError(f"--head {options.head} is of {' and '.join(_EOMT)}, not of {task!r}")
        task = "mmdetection"
    segments = "mmdetection" in tasks  # panoptic ones, which queries learn
    head = "eomt" if segments else options.head
    task_data = tasks.get("detection" if task == "mmdetection" and not segments else task)
    if task_data is None:
        raise ValueError(_explain_misfit(options.data, tasks, options.task))
    task_data = _drop_validation(task_data, options.rest)
    for line in _describe_validation(_keep_last([*task_data, *options.rest])):
        echo(line)
    if options.quick:
        name = name_on_own_data(find_recipe("classification", "custom/eva_small"), options.data)
        folder = Path(f"output/{name}_quick")
        output = number_folder(folder, lambda run: (run / BEST).exists())
        command, *words = plan_quick(task, task_data, options.rest, str(output))
        return _call(command, words)
    recipe, *words = (
        [options.recipe] if options.recipe else _recipe_for(task, head, options.data, options.rest)
    )
    return _call(f"{task} train", [recipe, *_keep_last([*words, *task_data, *options.rest])])


def _explain_misfit(data: Path, tasks: Mapping[str, Words], task: str | None) -> str:
    if task:
        return f"{data} is no data of {task}, which needs {_NEEDS[task]}"
    if not tasks and data.is_dir() and any(find_files(data, IMAGE_SUFFIXES)):
        return (
            f"{data} has images without labels: `eva label {data} --weights WEIGHTS --to coco` "
            f"labels them by a model, `eva distill {data} --teacher WEIGHTS` learns without; "
            "docs/command.md has the forms of labels"
        )
    return (
        f"{data} fits {' and '.join(tasks) or 'no task'}: choose with --task, or name it by the "
        "options of `eva TASK train --help`; see docs/command.md for the forms"
    )


def _keep_last(words: Words) -> Words:
    """Leave out flags that come again with their values; `--data` may come several times."""
    names = [_SAME.get(flag, flag) for flag in (word.partition("=")[0] for word in words)]
    result, skips = list[str](), False
    for number, (word, name) in enumerate(zip(words, names, strict=True), start=1):
        if word.startswith("--"):
            skips = name != "--data" and name in names[number:]
        elif _SETTING.match(word):
            skips = False
        result += [] if skips else [word]
    return result


def _drop_validation(task_data: Words, rest: Sequence[str]) -> Words:
    """Leave out what would be evaluated on, if the user names other data for it, or a share."""
    names = {word.partition("=")[0] for word in rest if word[:2] == "--" or _SETTING.match(word)}
    pairs = [*zip(task_data[::2], task_data[1::2], strict=True)]
    if names & {"--val-images", "--val-maps", "--val", "--data.val", "data.val"}:
        pairs = [pair for pair in pairs if not pair[0].endswith("val-share")]
    elif names & {"--val-share", "--data.val-share", "data.val_share"}:  # not of all of few
        trained = {value for flag, value in pairs if "train" in flag}
        pairs = [pair for pair in pairs if pair[0][:6] != "--val-" or pair[1] not in trained]
        pairs = [
            (flag, "" if flag == "--data.val" and value in trained else value)
            for flag, value in pairs
        ]
    return [word for pair in pairs for word in pair]


def _share(samples: Iterable[Any]) -> str:
    """Choose the share of samples to evaluate on where nothing else is named; "1" is all of few."""
    count = sum(1 for _ in islice(samples, _MANY))
    return "1" if count < _FEWEST else "0.2" if count < _MANY else "0.1"


def _describe_validation(words: Words) -> list[str]:
    """Say what is evaluated on where the data do not name it, in a line or none."""
    named = dict(pairwise(words))
    share = named.get("--val-share") or named.get("--data.val-share")
    trained = {named.get("--train-images"), named.get("--data.train")} - {None}
    if share == "1" or trained & {named.get("--val-images"), named.get("--data.val")}:
        return [
            f"fewer than {_FEWEST} samples: evaluated on the training data, which says nothing of "
            "other images"
        ]
    return [f"no validation data: about {share} of the data are held out for it"] if share else []


def _call(command: str, words: Words) -> int:
    echo(f"$ eva {command} {shlex.join(words)}")
    return call(command, words)


main = Command("eva train", _parse, _run)


def _parse_export(arguments: Sequence[str]) -> argparse.Namespace:
    description = """Write a model for programs without this toolkit, such as onnxruntime. Further
arguments are those of `eva TASK export`; docs/export.md has a program that runs the file.

    eva export output/coins --image photo.jpg --output coins.onnx    # a detector, complete
    eva export output/rooms --output rooms.onnx                      # a segmentor, a classifier
    eva export segmentation --weights WEIGHTS --config RECIPE --output rooms.onnx"""
    parser = command_parser(description)
    parser.add_argument("source", metavar="RUN|TASK", help="folder of a run, or task of --weights")
    options, rest = parser.parse_known_args(arguments)
    options.rest = rest
    return options


def _export(options: argparse.Namespace) -> int:
    task, words = options.source, options.rest
    if Path(task).is_dir():
        if find_task(task, None)[0] == "mmdetection":
            return _export_as_detectron2(Path(task), words)
        words = ["--weights", task, *words]
        task = find_task(task, None)[0] or task
    if f"{task} export" not in COMMANDS:
        missing = task not in TASKS and describe_missing(Path(task))
        tasks = ", ".join(name for name in TASKS if f"{name} export" in COMMANDS)
        raise ValueError(f"{missing or task + ' has no export'}: name a run, or a task of {tasks}")
    return _call(f"{task} export", words)


def _export_as_detectron2(run: Path, words: Words) -> int:
    from eva_command.mmdetection_export import write_detectron2_run

    with tempfile.TemporaryDirectory() as folder:
        folder = f"{folder}/{run.resolve().name}"  # which the file is named by
        write_detectron2_run(run, Path(folder))
        return call("detection export", ["--weights", folder, *words])


export = Command("eva export", _parse_export, _export)


def find_tasks(data: Path) -> dict[str, Words]:
    """Find the tasks that data fit, with the words that name the data to `eva TASK train`."""
    if is_shard_pattern(data):
        return {task: _samples(data) for task in ("video", "clip")}
    missing = describe_missing(data)
    if missing:
        raise ValueError(missing)
    words = _objects(data)
    if words:
        return {"mmdetection" if _has_segments(data) else "detection": words}
    if not data.is_dir():
        return {task: _samples(data) for task in _tasks_of_list(data)}
    words = map_folders(data)
    if words:
        return {"segmentation": words}
    subfolders = [entry for entry in data.iterdir() if entry.is_dir()]
    if len(subfolders) < _FEW and (sets := [str(entry) for entry in subfolders if _objects(entry)]):
        raise ValueError(f"{data} holds the dataset {', '.join(sets)}: name that")
    train, *other_parts = find_parts(data) or [data]
    below = [entry for entry in train.iterdir() if entry.is_dir() and entry.name[0] != "."]
    tasks = {}
    kinds = (("classification", IMAGE_SUFFIXES | ARRAY_SUFFIXES), ("video", VIDEO_SUFFIXES))
    for task, suffixes in kinds:
        if sum(any(find_files(folder, suffixes)) for folder in below) > 1:
            tasks[task] = _samples(train, *other_parts)
    images = islice(find_files(data, IMAGE_SUFFIXES), 20)
    if any((data / name).with_suffix(".txt").is_file() for name in images):
        tasks["clip"] = _samples(data)
    return tasks


def _tasks_of_list(data: Path) -> Words:
    suffix = data.suffix.lower()
    if suffix == ".json":
        return ["clip"] if guess_check([str(data)])[0] == "captions" else []
    if suffix not in (".csv", ".tsv"):
        return {".toml": ["clip"], ".txt": ["video"]}.get(suffix, [])
    pairs = find_columns(data, {"image": IMAGE_COLUMNS, "caption": CAPTION_COLUMNS}).places
    videos = find_columns(data, COLUMNS).places
    tasks = ["clip"] if len(pairs) == 2 else []
    return tasks + (["video"] if "label" in videos and {"path", "id"} & {*videos} else [])


def _finds_objects(data: Path) -> bool:
    try:
        from eva_data.detection.sources import find_opener
    except ImportError:  # pycocotools, which only detectors and segmentors have
        return False
    return find_opener(data) is not None


def _has_segments(data: Path) -> bool:
    from eva_data.detection.sources import PANOPTIC, open_source

    files: Any = open_source(data.absolute())
    return isinstance(files, Mapping) and any(
        file.name.startswith(PANOPTIC) for file, _ in files.values()
    )


def _objects(data: Path) -> Words:
    if not _finds_objects(data):
        return []
    from eva_data.detection.coco import load_lists
    from eva_data.detection.image_labels import LabelledImages
    from eva_data.detection.sources import open_source

    source = open_source(data.absolute())
    parts: Any = getattr(source, "parts", source)  # of files in COCO format a table
    train = parts.get("train")
    if train is None or ({*parts} != {"train"} and parts.get("val") != train):
        return ["--data", str(data)]
    names = train.names if isinstance(source, LabelledImages) else load_lists(train[0])["images"]
    return ["--data", str(data), "--val-share", _share(names)]


def guess_check(arguments: Sequence[str]) -> list[str]:
    """Put the name of a check of `eva data verify` in front of the path that words begin with."""
    path, rest = Path(arguments[0]), list(arguments[1:])
    suffix = "" if path.is_dir() else path.suffix.lower()
    if suffix == ".toml":
        return ["images", str(path), *rest]
    has_folder = any(word.partition("=")[0] == "--images" for word in rest)
    if suffix in (".yaml", ".yml") or (not has_folder and _finds_objects(path)):
        return ["coco", "--data", str(path), *rest]
    if suffix == ".json":
        with open_regular(path) as stream:
            ends = stream.read(_START)  # COCO's annotations are behind its images
            stream.seek(-min(_START, stream.seek(0, os.SEEK_END)), os.SEEK_END)
            ends += stream.read()
        captions = any(name in ends for name in (b'"caption"', b'"sentences"'))
        kind = ["captions"] if captions else ["coco", "--annotations"]
        return [*kind, str(path), *rest]
    if path.is_dir():
        words = map_folders(path)
        if words:
            renamed = {"--train-images": "--images", "--train-maps": "--maps"}
            pairs = zip(words[::2], words[1::2], strict=True)
            named = [(renamed.get(key, key), value) for key, value in pairs if key != "--val-share"]
            return ["semantic", *itertools.chain(*named), *rest]
    for check, suffixes in (("folders", IMAGE_SUFFIXES), ("video", VIDEO_SUFFIXES)):
        if path.is_dir() and any(find_files(path, suffixes)):
            return [check, str(path), *rest]
    hint = f"`video {path}` or `captions {path}`" if suffix in _LISTS else "one of the checks"
    what = "a file that says what is in it" if path.exists() else "a path that is there"
    raise ValueError(f"{path} is neither a check nor {what}: write {hint}, see --help")


def map_folders(data: Path) -> Words:
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
    words = ["--val-share", share] if share not in ("", "1") else []
    pairs *= 2 if share == "1" else 1
    for part, (images, maps) in zip(("train", "val"), pairs, strict=False):
        words += [f"--{part}-images", str(images), f"--{part}-maps", str(maps)]
    classes = data / "classes.toml"
    return words + (["--classes", str(classes)] if words and classes.is_file() else [])


def _samples(train: Path, *others: Path) -> Words:
    kinds = IMAGE_SUFFIXES | ARRAY_SUFFIXES | VIDEO_SUFFIXES
    below = find_files(train, kinds) if train.is_dir() else ()
    share = _share(below) if train.is_dir() and not others else "0.1"
    others = (train,) if share == "1" else others
    val = [str(others[0])] if others else ["", "--data.val-share", share]
    return ["--data.train", str(train), "--data.val", *val]


def _recipe_for(task: str, head: str | None, data: Path, rest: Sequence[str]) -> Words:
    """Choose a recipe, with settings, by the card and the weights that can be had; say why."""
    import torch

    large, weights = (_EOMT if head else _RECIPES)[task]
    card = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    has_weights = any((folder / weights).is_file() for folder in weights_directories())
    if has_weights and card is not None and card.total_memory > _LARGE:
        return [large]
    echo(f"{large} would need a GPU of 24 GB and `eva weights get {weights}`")
    names = [recipe.name for recipe in list_recipes(task) if recipe.name.endswith("_small")]
    if head:
        return [name for name in names if head in name]
    small = (name for name in names if "eomt" not in name)
    return find_start(task, data, rest, next(small, "eva_debug_captions"))  # of CLIP
