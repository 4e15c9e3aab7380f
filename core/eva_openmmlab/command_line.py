"""Command lines of training and evaluation on mmengine, read before any framework is imported."""

import argparse
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from eva_data.saving import require_writable
from eva_openmmlab.run_folder import require_config_of_run
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
from eva_runs.recipes import find_recipe, require_start, stated_start

if TYPE_CHECKING:
    from mmengine.config import Config

_SETTING = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*=")


def make_command(
    program: str,
    make_parser: Callable[[], argparse.ArgumentParser],
    *,
    own_data: ModuleType,
    change: Callable[["Config", argparse.Namespace], None] | None = None,
) -> Command[argparse.Namespace]:
    """Make the command that trains as its arguments describe (`train.py`), or scores weights.

    `own_data` is the project's module for own data: `add_arguments`, `check`, which gives them as
    an object, and `apply` of that. `change` applies the project's own flags to the config.
    """

    def parse(arguments: Sequence[str]) -> argparse.Namespace:
        parser = make_parser()
        own_data.add_arguments(parser, training=program == "train.py")
        package = own_data.__name__.partition(".")[0]
        arguments, line = resolve_auto_batch(arguments, f"{package}.planning")
        args = read(parser, arguments, check=own_data.check)
        if line:
            echo(line)
        return args

    make_run = lazy_import("eva_openmmlab.programs:Run")
    return Command(program, parse, lambda args: make_run(args, own_data.apply, change).start())


def train_parser(task: str, *, title: str, examples: str) -> argparse.ArgumentParser:
    """Make the parser of a training of `title` ("a segmentor"); the help ends with the examples."""
    parser = _runner_parser("train.py", "CONFIG", task, f"Train {title}.", examples)
    add = parser.add_argument
    help_text = f"weights to start from, in place of the config's: {SOURCES}"
    add("--load-from", metavar="WEIGHTS", help=help_text)
    add("--resume", action="store_true", help="continue the run of the work folder, if it has one")
    help_text = "train in mixed precision (GPU)"
    add("--amp", action="store_const", const="fp16", dest="precision", help=help_text)
    add_size_and_length(parser)
    add_lora(parser)
    return parser


def test_parser(task: str, *, title: str, predictions: str) -> argparse.ArgumentParser:
    """Make the parser of an evaluation of `title`, which can save `predictions`."""
    parser = _runner_parser("test.py", "[CONFIG] WEIGHTS", task, f"Score {title}.")
    add = parser.add_argument
    add("--weights", help=f"{SOURCES}; the folder of a run brings its config along")
    add("--out", type=Path, metavar="DIR", help=f"save {predictions} there")
    add_precision(parser, default="fp32", usual="fp32, as published")
    add("--show-dir", type=Path, metavar="DIR", help="save images with predictions there")
    return parser


def make_parser(
    program: str, words: str, task: str, about: str, epilog: str
) -> argparse.ArgumentParser:
    """Make a parser with `--no-download`; `words` follow the program's name in its usage."""
    names = dict(prog=program_name(program), usage=f"%(prog)s {words}", epilog=epilog)
    parser = command_parser(about, **names)
    parser.set_defaults(task=task)
    add_download_option(parser)
    return parser


def _runner_parser(
    program: str, words: str, task: str, about: str, epilog: str = ""
) -> argparse.ArgumentParser:
    """Make a parser of words, settings KEY=VALUE anywhere, and flags."""
    parser = make_parser(program, f"{words} [flags] [KEY=VALUE ...]", task, about, epilog)
    add = parser.add_argument
    help_text = (
        f"CONFIG is a config file, or the name of a recipe (`eva recipes {task}`); the folder "
    )
    add("words", nargs="*", metavar=words, help=help_text + "of a run has its own")
    add(
        "--cfg-options",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings of the config to replace; they may stand anywhere, also without this flag",
    )
    help_text = (
        "folder of logs and checkpoints (default: output/NAME, or NAME-2 where a run has it)"
    )
    add("--output", "--work-dir", dest="work_dir", metavar="DIR", help=help_text)
    add("--data-root", metavar="DIR", help="folder of the dataset, in place of the config's")
    add(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        # torchrun says in the environment that it started the process
        default="pytorch" if "TORCHELASTIC_RUN_ID" in os.environ else "none",
        help="what started the processes (default: found out for torchrun)",
    )
    return parser


def read(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str],
    *,
    check: Callable[[argparse.Namespace], object],
) -> argparse.Namespace:
    """Read a command line and look for the files that it names; `check` is for own data.

    `config` of the result is a file, `of_run` says whether of a run, `settings` are name -> text,
    and `own_data` what `check` returns.
    """
    args = parser.parse_intermixed_args(arguments)
    loose = [*args.words, *args.cfg_options]
    words = [word for word in loose if not _SETTING.match(word)]
    args.settings = dict(word.split("=", 1) for word in loose if _SETTING.match(word))
    if "lora.rank" in args.settings:  # which says it more precisely
        args.lora = None
    scored = "weights" in args
    if scored and args.weights is None:
        args.weights = words.pop() if words else parser.error("name the weights")
    if len(words) > 1 or not (words or scored):
        parser.error(f"name one config or recipe, not {words}; settings are written KEY=VALUE")
    args.of_run = not words
    recipe = find_recipe(args.task, words[0]) if words else None
    args.config = recipe or require_config_of_run(args.weights)
    args.own_data = check(args)
    start = args.weights if scored else args.load_from
    if not start and "load_from" not in args.settings:
        start = stated_start(args.config)
    if start and (scored or not args.resume):
        require_start(args.task, start)
    if args.work_dir is not None:
        require_writable(Path(args.work_dir))
    return args


def require_empty(folder: Path) -> None:
    """Refuse a folder of results that has anything in it, by a ValueError."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--out {folder} is there already and not empty; name another folder")
