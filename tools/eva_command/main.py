"""The command line of `eva`: finds a command of the table, imports it and calls it."""

import argparse
import contextlib
import difflib
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from typing import Any

from eva_command.table import COMMANDS, GROUPS
from eva_runs.commands import echo, lazy_import, run_function
from eva_runs.errors import print_error
from eva_runs.extras import TOOLKIT
from eva_runs.recipes import TASKS, list_recipes

_HELP = ("-h", "--help", "help")
_FIRST_SCREEN = """\
eva: the EVA vision transformer, and what is built on it

{commands}

Tasks (`eva TASK` has all commands of one):
{tasks}

Every command has --help; --json prints its result alone. `eva doctor` says what is missing.
Several GPUs: torchrun --nproc-per-node N -m eva_command TASK train ..."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `eva`.

    Args:
        arguments: Arguments in place of those of the process.

    Returns:
        The exit code: that of the command, or 2 for words that are not a command.
    """
    if "_ARGCOMPLETE" in os.environ:
        _complete_line()
    word, *rest = [*(sys.argv[1:] if arguments is None else arguments)] or ["help"]
    if word in _HELP:
        echo(_first_screen())
    elif word == "--version":
        echo(f"eva-toolkit {metadata.version(TOOLKIT)}")
    elif word in COMMANDS:
        return call(word, rest)
    elif word not in GROUPS:
        return _refuse_unknown(word, "eva", [*GROUPS, *filter(str.isalpha, COMMANDS)])
    elif not rest or rest[0] in _HELP:
        echo(_overview(word))
    elif f"{word} {rest[0]}" not in COMMANDS:
        return _refuse_unknown(rest[0], f"eva {word}", commands_of(word))
    else:
        code: object = 0
        try:
            code = result = call(f"{word} {rest[0]}", rest[1:])
            return result
        except SystemExit as stopped:
            code = stopped.code
            raise
        finally:
            if code in (1, 2) and word in TASKS:
                _mention_task(word, *rest)
    return 0


def call(name: str, arguments: Sequence[str]) -> int:
    """Import and call a command of the table, whose messages begin with the words of `eva`."""
    function, *before = COMMANDS[name][0].split()
    words = [*before, *arguments]
    process_arguments, sys.argv = sys.argv, [f"eva {name}", *words]
    try:
        return run_function(function, words)
    finally:
        sys.argv = process_arguments


def commands_of(group: str) -> dict[str, str]:
    """Return the second words of a group's commands, with their lines of help."""
    return {
        name.removeprefix(f"{group} "): description
        for name, (_, description) in COMMANDS.items()
        if name.startswith(f"{group} ")
    }


def _mention_task(task: str, verb: str, *arguments: str) -> None:
    """Say whose runs were given to a command that has failed, if they are of another task."""
    for word in filter(os.path.isdir, arguments):
        with contextlib.suppress(Exception):
            detected_task, _ = lazy_import("eva_command.label:find_task")(word, None)
            if detected_task not in (None, task):
                print_error(
                    f"{word} is a run of {detected_task}: eva {detected_task} {verb} {word}"
                )


def _refuse_unknown(word: str, before: str, candidates: Collection[str]) -> int:
    """Suggest what a misspelt word may mean."""
    close = difflib.get_close_matches(word, candidates, n=3)
    names = ", ".join(f"{before} {candidate}" for candidate in close or candidates)
    hint = "close to it" if close else "there are"
    print_error(f"{before}: there is no command {word!r}; {hint}: {names}")
    return 2


def _first_screen() -> str:
    commands = {
        f"eva {name}": description for name, (_, description) in COMMANDS.items() if " " not in name
    }
    commands |= {
        f"eva {name} {'|'.join(commands_of(name))}": description
        for name, description in GROUPS.items()
        if name not in TASKS
    }
    tasks = {name: GROUPS[name] for name in TASKS}
    return _FIRST_SCREEN.format(commands=_columns(commands), tasks=_columns(tasks))


def _overview(word: str) -> str:
    commands = {f"eva {word} {verb}": line for verb, line in commands_of(word).items()}
    overview = f"eva {word}: {GROUPS[word]}\n\n{_columns(commands)}"
    if word in TASKS:
        overview += (
            f"\n\n`eva recipes {word}` lists the recipes, `eva quickstart {word}` shows one."
        )
    return overview


def _columns(rows: Mapping[str, str]) -> str:
    lines = []
    for left, right in rows.items():
        lines.append(f"  {left:<34}  {right}" if len(left) <= 34 else f"  {left}\n{'':38}{right}")
    return "\n".join(lines)


# ---- completion in a shell ---------------------------------------------------------------------
class _ReachedParserError(BaseException):
    """A command parses its words by this parser."""


def _complete_line() -> None:
    """Write what may stand at the cursor, and exit, as argcomplete asks by the environment.

    See docs/command.md.
    """
    import argcomplete
    from argcomplete.lexers import split_line

    line, point = os.environ["COMP_LINE"], int(os.environ["COMP_POINT"])
    _, _, _, (_, *words), _ = split_line(line, point)
    names = (" ".join(words[:count]) for count in (2, 1))
    name = next((name for name in names if name in COMMANDS), "")
    if name:
        parser = _parser_of(name)
    else:
        name = words[0] if words and words[0] in GROUPS else ""
        parser = argparse.ArgumentParser(add_help=False)
        choices = commands_of(name) if name else [*GROUPS, *filter(str.isalpha, COMMANDS)]
        parser.add_argument("word", choices=choices)
    os.environ["_ARGCOMPLETE"] = str(1 + len(name.split()))
    argcomplete.autocomplete(parser)


def _parser_of(name: str) -> argparse.ArgumentParser:
    """Start a command up to its parser, whose first word may be a recipe of its task."""

    def reach(parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        raise _ReachedParserError(parser)

    parser: Any = None
    parse = argparse.ArgumentParser.parse_known_args
    argparse.ArgumentParser.parse_known_args = reach  # type: ignore[assignment, method-assign]
    try:
        call(name, [])
    except _ReachedParserError as reached:
        parser = reached.args[0]
    finally:
        argparse.ArgumentParser.parse_known_args = parse  # type: ignore[method-assign]
    task, _, verb = name.partition(" ")
    if name in ("config", "plan") or verb in ("train", "evaluate"):
        tasks = [task] if task in TASKS else TASKS
        recipes = [recipe.name for task in tasks for recipe in list_recipes(task)]
        positional = next((a for a in parser._actions if not a.option_strings), None)
        positional = positional or parser.add_argument("recipe", nargs="?")
        positional.completer = lambda **_: recipes
    return parser
