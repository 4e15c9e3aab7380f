"""The command line of `eva`: finds a command of the table, imports it and calls it."""

import difflib
import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata

from eva_command.table import COMMANDS, GROUPS, Command, Group
from eva_runs.commands import complain, leave_unread, say
from eva_runs.extras import sentence_of

_HELP = ("-h", "--help", "help")
_FIRST_SCREEN = """\
eva: the EVA vision transformer, and what is built on it

First steps of each task (`eva TASK` has all of its commands):
{steps}

Also:
{others}

Every command has --help. `eva doctor` says what is installed and what is missing.
Several GPUs: torchrun --nproc-per-node N -m eva_command TASK train ..."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `eva`.

    Args:
        arguments: Arguments in place of those of the process.

    Returns:
        The exit code: that of the command, or 2 for words that are not a command.
    """
    try:
        return _answer(list(sys.argv[1:] if arguments is None else arguments))
    except BrokenPipeError:
        leave_unread()


def _answer(given: Sequence[str]) -> int:
    if not given or given[0] in _HELP:
        say(_first_screen())
        return 0
    if given[0] == "--version":
        say(f"eva-toolkit {_version()}")
        return 0
    word, *rest = given
    if word in COMMANDS:
        return _call(COMMANDS[word], f"eva {word}", rest)
    if word not in GROUPS:
        return _unknown(word, "eva", [*GROUPS, *COMMANDS])
    group = GROUPS[word]
    if not rest or rest[0] in _HELP:
        say(_overview(word, group))
        return 0
    verb = group.aliases.get(rest[0], rest[0])
    if verb not in group.commands:
        return _unknown(rest[0], f"eva {word}", group.commands, group.aliases)
    return _call(group.commands[verb], f"eva {word} {rest[0]}", rest[1:])


def _call(command: Command, name: str, given: Sequence[str]) -> int:
    """Import and call a command; what is not installed is one sentence."""
    arguments = [*command.arguments, *given]
    with _called(name, arguments):
        try:
            function = getattr(importlib.import_module(command.module), command.function)
            return int(function(arguments) or 0)
        except ImportError as error:
            sentence = sentence_of(error)
            if sentence is None:
                raise
            complain(f"{name}: {sentence}")
            return 1


@contextmanager
def _called(name: str, arguments: Sequence[str]) -> Iterator[None]:
    """Have the usage of a command's help, and its messages, begin with the words of `eva`."""
    before = sys.argv
    sys.argv = [name, *arguments]
    try:
        yield
    finally:
        sys.argv = before


def _unknown(
    word: str, before: str, known: Iterable[str], aliases: Mapping[str, str] | None = None
) -> int:
    names, other = list(known), aliases or {}
    close = difflib.get_close_matches(word, [*names, *other], n=3)
    shown = [f"{before} {one}" for one in dict.fromkeys(other.get(c, c) for c in close)]
    hint = f"; close to it: {', '.join(shown)}" if shown else f"; {before} has: {', '.join(names)}"
    complain(f"{before}: there is no command {word!r}{hint}")
    return 2


def _first_screen() -> str:
    tasks = [(name, group) for name, group in GROUPS.items() if group.next_steps]
    steps = "\n".join(
        f"  {name}: {group.text}\n" + "\n".join(f"      {step}" for step in group.next_steps)
        for name, group in tasks
    )
    others = {
        f"eva {name} {'|'.join(group.commands)}": group.text
        for name, group in GROUPS.items()
        if not group.next_steps
    }
    others |= {f"eva {name}": command.text for name, command in COMMANDS.items()}
    return _FIRST_SCREEN.format(steps=steps, others=_columns(others))


def _overview(word: str, group: Group) -> str:
    commands = {f"eva {word} {verb}": command.text for verb, command in group.commands.items()}
    aliases = [f"{alias} = {of}" for alias, of in group.aliases.items()]
    text = f"eva {word}: {group.text}\n\n{_columns(commands)}"
    if group.next_steps:
        steps = "\n".join(f"  {step}" for step in group.next_steps)
        also = f" Other words: {', '.join(aliases)}." if aliases else ""
        text += f"\n\nFirst steps:\n{steps}\n\n`eva recipes {word}` lists the recipes.{also}"
    return text


def _columns(rows: dict[str, str]) -> str:
    lines = []
    for left, right in rows.items():
        lines.append(f"  {left:<34}  {right}" if len(left) <= 34 else f"  {left}\n{'':38}{right}")
    return "\n".join(lines)


def _version() -> str:
    try:
        return metadata.version("eva-toolkit")
    except metadata.PackageNotFoundError:
        return "(not installed: run from its source)"
