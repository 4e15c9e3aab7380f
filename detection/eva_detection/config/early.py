"""Mistakes on a command line that are found before detectron2 and torch are imported.

The checks of the config itself, `config.checks`, find everything that is not plain here.
"""

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eva_data.coco import own_data
from eva_data.coco.any_form import Found
from eva_data.recipes import find_recipe, name_on_own_data
from eva_detection.config.names import OPTIONAL_SETTINGS, check_names
from eva_detection.config.outline import UNKNOWN, Tree, find, read_outline, with_overrides
from eva_detection.data.places import require_data
from eva_detection.training.output_folder import check_unused, last_checkpoint

logger = logging.getLogger(__name__)

_OUTPUT = "train.output_dir"
_RULE = (
    "to train, all four flags are needed (or --val-share in place of the two of val, or --data "
    "alone), to evaluate with --eval-only the two of val"
)


def check_early(args: argparse.Namespace) -> None:
    """Refuse a recipe, names of settings, files, weights and a folder that cannot work.

    Args:
        args: The command line, from `config.parser.make_parser`; to a run on own data for which
            it names no folder, one is added, by the data and the recipe.

    Raises:
        ValueError: In one sentence.
        OSError: If something is not there, with a sentence too.
    """
    recipe = require_recipe(args)
    _name_output(args, recipe)
    read_own_data(args)
    try:
        outline = read_outline(recipe)
    except (OSError, ValueError) as error:  # whoever reads it says what is wrong with it
        logger.debug("%s has no outline: %s", recipe, error)
        return
    _check_names(outline, args.opts)
    outline = with_overrides(outline, args.opts)
    _check_data(outline, args)
    folder = find(outline, _OUTPUT)
    place = Path(folder) if isinstance(folder, str) and folder and "://" not in folder else None
    if place is not None and not args.eval_only and not args.resume:
        check_unused(place)
    if not (args.resume and place is not None and last_checkpoint(place)):
        _check_weights(find(outline, "train.init_checkpoint"), needed=args.eval_only)


def _name_output(args: argparse.Namespace, recipe: Path) -> None:
    """Let a run on own data have a folder of its own, where the command line names none."""
    place = own_data.place_of_data(args)
    if place is None or any(text.lstrip("+").startswith(f"{_OUTPUT}=") for text in args.opts):
        return
    if name := name_on_own_data(recipe, place):
        args.opts.append(f"{_OUTPUT}=./output/{name}")


def require_recipe(args: argparse.Namespace) -> Path:
    """Find the recipe of a command line.

    Args:
        args: The command line.

    Raises:
        ValueError: If there is none, or it names none.
    """
    if not args.config_file:
        raise ValueError(
            "name a recipe, such as demo/cascade_mask_rcnn_vitdet_eva_debug; "
            "`eva recipes detection` lists them"
        )
    return find_recipe("detection", args.config_file)


def read_own_data(args: argparse.Namespace) -> Found:
    """Read the data that the flags name, once in a process; nothing without.

    Args:
        args: The command line with the flags of `config.parser`, or without them.

    Raises:
        ValueError: If flags are missing or the files are not right.
    """
    flags = own_data.given(args)
    shared = getattr(args, "val_share", None) is not None
    named = {"train_annotations", "train_images"} & {*flags} and not shared
    wants_train = flags and (not args.eval_only or named)
    parts = own_data.PARTS if wants_train else ("val",)
    return own_data.read_data(args, parts, rule=_RULE)


def _check_names(outline: Tree, overrides: list[str]) -> None:
    known = {name for name, value in outline.items() if isinstance(value, dict)}
    for section in ("dataloader", "train", "train.amp"):
        below = find(outline, section)
        known |= {f"{section}.{name}" for name in below} if isinstance(below, dict) else set()
    open_names = {name for name, value in outline.items() if value is UNKNOWN} | {"test.aug"}
    open_names |= {name for name in ("dataloader", "train") if find(outline, name) is UNKNOWN}
    check_names(known | set(OPTIONAL_SETTINGS), overrides, of=open_names)


def _check_data(outline: Tree, args: argparse.Namespace) -> None:
    if own_data.given(args):
        return
    parts = ("test",) if args.eval_only else ("train", "test")
    scored = find(outline, "dataloader.evaluator")
    for part in parts:
        node = find(outline, f"dataloader.{part}.dataset")
        if isinstance(node, Mapping) and (part == "train" or scored):
            require_data(_names(node.get("names")))
            for key in ("annotations", "images"):  # of a saved config
                _require(node.get(key), f"dataloader.{part}.dataset.{key}")


def _names(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(one) for one in value] if isinstance(value, list | tuple) else []


def _require(value: Any, name: str) -> None:
    plain = isinstance(value, str) and "\\" not in value and "${" not in value
    if plain and not Path(value).exists():
        raise FileNotFoundError(f"{name}: {value} is not there")


def _check_weights(source: Any, *, needed: bool) -> None:
    """Look for weights, but download nothing and read nothing."""
    if source == "" and needed:
        raise ValueError("evaluation needs weights: set train.init_checkpoint=NAME_OR_FILE")
    if not isinstance(source, str) or not source or "://" in source or Path(source).is_file():
        return
    from eva_backbone.checkpoints import registry
    from eva_backbone.checkpoints.hub.client import refusal

    official = any(source in (one.name, one.stem) for one in registry.list_official_files())
    if not official or refusal():
        registry.resolve_source(source)
