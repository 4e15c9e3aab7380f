"""`eva quickstart TASK`: demo data, a training on a CPU, a report; each step a command of `eva`."""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from eva_command.table import GROUPS
from eva_runs.commands import DEMO_DATA, Command, echo, lazy_import
from eva_runs.interruption import run_step
from eva_runs.options import command_parser


class Recipe(NamedTuple):
    """What a task shows on demo data; `{output}` stands for the folder of the run.

    Attributes:
        data: A key of `DEMO_DATA`.
        train: Arguments of `eva TASK train`.
        afterwards: A further command that shows what was trained; empty for none.
    """

    data: str
    train: str
    afterwards: str = ""


RECIPES: Mapping[str, Recipe] = {
    "detection": Recipe(
        "digit_scenes",
        "demo/cascade_mask_rcnn_vitdet_eva_debug --output {output} --resume",
    ),
    "mmdetection": Recipe(
        "digit_scenes", "demo/cascade_mask_rcnn_eva_debug --output {output} --resume"
    ),
    "segmentation": Recipe(
        "digit_scenes_semantic", "demo/mask2former_eva_debug --output {output} --resume"
    ),
    "classification": Recipe(
        "digit_folder",
        "eva_debug_digits --output {output} --resume",
        "classification demo output/datasets/digit_folder/folder/val/7 "
        "--weights {output} --output {output}/demo --overwrite",
    ),
    "video": Recipe("digit_motion", "eva_debug_motion --output {output} --resume"),
    "clip": Recipe(
        "digit_captions",
        "eva_debug_captions --output {output} --resume",
        "clip demo search output/datasets/digit_captions/captions/zero_shot "
        "--weights {output} --output {output}/search --overwrite "
        "--text 'a photo of the number seven on brick'",
    ),
    "pretrain": Recipe("digit_scenes", "eva_debug_digit_scenes --output {output} --resume"),
}


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    description = """Make demo data, train on a CPU in a few minutes, score and report. The same
command continues a run that was stopped. Further arguments are those of the training."""
    tasks = "tasks:\n" + "\n".join(f"  {name:<15} {GROUPS[name]}" for name in RECIPES)
    parser = command_parser(description, epilog=tasks)
    add = parser.add_argument
    help_of_task = "default: %(default)s"
    add("task", nargs="?", default="detection", choices=RECIPES, metavar="TASK", help=help_of_task)
    add("--output", metavar="DIR", help="folder of the run (default: output/quickstart_TASK)")
    help_text = "begin with small weights of natural images, fetched once, where there is a network"
    add("--pretrained", action="store_true", help=help_text)
    options, rest = parser.parse_known_args(arguments)
    options.rest = rest
    return options


def _run(options: argparse.Namespace) -> int:
    recipe = RECIPES[options.task]
    ending = "" if options.task == "detection" else f"_{options.task}"
    plan_demo = lazy_import("eva_command.starting:plan_demo")
    start = plan_demo(options.task) if options.pretrained else []
    ending += "_pretrained" if start else ""
    output = options.output or f"output/quickstart{ending}"
    demo_arguments = ["--output", f"output/datasets/{recipe.data}", *DEMO_DATA[recipe.data]]
    steps = {
        "demo data": ["data", "make-demo", *demo_arguments],
        "training": [options.task, "train", *shlex.split(recipe.train)],
        "what it can do": shlex.split(recipe.afterwards),
    }
    for number, (title, words) in enumerate(steps.items(), start=1):
        words = [word.replace("{output}", output) for word in words]
        words += [*start, *options.rest] if title == "training" else []
        if words:
            echo(f"\n== {number}. {title}\n$ eva {shlex.join(words)}")
            command = [sys.executable, "-m", "eva_command", *words]
            code = run_step(command, environment={"DETECTRON2_DATASETS": "output/datasets"})
            if code:
                return code
    return 0


main = Command("eva quickstart", _parse, _run)
