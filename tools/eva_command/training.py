"""`eva train DATA` and `eva export RUN`: the command lines."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from eva_runs.commands import Command, lazy_import
from eva_runs.options import command_parser
from eva_runs.recipes import TASKS


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
    add(
        "--task",
        choices=[task for task in TASKS if task != "pretrain"],
        help="task, where the data fit several",
    )
    choice = parser.add_mutually_exclusive_group()
    help_text = "a recipe of `eva recipes TASK`, or its path"
    choice.add_argument("--recipe", metavar="NAME", help=help_text)
    help_text = "a linear head on frozen features, in minutes (classification, segmentation); of a"
    help_text += " classifier with --attentive one that looks at all patches"
    choice.add_argument("--quick", action="store_true", help=help_text)
    help_text = "masks by queries in the ViT itself: of label maps, or of objects in mmdetection"
    choice.add_argument("--head", choices=["eomt"], help=help_text)
    options, rest = parser.parse_known_args(arguments)
    options.rest = rest
    return options


main = Command("eva train", _parse, lazy_import("eva_command.own_data:train"))


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


export = Command("eva export", _parse_export, lazy_import("eva_command.own_data:export"))
