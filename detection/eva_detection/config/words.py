"""The words of a command line in any order: flags, `key=value` settings, the recipe."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eva_data.files import expand_home, home_expanded, is_there
from eva_detection.config.saved import SAVED, require_config
from eva_runs.command_line import any_order
from eva_runs.command_line.slips import SlipError
from eva_runs.command_line.weights import one_source
from eva_runs.recipes import WEIGHTS as SUFFIXES
from eva_runs.recipes import find_recipe

_RECIPE, _WEIGHTS = "--config-file", "train.init_checkpoint"
_PLAIN = re.compile(r"[\w./:+@%-]+", re.ASCII)
_SETTING = re.compile(r"~|[^/=]+=")  # ~key: hydra's way to delete a value
USUAL_SETTINGS = (  # for those who look for a flag
    "train.init_checkpoint=WEIGHTS",
    "train.output_dir=DIR",
    "train.max_iter=NUMBER",
    "train.seed=NUMBER",
    "train.device=DEVICE",
    "optimizer.lr=NUMBER",
    "optimizer.weight_decay=NUMBER",
    "dataloader.train.total_batch_size=NUMBER",
    "dataloader.train.num_workers=NUMBER",
)


def setting(key: str, path: str) -> str:
    """Write a setting whose value is a path, in quotes where hydra's grammar asks for them.

    Args:
        key: Its name.
        path: Its value.
    """
    if _PLAIN.fullmatch(path):
        return f"{key}={path}"
    text = re.sub(
        r"(\\*)('|$)", lambda found: 2 * found[1] + "\\" * bool(found[2]) + found[2], path
    )
    return f"{key}='{text}'"


class AnyOrderParser(any_order.AnyOrderParser):
    """A parser with `--config-file` and `opts`, whose words may stand in any order.

    A word that is neither a flag nor `key=value` is the recipe, and a file that is there is; with
    `--eval-only` also weights, behind the recipe or alone where they bring it along.
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
        flags, settings, words = self.sorted_words(args)
        found, rest = super().parse_known_args([*flags, "--", *settings], namespace)
        found.opts = settings
        try:
            recipes = _take_weights(found, words)
        except ValueError as error:
            self.error(str(error))
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
        if found.eval_only:
            try:
                _evaluate(found)
            except (ValueError, OSError) as error:
                self.error(str(error))
        return found, rest

    def is_setting(self, word: str, *, named: bool) -> bool:
        """Return whether a word is a setting of hydra.

        Args:
            word: The word.
            named: As for every parser; here settings have no flag.
        """
        del named
        return bool(_SETTING.match(word)) and not is_there(word)


def _take_weights(found: argparse.Namespace, words: list[str]) -> list[str]:
    """Take weights from the words that are neither flags nor settings; returns the others."""
    if not found.eval_only:
        if found.weights:
            raise SlipError(
                f"there is no flag --weights in a training; close to it: {_WEIGHTS}={found.weights}"
            )
        if weights := [word for word in words[1:] if Path(word).suffix in SUFFIXES]:
            raise SlipError(
                f"{weights[0]} is weights and not a recipe: give them by {_WEIGHTS}={weights[0]}"
            )
        return words
    if words and (len(words) == 2 or _names_weights(words[-1], found.config_file)):
        found.weights = one_source(words[-1], found.weights)
        return words[:-1]
    return words


def _names_weights(word: str, recipe: str) -> bool:
    if home_expanded(word).is_dir() or Path(word).suffix in SUFFIXES:
        return True
    return bool(recipe) and not _same(word, recipe)


def _brings_config(word: str) -> bool:
    return (home_expanded(word) / SAVED).is_file()


def _evaluate(found: argparse.Namespace) -> None:
    """Let weights be those of the config; those of a run bring it along.

    Results of a run's own config go into a folder of their own, for the training has its own.
    """
    if found.config_file and not found.weights and _brings_config(found.config_file):
        found.weights, found.config_file = found.config_file, ""
    if not found.weights:
        return
    given = {key: value for key, _, value in (one.partition("=") for one in found.opts)}
    if _WEIGHTS in given and given[_WEIGHTS] != found.weights:
        other = f"{_WEIGHTS}={given[_WEIGHTS]}"
        raise SlipError(
            f"two weights are given, {found.weights} and {other}: leave one of them out"
        )
    settings = {_WEIGHTS: expand_home(found.weights)}
    if not found.config_file:
        config = Path(require_config(None, found.weights, option=_RECIPE))
        settings["train.output_dir"] = str(config.parent / "evaluation")
        found.config_file = str(config)
    found.opts += [setting(key, value) for key, value in settings.items() if key not in given]


def _same(first: str, second: str) -> bool:
    """Return whether two words name one recipe."""
    try:
        return first == second or find_recipe("detection", first).samefile(
            find_recipe("detection", second)
        )
    except (OSError, ValueError):
        return False
