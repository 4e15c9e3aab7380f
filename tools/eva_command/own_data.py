"""What `eva train DATA` does: task by the form of the data, recipe by the machine; and exports."""

import argparse
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from eva_backbone.checkpoints.run_folders import BEST, describe_missing
from eva_command.data_forms import FEWEST, Words, find_tasks
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
_SAME = {"--val-fraction": "--val-share", "--work-dir": "--output", "--run.output": "--output"}
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
        [options.recipe]
        if options.recipe
        else choose_recipe(task, head, options.data, options.rest)
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


def _describe_validation(words: Words) -> list[str]:
    """Say what is evaluated on where the data do not name it, in a line or none."""
    named = dict(pairwise(words))
    share = named.get("--val-share") or named.get("--data.val-share")
    trained = {named.get("--train-images"), named.get("--data.train")} - {None}
    if share == "1" or trained & {named.get("--val-images"), named.get("--data.val")}:
        return [
            f"fewer than {FEWEST} samples: evaluated on the training data, which says nothing of "
            "other images"
        ]
    return [f"no validation data: about {share} of the data are held out for it"] if share else []


def _call(command: str, words: Words) -> int:
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


def _export_mmdetection(run: Path, words: Words) -> int:
    if lazy_import("eva_command.mmdetection_export:has_queries")(run):
        return call("mmdetection export", ["--weights", str(run), *words])
    with tempfile.TemporaryDirectory() as folder:
        folder = f"{folder}/{run.resolve().name}"  # which the file is named by
        lazy_import("eva_command.mmdetection_export:write_detectron2_run")(run, Path(folder))
        return call("detection export", ["--weights", folder, *words])
