"""Command line of a project's training: a recipe, and its values as options."""

import argparse
import contextlib
import io
import json
import logging
import os
import re
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from eva_engine.commands.ending import ending
from eva_engine.commands.words import as_flags, take_recipe, without_other_validation
from eva_engine.config import SAYS, RunConfig, as_plain, what_is_saved
from eva_report.terminal import SHOWN
from eva_runs.command_line.parsing import Parser
from eva_runs.command_line.slips import end_program
from eva_runs.commands import ended, exit_code, program_name, say
from eva_runs.options import add_download_option
from eva_runs.output_folder import is_refusal
from eva_runs.recipes import TASKS, find_recipe, unfinished

if TYPE_CHECKING:  # a command that only helps needs no torch
    import torch


class Recipe(Protocol):
    """A project's config, which says how the run is carried out."""

    @property
    def run(self) -> RunConfig:
        """Output folder and device, among others."""
        ...


C = TypeVar("C")
R = TypeVar("R", bound=Recipe)

logger = logging.getLogger(__name__)

_PARSING = re.compile(r"^Error parsing \S+: (?=\S)")
_NUMBERS = (  # what Python says of text that is none
    (re.compile(r"Error parsing (\S+): invalid literal for int.*: ('.*')"), "an integer"),
    (re.compile(r"Error parsing (\S+): could not convert string to float: ('.*')"), "a number"),
)


def load_recipe(file: str | Path, kind: type[C]) -> C:
    """Read the `config` of a recipe.

    Args:
        file: A Python file that defines `config`.
        kind: Class of the config.

    Returns:
        The config.

    Raises:
        ValueError: If there is no such file, or no such config in it.
    """
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"no recipe {str(file)!r}")
    config = runpy.run_path(str(path)).get("config")
    if not isinstance(config, kind):
        raise ValueError(f"{path.name} defines no `config` of {kind.__name__}")
    return config


class Parsed(NamedTuple, Generic[C]):
    """What a command line of a training says.

    Attributes:
        config: The recipe's config with the overrides.
        only_print: Whether it is only to be printed.
        recipe: Name of the recipe, of its file without the suffix.
        left_out: Line on what of the recipe the command line takes away; or empty.
    """

    config: C
    only_print: bool
    recipe: str
    left_out: str = ""


Adapt = Callable[[Sequence[str], C], tuple[list[str], str]]


def parse(
    kind: type[C],
    arguments: Sequence[str] | None = None,
    *,
    program: str,
    adapt: Adapt[C] | None = None,
) -> Parsed[C]:
    """Parse `RECIPE [--print-config] [--name.of.value VALUE ...] [name.of.value=VALUE ...]`.

    In any order.

    Args:
        kind: Class of the config.
        arguments: Arguments; None for those of the command line.
        program: Path of the program, TASK/FILE: its name in the help, and the task whose recipes
            can be given by name.
        adapt: Function that takes flags, see `words.as_flags`, and the config of the recipe, and
            returns the flags with those that follow from them, and a line on that or an empty one.

    Returns:
        What the command line says.

    Raises:
        SystemExit: With a sentence for a file that is not such a recipe; 2 after a message on a
            wrong option or value; 0 after `--help`.
    """
    task = program.partition("/")[0]
    program = program_name(program)
    first = Parser(
        prog=program,
        usage=f"{program} RECIPE [--print-config] [--no-download] [--name VALUE ...]",
        description="Train from a recipe, a Python file that defines `config`. With a recipe, "
        "--help lists all its values; `eva recipes` lists the recipes. Values are written "
        "--run.epochs 3 or run.epochs=3, before or after the recipe.",
        add_help=False,
    )
    add_download_option(first)
    first.add_argument("--print-config", action="store_true", help="print the config and stop")
    # the launcher `deepspeed` adds it; the variable LOCAL_RANK, which it sets too, is what counts
    first.add_argument("--local_rank", help=argparse.SUPPRESS)
    recipe, words = take_recipe(task, sys.argv[1:] if arguments is None else arguments)
    known, rest = first.parse_known_args(words)
    if recipe is None:
        if rest and not {"-h", "--help"} & {*rest}:
            first.error(f"name a recipe; `eva recipes {task}` lists them")
        first.add_argument("recipe", metavar="RECIPE", help="name of a recipe, or file")
        first.print_help()
        sys.exit(0 if rest else 2)
    try:
        file = find_recipe(task, recipe) if task in TASKS else Path(recipe)
        with unfinished():
            default = load_recipe(file, kind)
        rest = without_other_validation(as_flags(rest, default), default)
        rest, left_out = (rest, "") if adapt is None else adapt(rest, default)
    except ValueError as error:
        raise end_program(program, error) from error
    import tyro

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            config = tyro.cli(kind, default=default, args=rest, prog=f"{program} {file.name}")
    except ValueError as error:
        sys.exit(f"{program}: {error}")
    except SystemExit as end:
        raise ended(f"{program}: {_in_one_line(said.getvalue())}", 2) if end.code else end from None
    return Parsed(config, known.print_config, file.stem, left_out)


