"""The parser of every command: no abbreviations, one sentence for a mistake."""

import argparse
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from eva_data.files import expand_home, home_expanded, printable
from eva_runs.command_line.slips import EXIT_SLIP, hint

TOO_MANY = "unrecognized arguments: "
_MISSING = ("the following arguments are required", "one of the arguments")


class Parser(argparse.ArgumentParser):
    """A parser that answers a slip with what is close to it, before anything is parsed.

    In paths and texts `~/` at the beginning stands for the home folder.
    Its usage is shown where arguments are missing, in one line with those that are needed; all
    other mistakes are one sentence. Commands of it (`add_subparsers`) are of the same class.

    Args:
        *args: As for `argparse`.
        settings: Names of usual settings, `key=value` or flags of other commands, for sentences on
            flags that do not exist.
        **kwargs: As for `argparse`.
    """

    def __init__(self, *args: Any, settings: Collection[str] = (), **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)
        self.register("type", None, expand_home)
        self.register("type", Path, home_expanded)
        self.usual_settings = settings
        self._own_usage = self.format_usage() if self.usage else ""

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> argparse.Namespace:
        """Parse words, after a look at the names of all flags.

        Args:
            args: Words; None for those of the process.
            namespace: What the values are added to.
        """
        words = sys.argv[1:] if args is None else list(args)
        self.check_flags(words)
        found: argparse.Namespace = super().parse_args(words, namespace)
        return found

    def parse_intermixed_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> argparse.Namespace:
        """Do the same for words with other words between flags.

        Args:
            args: Words; None for those of the process.
            namespace: What the values are added to.
        """
        words = sys.argv[1:] if args is None else list(args)
        self.check_flags(words)
        self._own_usage = self.short_usage()  # which is without INPUT while flags are parsed
        found: argparse.Namespace = super().parse_intermixed_args(words, namespace)
        return found

    def check_flags(self, words: Sequence[str]) -> None:
        """Refuse a flag that does not exist.

        Args:
            words: Words of the command line.
        """
        commands = self._commands()
        for place, word in enumerate(words):
            if word == "--":
                return
            if word in commands:
                commands[word].check_flags(words[place + 1 :])
                return
            if commands and not word.startswith("-"):
                return  # not a command, which argparse says
            flag = word.startswith("--") and " " not in word  # else the value of another
            if flag and word.partition("=")[0] not in self._option_string_actions:
                self.refuse_flag(word)

    def refuse_flag(self, word: str) -> NoReturn:
        """End the program because of a flag that does not exist.

        Args:
            word: The flag, perhaps with its value.
        """
        name = word.partition("=")[0]
        behind = [one for one, of in self._commands().items() if name in of._option_string_actions]
        if behind:
            self.error(f"{name} stands behind the word that it belongs to: {', '.join(behind)}")
        shown = [flag for flag in self._option_string_actions if flag.startswith("--")]
        shown = [
            flag for flag in shown if self._option_string_actions[flag].help != argparse.SUPPRESS
        ]
        self.error(f"there is no flag {name}{hint(name, [*self.usual_settings, *shown])}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse what is not one of the choices, with those that are close to it."""
        close = action.choices is not None and value not in action.choices
        if close and (text := hint(str(value), map(str, action.choices or ()))):
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}{text}")
        if close and isinstance(action, argparse._SubParsersAction):
            names = ", ".join(map(str, action.choices or ()))
            self.error(f"there is no command {value!r}; it has: {names}")
        super()._check_value(action, value)

    def error(self, message: str) -> NoReturn:
        """End the program with one sentence, and the usage where arguments are missing.

        Args:
            message: What argparse found.
        """
        if message.startswith(TOO_MANY):
            words = message.removeprefix(TOO_MANY)
            if words.startswith("-"):
                self.refuse_flag(words.partition(" ")[0])
            message = f"{words}: one word too many"
        usage = self.short_usage() if message.startswith(_MISSING) else ""
        self.exit(EXIT_SLIP, printable(f"{usage}{self.prog}: error: {message}\n"))

    def short_usage(self) -> str:
        """Write the usage with what is needed alone."""
        if self._own_usage:
            return self._own_usage
        groups = [group for group in self._mutually_exclusive_groups if group.required]
        grouped = [action for group in groups for action in group._group_actions]
        needed = [
            action
            for action in self._actions
            if action.required or action in grouped or not action.option_strings
        ]
        formatter = self._get_formatter()
        formatter.add_usage(None, needed, groups)
        return f"{formatter.format_help().rstrip()} [flags]\n"

    def _commands(self) -> Mapping[str, "Parser"]:
        found: dict[str, Parser] = {}
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                found |= action.choices
        return found
