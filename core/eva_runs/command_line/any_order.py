"""The words of a command line in any order: flags with their values, KEY=VALUE settings, the rest.

argparse takes everything behind the first setting for settings.
"""

import re
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from eva_data.files import expand_home, is_there
from eva_runs.command_line.parsing import Parser

_SETTING = re.compile(r"(--)?[A-Za-z_][\w-]*(\.[\w-]+)*=")


class Words(NamedTuple):
    """The words of a command line.

    Attributes:
        flags: Flags, each with its values behind it.
        settings: Words of the form KEY=VALUE.
        others: What is neither, such as a recipe.
    """

    flags: list[str]
    settings: list[str]
    others: list[str]


def is_setting(word: str) -> bool:
    """Return whether a word has the form KEY=VALUE or --KEY=VALUE, and is not a file."""
    return bool(_SETTING.match(word)) and not is_there(word)


def _home_expanded(setting: str) -> str:
    name, equals, value = setting.partition("=")
    return f"{name}{equals}{expand_home(value)}"


class AnyOrderParser(Parser):
    """A parser that can sort words before argparse parses them.

    Attributes:
        settings_flag: Flag that settings may stand behind; None if they have none.
    """

    settings_flag: str | None = None

    @property
    def takes_settings(self) -> bool:
        """Whether the program has settings."""
        return self.settings_flag is None or self.settings_flag in self._option_string_actions

    def is_setting(self, word: str, *, named: bool) -> bool:
        """Return whether a word without dashes is a setting.

        Args:
            word: The word.
            named: Whether it stands behind `settings_flag`, with nothing but settings between.
        """
        if not self.takes_settings:
            return False
        return "=" in word if named else is_setting(word)

    def sorted_words(self, args: Sequence[str] | None) -> Words:
        """Sort words; one that begins with a dash must be a flag.

        Behind `--` stand other words, or settings where they have no flag.

        Args:
            args: Words; None for those of the process.
        """
        rest = [*(sys.argv[1:] if args is None else args)]
        found = Words([], [], [])
        named = False
        while rest:
            word = rest.pop(0)
            name, equals, value = word.partition("=")
            if word == "--":
                (found.others if self.settings_flag else found.settings).extend(rest)
                break
            if name == self.settings_flag and self.takes_settings:
                named = True
                found.settings.extend([value] if equals else [])
            elif word.startswith("-") and word != "-":
                named = False
                count = self._values_of(word)
                found.flags.extend([word, *rest[:count]])
                del rest[:count]
            elif self.is_setting(word, named=named):
                found.settings.append(word)
            else:
                named = False
                found.others.append(word)
        return found._replace(settings=[_home_expanded(one) for one in found.settings])

    def check_flags(self, words: Sequence[str]) -> None:
        """Do nothing: `sorted_words` refuses a flag that does not exist.

        Args:
            words: Words of the command line.
        """

    def _values_of(self, word: str) -> int:
        """Return how many words belong to a flag, which must be known."""
        name, equals, _ = word.partition("=")
        known = self._option_string_actions
        if name not in known:
            self.refuse_flag(word)
        return int(not equals and known[name].nargs is None)

    def refuse_flag(self, word: str) -> NoReturn:
        """End the program because of a flag that does not exist.

        Args:
            word: The flag, perhaps with its value.
        """
        name, equals, _ = word.partition("=")
        if "." in name and self.takes_settings:
            setting = word.lstrip("-") + ("" if equals else "=VALUE")
            self.error(f"{word}: settings are written without dashes: {setting}")
        self.error(f"there is no flag {name}")
