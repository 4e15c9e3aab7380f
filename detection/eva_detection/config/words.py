"""The words of a command line in any order: flags, `key=value` settings, the recipe.

detectron2's parser takes everything behind the first setting for settings, flags and slips too.
"""

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from eva_data.files import is_there
from eva_data.recipes import find_recipe

_RECIPE = "--config-file"
_SETTING = re.compile(r"~|[^/=]+=")  # ~key: hydra's way to delete a value


class AnyOrderParser(argparse.ArgumentParser):
    """A parser with `--config-file` and `opts`, whose words may stand in any order.

    A word that is neither a flag nor `key=value` is the recipe, and a file that is there is.
    """

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Sort the words, then parse them as argparse does.

        Args:
            args: Words; by default the process's.
            namespace: What the values are added to.

        Returns:
            The values, and no words: one that is not known ends the program.
        """
        flags, settings, recipes = self._sorted([*(sys.argv[1:] if args is None else args)])
        found, rest = super().parse_known_args([*flags, "--", *settings], namespace)
        found.opts = settings
        if len(recipes) > 1:
            self.error(
                f"{' and '.join(recipes)} are several recipes; settings are written KEY=VALUE"
            )
        if recipes and found.config_file and not _same(recipes[0], found.config_file):
            self.error(
                f"two recipes are given, {recipes[0]} and {_RECIPE} {found.config_file}: "
                "leave one of them out"
            )
        found.config_file = found.config_file or "".join(recipes)
        return found, rest

    def _sorted(self, words: list[str]) -> tuple[list[str], list[str], list[str]]:
        flags: list[str] = []
        settings: list[str] = []
        recipes: list[str] = []
        while words:
            word = words.pop(0)
            if word == "--":
                settings += words
                break
            if word.startswith("-"):
                flags.append(word)
                if self._takes_value(word) and words:
                    flags.append(words.pop(0))
            elif _SETTING.match(word) and not is_there(word):
                settings.append(word)
            else:
                recipes.append(word)
        return flags, settings, recipes

    def _takes_value(self, word: str) -> bool:
        """Return whether the next word belongs to a flag, which must be known."""
        name, equals, _ = word.partition("=")
        known = self._option_string_actions
        meant = [name] if name in known else [flag for flag in known if flag.startswith(name)]
        if not meant or (not name.startswith("--") and name not in known):
            self._refuse(word)
        return not equals and known[meant[0]].nargs is None

    def _refuse(self, word: str) -> NoReturn:
        name = word.partition("=")[0]
        if "." in name:
            self.error(f"{word}: settings are written without dashes: {word.lstrip('-')}")
        flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
        close = difflib.get_close_matches(name, flags, n=1, cutoff=0.5)
        self.error(f"there is no flag {name}" + (f": did you mean {close[0]}?" if close else ""))


def _same(first: str, second: str) -> bool:
    """Return whether two words name one recipe."""
    try:
        return first == second or find_recipe("detection", first).samefile(
            find_recipe("detection", second)
        )
    except (OSError, ValueError):
        return False
