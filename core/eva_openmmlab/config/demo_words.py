"""How a user names a model and pictures: in the command line of the demos, and in Python."""

import argparse
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from eva_data.files import DEMO_IMAGE_SUFFIXES, VIDEO_SUFFIXES, home_expanded
from eva_openmmlab.config.runs import config_of_run
from eva_openmmlab.config.words import AnyOrderParser
from eva_runs.command_line.weights import WEIGHTS, one_source
from eva_runs.commands import program_name
from eva_runs.options import add_download_option
from eva_runs.recipes import SUFFIXES as RECIPES
from eva_runs.recipes import WEIGHTS as SUFFIXES
from eva_runs.recipes import find_recipe

_USAGE = "%(prog)s [CONFIG] WEIGHTS INPUT ... --output DIR [flags]"
_FILES = DEMO_IMAGE_SUFFIXES | VIDEO_SUFFIXES


class Model(NamedTuple):
    """What a command line names.

    Attributes:
        config: Path of the config.
        weights: Folder of a run, path of a file, or name of an official one.
        inputs: Pictures, videos, folders, patterns, numbers of cameras.
    """

    config: Path
    weights: str
    inputs: list[Path]


def demo_parser(description: str, epilog: str, *, task: str) -> AnyOrderParser:
    """Make the parser of a demo, with what all have.

    Args:
        description: What it does.
        epilog: What it writes, with examples.
        task: Task of the recipes, such as "segmentation".
    """
    parser = AnyOrderParser(
        prog=program_name("demo.py"),
        usage=_USAGE,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "words",
        nargs="+",
        metavar="[CONFIG] WEIGHTS INPUT",
        help=f"the folder of a run; or a config, or the name of a recipe (`eva recipes {task}`), "
        "and weights: a path, or the name of an official file. Then pictures, videos, folders of "
        'them, patterns in quotes ("photos/*.jpg"), or the number of a camera, which Ctrl-C ends',
    )
    add(
        "--weights",
        help=f"{WEIGHTS}; the other words are then pictures, behind a config where they are not "
        "those of a run",
    )
    add("--output", required=True, type=Path, metavar="DIR", help="folder for the results")
    add("--device", help='"cuda", "cuda:1" or "cpu" (default: the GPU if there is one)')
    add("--overwrite", action="store_true", help="replace earlier results")
    add_download_option(parser)
    return parser


def named_model(words: Sequence[str], *, task: str, named: str | None = None) -> Model:
    """Find out which words name a model, and which the inputs.

    Args:
        words: Words of the command line besides flags.
        task: Task of the recipes.
        named: Weights behind `--weights`; the words are then `[CONFIG] INPUT ...`.

    Returns:
        The model and the inputs.

    Raises:
        ValueError: If a recipe, the weights or the inputs are missing.
    """
    if named is not None:
        return _with_named_weights(words, named, task=task)
    if _brings_config(Path(words[0])) or Path(words[0]).suffix in SUFFIXES:
        config, weights, inputs = _saved_config(Path(words[0])), words[0], words[1:]
    else:
        config, weights, inputs = find_recipe(task, words[0]), "".join(words[1:2]), words[2:]
    if not weights or (Path(weights).suffix.lower() in _FILES and not inputs):
        raise ValueError(f"name the weights of {words[0]} behind it, and then pictures")
    if not inputs:
        raise ValueError(f"name pictures behind {weights}: files, folders, patterns")
    return Model(config, weights, [Path(word) for word in inputs])


def _with_named_weights(words: Sequence[str], weights: str, *, task: str) -> Model:
    inputs = list(words)
    first = home_expanded(inputs[0])
    recipe = None
    if first.suffix in RECIPES or not first.exists():
        with contextlib.suppress(ValueError):
            recipe = find_recipe(task, inputs[0])
    if recipe is not None:
        inputs.pop(0)
    elif first.is_dir() and config_of_run(first) is not None:
        one_source(inputs[0], weights)  # which refuses two
    config = recipe or config_of_run(home_expanded(weights))
    if config is None:
        raise ValueError(
            f"{weights} is not the folder of a run, which brings its config along: name the config "
            f"or recipe of these weights before the pictures; `eva recipes {task}` lists them"
        )
    if not inputs:
        raise ValueError(f"name pictures behind {words[0]}: files, folders, patterns")
    return Model(config, weights, [Path(word) for word in inputs])


def config_and_weights(
    config: str | os.PathLike[str], weights: str | os.PathLike[str] | None, *, task: str
) -> tuple[Path, str | os.PathLike[str]]:
    """Find the config and the weights that a caller names.

    Args:
        config: Name of a recipe, a config file, or the folder of a run.
        weights: Weights; None for those of the run that `config` names.
        task: Task of the recipes.

    Returns:
        Path of the config, and the weights.

    Raises:
        ValueError: If there is no such recipe or run, or no weights are named.
    """
    if _brings_config(Path(config)):
        return _saved_config(Path(config)), config if weights is None else weights
    if weights is None:
        raise ValueError(
            f"name the weights of {os.fspath(config)}: a path, the folder of a run, or the name of "
            "an official file"
        )
    return find_recipe(task, config), weights


def _brings_config(place: Path) -> bool:
    """Test for the folder of a run, or a checkpoint in it, in place of a config."""
    return place.is_dir() or (place.suffix == ".pth" and place.is_file())


def _saved_config(place: Path) -> Path:
    saved = config_of_run(place)
    if saved is None:
        raise ValueError(
            f"{place} has no run with a saved config in it: name a config, or the name of a "
            "recipe, before the weights"
        )
    return saved
