"""Command lines of training and evaluation on mmengine, read before any framework is imported."""

import argparse
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from eva_data.files import is_there
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
from eva_runs.request import RunRequest

if TYPE_CHECKING:
    from mmengine.config import Config

_SETTING = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*=")


@dataclass(frozen=True, kw_only=True)
class RunnerRequest(RunRequest):
    """What a command line asks of a training or an evaluation by mmengine's runner.

    Attributes:
        task: One of `eva_runs.recipes.TASKS`.
        config: File of the config.
        of_run: Whether it is the config of the run that the weights are of.
        settings: Settings of the config, by name.
        launcher: What started the processes; "none" for one process.
        data_root: Folder of the dataset, in place of the config's.
        first_path: The first path of own data, which names the run.
        flags: All flags, for those of the project.
    """

    task: str
    config: Path
    of_run: bool
    settings: Mapping[str, str]
    launcher: str
    data_root: str | None
    first_path: Path | None
    flags: argparse.Namespace


def make_command(
    program: str,
    make_parser: Callable[[], argparse.ArgumentParser],
    *,
    own_data: ModuleType,
    change: Callable[["Config", argparse.Namespace], None] | None = None,
) -> Command[RunnerRequest]:
    """Make the command that trains as its arguments describe (`train.py`), or scores weights.

    `own_data` is the project's module for own data: `add_arguments`, `check`, which gives them as
    an object, and `apply` of that. `change` applies the project's own flags to the config.
    """

    def parse(arguments: Sequence[str]) -> RunnerRequest:
        parser = make_parser()
        own_data.add_arguments(parser, training=program == "train.py")
        package = own_data.__name__.partition(".")[0]
        arguments, line = resolve_auto_batch(arguments, f"{package}.planning")
        request = read(parser, arguments, check=own_data.check)
        if line:
            echo(line)
        return request

    make_run = lazy_import("eva_openmmlab.programs:Run")
    return Command(
        program, parse, lambda request: make_run(request, own_data.apply, change).start()
    )


def train_parser(task: str, *, title: str, examples: str) -> argparse.ArgumentParser:
    """Make the parser of a training of `title` ("a segmentor"); the help ends with the examples."""
    parser = _runner_parser("train.py", "CONFIG", task, f"Train {title}.", examples)
    parser.set_defaults(evaluates=False)
    add = parser.add_argument
    help_text = f"weights to start from, in place of the config's: {SOURCES}"
    add("--weights", "--load-from", help=help_text)
    add("--resume", action="store_true", help="continue the run of the work folder, if it has one")
    help_text = "train in mixed precision (GPU)"
    add("--amp", action="store_const", const="fp16", dest="precision", help=help_text)
    add_size_and_length(parser)
    add_lora(parser)
    return parser


def test_parser(task: str, *, title: str, predictions: str) -> argparse.ArgumentParser:
    """Make the parser of an evaluation of `title`, which can save `predictions`."""
    parser = _runner_parser("test.py", "[CONFIG] WEIGHTS", task, f"Score {title}.")
    parser.set_defaults(evaluates=True, resume=False)
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
    add("--output", "--work-dir", dest="output", type=Path, metavar="DIR", help=help_text)
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
) -> RunnerRequest:
    """Read a command line and look for the files that it names; `check` is for own data."""
    args = parser.parse_intermixed_args(arguments)
    loose = [*args.words, *args.cfg_options]
    words = [word for word in loose if not _SETTING.match(word) or is_there(word)]
    settings = dict(word.split("=", 1) for word in loose if word not in words)
    if args.evaluates and args.weights is None:
        args.weights = words.pop() if words else parser.error("name the weights")
    if len(words) > 1 or not (words or args.evaluates):
        parser.error(f"name one config or recipe, not {words}; settings are written KEY=VALUE")
    recipe = find_recipe(args.task, words[0]) if words else None
    request = RunnerRequest.from_options(
        args,
        config=recipe or require_config_of_run(args.weights),
        of_run=not words,
        settings=settings,
        data=check(args),
        first_path=_first_path(args),
        flags=args,
        **({"lora": None} if "lora.rank" in settings else {}),  # which says it more precisely
    )
    start = request.weights
    if not start and "load_from" not in settings:
        start = stated_start(request.config)
    if start and not request.resume:
        require_start(request.task, start)
    if request.output is not None:
        require_writable(request.output)
    return request


def _first_path(args: argparse.Namespace) -> Path | None:
    """Return the first path of own data on a command line; None without any."""
    if getattr(args, "data", None):
        return Path(args.data[0])
    flags = ("train_annotations", "train_images", "val_annotations", "val_images")
    return next((path for flag in flags if (path := getattr(args, flag, None))), None)


def require_empty(folder: Path) -> None:
    """Refuse a folder of results that has anything in it, by a ValueError."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--out {folder} is there already and not empty; name another folder")
