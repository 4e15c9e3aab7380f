"""The words of a command line in any order: flags, `key=value` settings, the recipe."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eva_data.command_line import any_order
from eva_data.files import is_there
from eva_data.recipes import find_recipe

_RECIPE, _CONFIG = "--config-file", "config.yaml"
_SETTING = re.compile(r"~|[^/=]+=")  # ~key: hydra's way to delete a value


class AnyOrderParser(any_order.AnyOrderParser):
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
        flags, settings, recipes = self.sorted_words(args)
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
        if found.eval_only and (Path(found.config_file) / _CONFIG).is_file():
            _evaluate_run(found, found.config_file)
        return found, rest

    def is_setting(self, word: str, *, named: bool) -> bool:
        """Return whether a word is a setting of hydra.

        Args:
            word: The word.
            named: As for every parser; here settings have no flag.
        """
        del named
        return bool(_SETTING.match(word)) and not is_there(word)


def _evaluate_run(found: argparse.Namespace, run: str) -> None:
    """Let a run's folder in place of a recipe stand for its config and its weights.

    Results go into a folder of their own, for the training has its own.
    """
    found.config_file = str(Path(run) / _CONFIG)
    settings = {"train.init_checkpoint": run, "train.output_dir": str(Path(run) / "evaluation")}
    given = {one.partition("=")[0] for one in found.opts}
    found.opts += [f"{key}={value}" for key, value in settings.items() if key not in given]


def _same(first: str, second: str) -> bool:
    """Return whether two words name one recipe."""
    try:
        return first == second or find_recipe("detection", first).samefile(
            find_recipe("detection", second)
        )
    except (OSError, ValueError):
        return False
