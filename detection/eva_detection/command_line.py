"""The commands of detection: options are parsed and checked before torch is imported."""

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from eva_data.detection import request as data_request
from eva_data.files import expand_home, is_there
from eva_data.saving import require_writable
from eva_detection.training.output_folder import SAVED, TrainingFolder, config_of_run
from eva_runs.commands import Command, echo, lazy_import, program_name
from eva_runs.options import (
    SOURCES,
    add_download_option,
    add_lora,
    add_precision,
    add_size_and_length,
    command_parser,
    resolve_auto_batch,
)
from eva_runs.output_folder import evaluation_folder, number_folder
from eva_runs.recipes import WEIGHTS, find_recipe, name_on_own_data, require_start, stated_start
from eva_runs.request import RunRequest

_FLAGS = {  # and the settings that they stand for
    "weights": "train.init_checkpoint",
    "output": "train.output_dir",
    "epochs": "train.max_iter",
}
_EPILOG = """\
examples:
  %(prog)s coco/cascade_mask_rcnn_vitdet_eva_g_1280 --num-gpus 8 train.init_checkpoint=eva_o365.pth
  %(prog)s custom/cascade_mask_rcnn_vitdet_eva_l_24gb --data coins/data.yaml --val-share 0.1
  %(prog)s --eval-only coco/cascade_mask_rcnn_vitdet_eva_g_1536_seg

settings: train.init_checkpoint, train.output_dir, train.max_iter, optimizer.lr, and all others of
the recipe. SIGTERM, SIGUSR1 and Ctrl-C save a checkpoint and exit with 75; --resume continues.
Under torchrun or another launcher --num-gpus and --num-machines are left out."""


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of `train_net.py`: detectron2's options, own data and `--scale-lr`."""
    parser = command_parser(
        "Train or evaluate a detector.",
        prog=program_name("train_net.py"),
        usage="%(prog)s [RECIPE] [WEIGHTS, with --eval-only] [flags] [KEY=VALUE ...]",
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="RECIPE, KEY=VALUE", help="recipe by name or path, settings")
    add("--config-file", default="", metavar="RECIPE", help="the recipe, or a run's config.yaml")
    add("--resume", action="store_true", help="continue the run in --output, if there is one")
    add_download_option(parser)
    add("--eval-only", action="store_true", dest="evaluates", help="evaluate; do not train")
    add("--weights", help=f"weights to evaluate, or to begin from: {SOURCES}")
    help_text = "folder of the run (default: output/NAME, or NAME-2 where a run has it)"
    add("--output", metavar="DIR", help=help_text)
    add_precision(parser, default=None, usual="fp32, as published; with --eval-only")
    add("--num-gpus", type=int, default=1, help="processes on this machine, one for each GPU")
    add("--num-machines", type=int, default=1, help="machines of the run")
    add("--machine-rank", type=int, default=0, help="number of this machine, from 0")
    help_text = "where the processes of several machines find each other: tcp://FIRST_MACHINE:PORT"
    add("--dist-url", default="auto", help=help_text)
    launched = "LOCAL_RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"
    parser.set_defaults(launched=launched)
    data_request.add_arguments(parser)
    add_size_and_length(parser)
    add_lora(parser)
    help_text = "multiply optimizer.lr by the images of a step / those of a step of the recipe"
    add("--scale-lr", action="store_true", help=help_text)
    return parser


@dataclass(frozen=True, kw_only=True)
class TrainingRequest(RunRequest):
    """What a command line asks of a training or an evaluation.

    Attributes:
        recipe: Name or path of a recipe, or the file that a run has saved.
        overrides: Settings of the recipe, KEY=VALUE.
        scale_lr: Whether the learning rate grows with the images of a step.
        num_gpus: Processes of this machine; of a launcher, of all machines.
        num_machines: Machines of the run.
        machine_rank: Number of this machine.
        dist_url: Where the processes find each other.
        launched: Whether a launcher has started the processes.
    """

    recipe: str
    overrides: tuple[str, ...] = ()
    scale_lr: bool = False
    num_gpus: int = 1
    num_machines: int = 1
    machine_rank: int = 0
    dist_url: str = "auto"
    launched: bool = False

    @property
    def processes(self) -> int:
        """Processes of the run on all machines."""
        return self.num_gpus * self.num_machines


