"""The words of a command line in any order: flags, KEY=VALUE settings, and the rest.

argparse takes everything behind `--cfg-options` for settings, and refuses a slip in a flag without
saying what it may have been.
"""

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from eva_data.files import is_there

SETTINGS = "--cfg-options"
_SETTING = re.compile(r"[A-Za-z_]\w*(\.\w+)*=")


class AnyOrderParser(argparse.ArgumentParser):
    """A parser whose words may stand in any order.

    Where it has `--cfg-options`, `key=value` is a setting wherever it stands, with or without the
    flag before it, unless a file has that name.
    """

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Sort the words, then parse them as argparse does.

        Args:
            args: Words; None for those of the process.
            namespace: What the values are added to.

        Returns:
            The values, and words that have no place.
        """
        words = [*(sys.argv[1:] if args is None else args)]
        flags, settings, others = self._sorted(words)
        if settings:
            flags += [SETTINGS, *settings]
        found, rest = super().parse_known_args([*flags, "--", *others], namespace)
        return found, [word for word in rest if word != "--"]

    def error(self, message: str) -> NoReturn:
        """End the program; a word that has no place may be a setting without a value.

        Args:
            message: What argparse found.
        """
        start = "unrecognized arguments: "
        if message.startswith(start):
            message = f"{message.removeprefix(start)}: one word too many"
            if SETTINGS in self._option_string_actions:
                message += "; settings are written KEY=VALUE"
        super().error(message)

    def _sorted(self, words: list[str]) -> tuple[list[str], list[str], list[str]]:
        flags: list[str] = []
        settings: list[str] = []
        others: list[str] = []
        named = False  # by the flag, with no other word since
        while words:
            word = words.pop(0)
            if word == "--":
                others += words
                break
            if word == SETTINGS or word.startswith(f"{SETTINGS}="):
                named = SETTINGS in self._option_string_actions
                settings += [word.partition("=")[2]] if "=" in word else []
            elif word.startswith("-") and word != "-":
                named = False
                flags.append(word)
                for _ in range(self._values_of(word)):
                    flags += words[:1]
                    del words[:1]
            elif self._is_setting(word, named=named):
                settings.append(word)
            else:
                named = False
                others.append(word)
        return flags, settings, others

    def _is_setting(self, word: str, *, named: bool) -> bool:
        if SETTINGS not in self._option_string_actions or not _SETTING.match(word):
            return named and "=" in word
        return named or not is_there(word)

    def _values_of(self, word: str) -> int:
        """Return how many words belong to a flag, which must be known."""
        name, equals, _ = word.partition("=")
        known = self._option_string_actions
        meant = [name] if name in known else [flag for flag in known if flag.startswith(name)]
        if not meant or not (name in known or name.startswith("--")):
            self._refuse(word)
        return int(not equals and known[meant[0]].nargs is None)

    def _refuse(self, word: str) -> NoReturn:
        name = word.partition("=")[0]
        if "." in name and SETTINGS in self._option_string_actions:
            super().error(f"{word}: settings are written without dashes: {word.lstrip('-')}")
        flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
        close = difflib.get_close_matches(name, flags, n=1, cutoff=0.5)
        super().error(f"there is no flag {name}" + (f": did you mean {close[0]}?" if close else ""))
