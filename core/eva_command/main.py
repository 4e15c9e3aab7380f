"""The command line of `eva`: finds a command of the table, imports it and calls it."""

import contextlib
import difflib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from eva_command.table import COMMANDS, GROUPS, Command, Group
from eva_data.files import results
from eva_runs.commands import called, complain, deferred, leave_unread, say
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
        say(_first_screen())
    elif word == "--version":
        say(f"eva-toolkit {metadata.version(TOOLKIT)}")
    elif word in COMMANDS:
        return _call(COMMANDS[word], f"eva {word}", rest)
    elif word not in GROUPS:
        return _unknown(word, "eva", {name: name for name in (*GROUPS, *COMMANDS)})
    elif not rest or rest[0] in _HELP:
        say(_overview(word, GROUPS[word]))
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


def _mention_task(task: str, verb: str, given: Sequence[str]) -> None:
    """Say whose runs were given to a command that has failed, if they are of another task."""
    for word in filter(os.path.isdir, given):
        with contextlib.suppress(Exception):
            found, _ = deferred("eva_command.label:find_task")(word, None)
            if found not in (None, task):
                complain(f"{word} is a run of {found}: eva {found} {verb} {word}")


def _call(command: Command, name: str, given: Sequence[str]) -> int:
    """Import and call a command, whose usage and messages begin with the words of `eva`."""
    as_json, given = _JSON in given, [one for one in given if one != _JSON]
    arguments = [*command.arguments, *given]
    before, sys.argv = sys.argv, [name, *arguments]
    try:
        return (_printing_json if as_json else called)(command.function, arguments)
    except BrokenPipeError:
        leave_unread()
    finally:
        sys.argv = before


def _printing_json(function: str, arguments: Sequence[str]) -> int:
    """Call a command; what it says goes to the standard error output, its result to the other."""
    with results() as found:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                return called(function, arguments)
        finally:  # also where a part of the input could not be read
            if found:
                one = found[-1]
                text = one.read_text() if isinstance(one, Path) else json.dumps(one, default=str)
                say(text.rstrip())


def _unknown(word: str, before: str, known: Mapping[str, str]) -> int:
    """Suggest what a misspelt word may mean: word -> command that it stands for."""
    close = [known[one] for one in difflib.get_close_matches(word, known, n=3)]
    names = ", ".join(f"{before} {one}" for one in dict.fromkeys(close or known.values()))
    hint = "close to it" if close else "there are"
    complain(f"{before}: there is no command {word!r}; {hint}: {names}")
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
    text = f"eva {word}: {group.text}\n\n{_columns(commands)}"
    if word in TASKS:
        text += f"\n\n`eva recipes {word}` lists the recipes, `eva quickstart {word}` shows one."
    if group.aliases:
        aliases = (f"{alias} = {of}" for alias, of in group.aliases.items())
        text += f" Other words: {', '.join(aliases)}."
    return text


def _columns(rows: Mapping[str, str]) -> str:
    lines = []
    for left, right in rows.items():
        lines.append(f"  {left:<34}  {right}" if len(left) <= 34 else f"  {left}\n{'':38}{right}")
    return "\n".join(lines)