def _in_one_line(box: str) -> str:
    """Take the sentence out of the frame that `tyro` draws, without its title and its advice."""
    lines = [line.strip("│ ") for line in box.splitlines()]
    said: list[str] = []
    for line in lines:
        if said and line.startswith("──"):
            break
        said += [line] if line.strip("╭╮╰╯─ ") and line[:1] not in "╭╰" else []
    sentence = " ".join(said) or box.strip()
    for wrong, kind in _NUMBERS:
        sentence = wrong.sub(rf"\1 must be {kind}, got \2", sentence)
    return _PARSING.sub("", sentence)


def main(
    kind: type[R],
    train: Callable[[R, "torch.device"], None],
    *,
    program: str,
    arguments: Sequence[str] | None = None,
    check: Callable[[R], None] | None = None,
    adapt: Adapt[R] | None = None,
) -> None:
    """Run a project's training from the command line.

    Args:
        kind: Class of its configs.
        train: Function that trains, given config and device.
        program: As for `parse`.
        arguments: Arguments; None for those of the command line.
        check: Function that refuses what can be seen of a config before torch is imported, such as
            data that is not there.
        adapt: As for `parse`.

    Raises:
        SystemExit: 75 after a signal and a checkpoint, see `eva_runs.interruption`; 1 with one
            sentence for a wrong setting or a run that cannot go on, whose traceback is in the
            log; 130 after Ctrl-C.
    """
    config, only_print, recipe, left_out = parse(kind, arguments, program=program, adapt=adapt)
    if only_print:
        if code := exit_code(lambda: _show(config), refused=1, name=program_name(program)):
            sys.exit(code)
        return
    folder = config.run.output
    try:
        _check_output(config.run)
        if check is not None:  # last: it may download weights
            check(config)
    except (ValueError, OSError) as error:
        sys.exit(f"{program_name(program)}: {error}")
    log = f"log.txt or log_rankN.txt in {folder}"
    with ending(program_name(program), saved=lambda: _what_is_saved(folder), log=log):
        from eva_engine import distributed
        from eva_engine.commands.ending import logging_to
        from eva_engine.distributed import training_in
        from eva_engine.report import run_of

        place = distributed.start(config.run.device)
        with training_in(folder), logging_to(folder), run_of(recipe):
            if left_out:
                logger.info("%s", left_out, extra=SHOWN)
            _reported(train, config, place)


def _reported(train: Callable[[R, "torch.device"], None], config: R, place: "torch.device") -> None:
    """Train; the traceback of an error goes to the log, and to the launcher if it is torchrun.

    A process that is refused leaves no log beside that of the main one, which is removed.
    """
    from eva_engine import distributed
    from eva_engine.run_log import METRICS

    work = train
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import record

        work = record(train)
    level = logger.level
    logger.setLevel(logging.DEBUG)  # on all processes; a traceback goes to the file only
    try:
        work(config, place)
    except Exception as error:
        begun = (config.run.output / METRICS).exists()
        if begun or not distributed.rank() or not is_refusal(error):
            logger.debug("ended by an error", exc_info=True)
        raise
    finally:
        logger.setLevel(level)


def _show(config: Recipe) -> int:
    say(json.dumps(as_plain(config), indent=2))
    return 0


def _check_output(run: RunConfig) -> None:
    """Refuse a folder with a run that is not to be continued, before torch is imported."""
    from eva_backbone.checkpoints.runs.engine import complete_checkpoints

    complete = [] if run.resume else complete_checkpoints(run.output)
    if complete:
        raise ValueError(SAYS.used(run.output, checkpoint=complete[-1].name))


def _what_is_saved(folder: Path) -> str:
    from eva_backbone.checkpoints.runs.engine import complete_checkpoints

    complete = complete_checkpoints(folder)
    return what_is_saved(complete[-1] if complete else None)