def parse(arguments: Sequence[str]) -> TrainingRequest:
    """Parse as detectron2's parser does; the weights of a run bring its config."""
    parser = make_parser()
    args = parser.parse_intermixed_args(arguments)
    if args.launched:  # by torchrun, for example
        if args.num_gpus * args.num_machines > 1:
            parser.error("--num-gpus and --num-machines are not for processes of a launcher")
        args.num_gpus = int(os.environ["WORLD_SIZE"])
    settings = [word for word in args.words if "=" in word and not is_there(word)]
    names = [word for word in args.words if word not in settings]
    if args.evaluates and names and not args.weights:
        last = Path(names[-1])
        if len(names) == 2 or args.config_file or last.suffix in WEIGHTS or config_of_run(last):
            args.weights = names.pop()
    _check_flags(parser, args, settings)
    names += [args.config_file] if args.config_file else []
    if len(names) > 1:
        parser.error(f"name one recipe, got {', '.join(names)}")
    saved = config_of_run(args.weights) if args.weights and not names else None
    return TrainingRequest.from_options(
        args,
        recipe="".join(names) or str(saved or ""),
        overrides=(*settings, *slice_settings(args.slice, args.overlap)),
        output=expand_home(args.output) if args.output else None,
        data=data_request.read_request(args, training=not args.evaluates),
    )


def _check_flags(
    parser: argparse.ArgumentParser, args: argparse.Namespace, settings: Sequence[str]
) -> None:
    """Take output and weights from settings, and refuse flags that contradict these or others."""
    pairs = (setting.lstrip("+").partition("=") for setting in settings)
    stated = {key: value.strip("'") for key, _, value in pairs}
    for flag, key in _FLAGS.items():
        if getattr(args, flag) and key in stated:
            parser.error(f"--{flag} sets {key}: leave one of them out")
    args.weights = args.weights or stated.get(_FLAGS["weights"])
    args.output = args.output or stated.get(_FLAGS["output"])
    if "://" in (args.output or ""):
        parser.error(f"--output {args.output} must be a local folder")
    if args.precision and not args.evaluates:
        parser.error("--precision is for --eval-only: a training has train.amp.enabled, .precision")
    of_training = {name: getattr(args, name) for name in ("epochs", "batch", "tile", "lora")}
    if args.evaluates and any(of_training.values()):
        parser.error(f"--{', --'.join(of_training)} are for a training, not for --eval-only")


def slice_settings(size: int | str | None, overlap: float) -> list[str]:
    """Write the settings of tiles."""
    return [] if size is None else [f"test.slice={size}", f"test.overlap={overlap}"]


def check(request: TrainingRequest) -> TrainingRequest:
    """Check that recipe, own data, weights and a free output folder, else named, are there."""
    recipe = find_recipe("detection", request.recipe)
    output = request.output or _default_output(request, recipe)
    if request.data:
        request.data.check()
    continues = request.resumes
    if output:
        require_writable(output)
        if not request.evaluates:
            continues = TrainingFolder(output).continues(resume=request.resume)
    source = stated_start(recipe) if request.weights is None else request.weights
    if source and not continues and "${" not in source and "://" not in source:
        require_start("detection", source)
    return replace(request, output=output)


def _default_output(request: TrainingRequest, recipe: Path) -> Path | None:
    """Name a run by own data and recipe, or as the recipe does; an evaluation by its weights."""
    if request.evaluates:
        run = recipe.parent if recipe.name == SAVED else None
        weights = request.weights or stated_start(recipe) or recipe
        return evaluation_folder(run, weights, shared=request.num_machines > 1)
    data = request.data and request.data.first_path
    name = name_on_own_data(recipe, data) if data else ""
    stated = re.search(r'output_dir ?= ?"(.+?)"', recipe.read_text(encoding="utf-8"))
    folder = Path(f"output/{name}" if name else stated[1] if stated else "")
    if not folder.name:
        return None
    return number_folder(folder, lambda path: TrainingFolder(path).is_used(), resume=request.resume)


def _parse_training(arguments: Sequence[str]) -> TrainingRequest:
    arguments, line = resolve_auto_batch(arguments, "eva_detection.planning")
    request = parse(arguments)
    if line:
        echo(line)
    return check(request)


_start = lazy_import("eva_detection.training.processes:start")
train = Command("train_net.py", _parse_training, _start)
