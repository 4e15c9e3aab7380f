"""`eva quickstart TASK`: demo data, a training on a CPU, a report; each step a command of `eva`."""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from eva_runs.commands import program, program_name, say
from eva_runs.interruption import run_step


class Recipe(NamedTuple):
    """What a task shows on demo data; `{output}` stands for the folder of the run.

    Attributes:
        text: Line of help.
        data: Arguments of `eva data make-demo`.
        train: Arguments of `eva TASK train`.
        afterwards: A further command that shows what was trained; empty for none.
        variables: Variables of the environment.
    """

    text: str
    data: str
    train: str
    afterwards: str = ""
    variables: Mapping[str, str] = MappingProxyType({})


RECIPES: Mapping[str, Recipe] = {
    "detection": Recipe(
        "find digits and their masks",
        "--output output/datasets/digit_scenes",
        "demo/cascade_mask_rcnn_vitdet_eva_debug --resume train.output_dir={output}",
        variables={"DETECTRON2_DATASETS": "output/datasets"},
    ),
    "mmdetection": Recipe(
        "find digits and their masks, with mmdetection",
        "--output output/datasets/digit_scenes",
        "demo/cascade_mask_rcnn_eva_debug --work-dir {output} --resume",
    ),
    "segmentation": Recipe(
        "a class for each pixel",
        "--output output/datasets/digit_scenes_semantic --formats semantic",
        "demo/mask2former_eva_debug --work-dir {output} --resume",
    ),
    "classification": Recipe(
        "name digits",
        "--output output/datasets/digit_folder --formats folder",
        "eva_debug_digits --run.output {output} --run.resume",
        "classification demo output/datasets/digit_folder/folder/val/7 "
        "--weights {output} --output {output}/demo --overwrite",
    ),
    "video": Recipe(
        "name how digits move",
        "--output output/datasets/digit_motion --formats video --train 4000 --val 400",
        "eva_debug_motion --run.output {output} --run.resume",
    ),
    "clip": Recipe(
        "images and sentences in one space, and a search by a sentence",
        "--output output/datasets/digit_captions --formats captions --train 4000",
        "eva_debug_captions --run.output {output} --run.resume",
        "clip demo search output/datasets/digit_captions/captions/zero_shot "
        "--weights {output} --output {output}/search --overwrite "
        "--text 'a photo of the number seven on brick'",
    ),
    "pretrain": Recipe(
        "predict the features of hidden patches",
        "--output output/datasets/digit_scenes",
        "eva_debug_digit_scenes --run.output {output} --run.resume",
    ),
}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    texts = {name: recipe.text for name, recipe in RECIPES.items()}
    parser = argparse.ArgumentParser(
        prog=program_name("eva quickstart"),
        allow_abbrev=False,
        description="Make demo data, train on a CPU in a few minutes, score and report. The same "
        "command continues a run that was stopped. Further arguments are those of the training.",
        epilog="tasks:\n" + "\n".join(f"  {name:<15} {text}" for name, text in texts.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("task", nargs="?", default="detection", choices=texts, metavar="TASK",
        help="default: %(default)s")  # fmt: skip
    add(
        "--output",
        metavar="DIR",
        help="folder of the run (default: output/quickstart_TASK)",
    )
    options, rest = parser.parse_known_args(arguments)
    options.rest = rest
    return options


def _run(options: argparse.Namespace) -> int:
    recipe = RECIPES[options.task]
    ending = "" if options.task == "detection" else f"_{options.task}"
    output = options.output or f"output/quickstart{ending}"
    steps = {
        "demo data": f"data make-demo {recipe.data}",
        "training": f"{options.task} train {recipe.train}",
        "what it can do": recipe.afterwards,
    }
    for number, (title, line) in enumerate(steps.items(), start=1):
        words = [word.replace("{output}", output) for word in shlex.split(line)]
        words += options.rest if title == "training" else []
        if words:
            say(f"\n== {number}. {title}\n$ eva {shlex.join(words)}")
            command = [sys.executable, "-m", "eva_command", *words]
            if code := run_step(command, environment=recipe.variables):
                return code
    return 0


main = program(_parse, _run, name="eva quickstart")
