"""The command line of `eva`: finds a command of the table, imports it and calls it."""

import contextlib
import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata

from eva_command.table import COMMANDS, GROUPS, Entry, Group
from eva_runs.commands import (
    echo,
    exit_on_broken_pipe,
    lazy_import,
    print_error,
    print_json,
    run_function,
)
from eva_runs.extras import TOOLKIT
from eva_runs.recipes import TASKS

_JSON = "--json"
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
    word, *rest = [*(sys.argv[1:] if arguments is None else arguments)] or ["help"]
    if word in _HELP:
        echo(_first_screen())
    elif word == "--version":
        echo(f"eva-toolkit {metadata.version(TOOLKIT)}")
    elif word in COMMANDS:
        return _call(COMMANDS[word], f"eva {word}", rest)
    elif word not in GROUPS:
        return _unknown(word, "eva", {name: name for name in (*GROUPS, *COMMANDS)})
    elif not rest or rest[0] in _HELP:
        echo(_overview(word, GROUPS[word]))
    else:
        group = GROUPS[word]
        verb = group.aliases.get(rest[0], rest[0])
        if verb not in group.commands:
            names = {name: name for name in group.commands}
            return _unknown(rest[0], f"eva {word}", names | {**group.aliases})
        code: object = 0
        try:
            code = result = _call(group.commands[verb], f"eva {word} {rest[0]}", rest[1:])
            return result
        except SystemExit as stopped:
            code = stopped.code
            raise
        finally:
            if (isinstance(code, str) or code in (1, 2)) and word in TASKS:
                _mention_task(word, verb, rest[1:])
    return 0


def _mention_task(task: str, verb: str, arguments: Sequence[str]) -> None:
    """Say whose runs were given to a command that has failed, if they are of another task."""
    for word in filter(os.path.isdir, arguments):
        with contextlib.suppress(Exception):
            detected_task, _ = lazy_import("eva_command.label:find_task")(word, None)
            if detected_task not in (None, task):
                print_error(
                    f"{word} is a run of {detected_task}: eva {detected_task} {verb} {word}"
                )


def _call(command: Entry, name: str, words: Sequence[str]) -> int:
    """Import and call a command, whose usage and messages begin with the words of `eva`."""
    as_json, words = _JSON in words, [word for word in words if word != _JSON]
    arguments = [*command.arguments, *words]
    before, sys.argv = sys.argv, [name, *arguments]
    try:
        return (_printing_json if as_json else run_function)(command.function, arguments)
    except BrokenPipeError:
        exit_on_broken_pipe()
    finally:
        sys.argv = before


def _printing_json(function: str, arguments: Sequence[str]) -> int:
    """Call a command; what it says goes to the standard error output, its result to the other."""
    with contextlib.redirect_stdout(sys.stderr):
        code = run_function(function, arguments)
    print_json(code)
    return code


def _unknown(word: str, before: str, candidates: Mapping[str, str]) -> int:
    """Suggest what a misspelt word may mean: word -> command that it stands for."""
    close = [candidates[match] for match in difflib.get_close_matches(word, candidates, n=3)]
    names = ", ".join(
        f"{before} {candidate}" for candidate in dict.fromkeys(close or candidates.values())
    )
    hint = "close to it" if close else "there are"
    print_error(f"{before}: there is no command {word!r}; {hint}: {names}")
    return 2


def _first_screen() -> str:
    tasks = {name: GROUPS[name].text for name in TASKS}
    commands = {f"eva {name}": command.text for name, command in COMMANDS.items()}
    commands |= {
        f"eva {name} {'|'.join(group.commands)}": group.text
        for name, group in GROUPS.items()
        if name not in TASKS
    }
    return _FIRST_SCREEN.format(commands=_columns(commands), tasks=_columns(tasks))


def _overview(word: str, group: Group) -> str:
    commands = {f"eva {word} {verb}": command.text for verb, command in group.commands.items()}
    overview = f"eva {word}: {group.text}\n\n{_columns(commands)}"
    if word in TASKS:
        overview += (
            f"\n\n`eva recipes {word}` lists the recipes, `eva quickstart {word}` shows one."
        )
    if group.aliases:
        aliases = (f"{alias} = {of}" for alias, of in group.aliases.items())
        overview += f" Other words: {', '.join(aliases)}."
    return overview


def _columns(rows: Mapping[str, str]) -> str:
    lines = []
    for left, right in rows.items():
        lines.append(f"  {left:<34}  {right}" if len(left) <= 34 else f"  {left}\n{'':38}{right}")
    return "\n".join(lines)
