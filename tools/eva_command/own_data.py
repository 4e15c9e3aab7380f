"""What `eva train DATA` does: task by the form of the data, recipe by the machine; and exports."""

import argparse
import re
import shlex
import tempfile
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from pathlib import Path

from eva_backbone.checkpoints.run_folders import BEST, describe_missing
from eva_command.data_forms import FEWEST, Options, find_tasks
from eva_command.label import find_task
from eva_command.main import call
from eva_command.starting import EOMT, choose_recipe, plan_quick, require_task
from eva_command.table import COMMANDS
from eva_data.files import IMAGE_SUFFIXES, find_files
from eva_runs.commands import echo, lazy_import
from eva_runs.output_folder import number_folder
from eva_runs.recipes import TASKS, find_recipe, name_on_own_data

_OBJECTS = "boxes: YOLO, Pascal VOC, a COCO file or a table"
_NEEDS: Mapping[str, str] = {
    "detection": _OBJECTS,
    "mmdetection": _OBJECTS,
    "segmentation": "label maps: images/ and masks/ with equal file names, and classes.toml",
    "classification": "a folder of images for each class",
    "video": "a folder of videos for each class, or a list",
    "clip": "captions: a table, shards, or a .txt beside each image",
}
# options of a task's training that mean the same -> their plain name
_SAME = {
    **{f"data.{name}": name for name in ("train", "val", "val-share")},
    "val-fraction": "val-share",
    "work-dir": "output",
    "run.output": "output",
}
_SETTING = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*=")  # a word that begins so has a name itself


def train(options: argparse.Namespace) -> int:
    """Choose task, recipe and data of `eva train`, print the command and run it."""
    tasks = find_tasks(options.data)
    task = options.task or (next(iter(tasks)) if len(tasks) == 1 else "")
    if options.head and task not in EOMT:
        task = "mmdetection" if task == "detection" and not options.task else task
        require_task(task, f"--head {options.head}", EOMT)
    segments = "mmdetection" in tasks  # panoptic ones, which queries learn
    head = "eomt" if segments else options.head
    task_data = tasks.get("detection" if task == "mmdetection" and not segments else task)
    if task_data is None:
        raise ValueError(_explain_misfit(options.data, tasks, options.task))
    named = _names_in(options.rest)
    task_data = _choose_validation(task_data, named)
    line = _describe_validation(task_data)
    if line:
        echo(line)
    if options.quick:
        name = name_on_own_data(find_recipe("classification", "custom/eva_small"), options.data)
        folder = Path(f"output/{name}_quick")
        output = number_folder(folder, lambda run: (run / BEST).exists())
        command, *words = plan_quick(task, task_data, options.rest, str(output))
        return _call(command, words)
    recipe, *settings = (
        [options.recipe]
        if options.recipe
        else choose_recipe(task, head, options.data, options.rest)
    )
    chosen = _leave_out(dict(zip(settings[::2], settings[1::2], strict=True)), named)
    chosen |= task_data
    return _call(f"{task} train", [recipe, *chain(*chosen.items()), *options.rest])


def _explain_misfit(data: Path, tasks: Collection[str], task: str | None) -> str:
    if task:
        return f"{data} is no data of {task}, which needs {_NEEDS[task]}"
    if not tasks and data.is_dir() and any(find_files(data, IMAGE_SUFFIXES)):
        files = find_files(data, {".json", ".xml"})
        label_file = next((name for name in files if _is_beside_image(data / name)), None)
        if label_file:
            return (
                f"{data / label_file} is in no form of labels that is read: export them as COCO, "
                "YOLO or Pascal VOC; docs/command.md has all forms"
            )
        return (
            f"{data} has images without labels: `eva label {data} --weights WEIGHTS --to coco` "
            f"labels them by a model, `eva distill {data} --teacher WEIGHTS` learns without; "
            "docs/command.md has the forms of labels"
        )
    return (
        f"{data} fits {' and '.join(tasks) or 'no task'}: choose with --task, or name it by the "
        "options of `eva TASK train --help`; see docs/command.md for the forms"
    )


def _is_beside_image(file: Path) -> bool:
    """Return whether an image has the name of a file, as labelme writes its labels."""
    return any(file.with_suffix(suffix).is_file() for suffix in IMAGE_SUFFIXES)


def _plain_name(word: str) -> str:
    """Return the name of an option or setting: of `--val-fraction=0.1`, `val-share`."""
    name = word.partition("=")[0].removeprefix("--").replace("_", "-")
    return _SAME.get(name, name)


def _names_in(words: Sequence[str]) -> set[str]:
    """Return the plain names of the options and settings among words."""
    return {_plain_name(word) for word in words if word[:2] == "--" or _SETTING.match(word)}


def _leave_out(options: Options, named: Collection[str]) -> Options:
    """Leave out options that the user names; `--data` may come several times."""
    return {
        flag: value
        for flag, value in options.items()
        if flag == "--data" or _plain_name(flag) not in named
    }


def _choose_validation(task_data: Options, named: Collection[str]) -> Options:
    """Leave out what the user names, and what would be evaluated on in its place."""
    if {"val-images", "val-maps", "val"} & {*named}:
        return _leave_out(task_data, [*named, "val-share"])
    if "val-share" in named:
        trained = {value for flag, value in task_data.items() if "train" in flag}  # all of few
        task_data = {
            flag: "" if flag == "--data.val" and value in trained else value
            for flag, value in task_data.items()
            if not (flag.startswith("--val-") and value in trained)
        }
    return _leave_out(task_data, named)


def _describe_validation(task_data: Options) -> str:
    """Say what is evaluated on where neither the data nor the user name it."""
    options = {_plain_name(flag): value for flag, value in task_data.items()}
    share = options.get("val-share")
    trained = {options.get("train-images"), options.get("train")} - {None}
    if share == "1" or trained & {options.get("val-images"), options.get("val")}:
        return (
            f"fewer than {FEWEST} samples: evaluated on the training data, which says nothing of "
            "other images"
        )
    return f"no validation data: about {share} of the data are held out for it" if share else ""


def _call(command: str, words: Sequence[str]) -> int:
    echo(f"$ eva {command} {shlex.join(words)}")
    return call(command, words)


def export(options: argparse.Namespace) -> int:
    """Run the export of the task that a run is of."""
    task, words = options.source, options.rest
    if Path(task).is_dir():
        if find_task(task, None)[0] == "mmdetection":
            return _export_mmdetection(Path(task), words)
        words = ["--weights", task, *words]
        task = find_task(task, None)[0] or task
    if f"{task} export" not in COMMANDS:
        missing = task not in TASKS and describe_missing(Path(task))
        tasks = ", ".join(name for name in TASKS if f"{name} export" in COMMANDS)
        raise ValueError(f"{missing or task + ' has no export'}: name a run, or a task of {tasks}")
    return _call(f"{task} export", words)


def _export_mmdetection(run: Path, words: Sequence[str]) -> int:
    if lazy_import("eva_command.mmdetection_export:has_queries")(run):
        return call("mmdetection export", ["--weights", str(run), *words])
    with tempfile.TemporaryDirectory() as folder:
        folder = f"{folder}/{run.resolve().name}"  # which the file is named by
        lazy_import("eva_command.mmdetection_export:write_detectron2_run")(run, Path(folder))
        return call("detection export", ["--weights", folder, *words])
