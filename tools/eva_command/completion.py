"""Completion of `eva` in a shell by argcomplete, see docs/command.md."""

import argparse
import os
from typing import Any
from unittest.mock import patch

from eva_command.main import call, commands_of
from eva_command.table import COMMANDS, GROUPS
from eva_runs.recipes import TASKS, list_recipes


class _ReachedParserError(BaseException):
    """A command parses its words by this parser."""


def complete_line() -> None:
    """Write what may stand at the cursor, and exit, as argcomplete asks by the environment."""
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
    try:
        with patch.object(argparse.ArgumentParser, "parse_known_args", reach):
            call(name, [])
    except _ReachedParserError as reached:
        parser = reached.args[0]
    task, _, verb = name.partition(" ")
    if name in ("config", "plan") or verb in ("train", "evaluate"):
        tasks = [task] if task in TASKS else TASKS
        recipes = [recipe.name for task in tasks for recipe in list_recipes(task)]
        positional = next((a for a in parser._actions if not a.option_strings), None)
        positional = positional or parser.add_argument("recipe", nargs="?")
        positional.completer = lambda **_: recipes
    return parser
