"""Mistakes on a command line that are found before detectron2 and torch are imported.

The checks of the config itself, `config.checks`, find everything that is not plain here.
"""

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eva_data.detection.spec import (
    PARTS,
    DetectionData,
    first_path,
    named_data,
    resolve_arguments,
)
from eva_detection.config.names import (
    CHECKPOINTER,
    INTEGERS,
    OPTIONAL_SETTINGS,
    check_below,
    check_names,
    check_value,
    refused_argument,
)
from eva_detection.config.outline import (
    OTHERS,
    TARGET,
    UNKNOWN,
    Imported,
    Tree,
    find,
    is_open,
    plain_value,
    read_outline,
    with_overrides,
)
from eva_detection.config.signatures import arguments_of
from eva_detection.config.words import setting
from eva_detection.data.places import require_data
from eva_detection.training.output_folder import check_unused, last_checkpoint
from eva_runs.command_line.slips import SlipError
from eva_runs.recipes import find_recipe, name_on_own_data

logger = logging.getLogger(__name__)

_PARALLEL = "torch.nn.parallel.DistributedDataParallel"
_OUTPUT = "train.output_dir"


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
    _check_settings(outline, args)
    _check_data(outline, args)
    folder = find(outline, _OUTPUT)
    place = Path(folder) if isinstance(folder, str) and folder and "://" not in folder else None
    if place is not None and not args.eval_only and not args.resume:
        check_unused(place)
    if not (args.resume and place is not None and last_checkpoint(place)):
        _check_weights(find(outline, "train.init_checkpoint"), needed=args.eval_only)


def _name_output(args: argparse.Namespace, recipe: Path) -> None:
    """Let a run on own data have a folder of its own, where the command line names none."""
    place = first_path(args)
    if place is None or any(text.lstrip("+").startswith(f"{_OUTPUT}=") for text in args.opts):
        return
    if name := name_on_own_data(recipe, place):
        args.opts.append(setting(_OUTPUT, f"./output/{name}"))


def require_recipe(args: argparse.Namespace) -> Path:
    """Find the recipe of a command line.

    Args:
        args: The command line.

    Raises:
        SlipError: If there is none, or it names none.
    """
    if not args.config_file:
        run = "name the folder of a run, or a recipe and weights" if args.eval_only else ""
        raise SlipError(
            f"{run or 'name a recipe, such as demo/cascade_mask_rcnn_vitdet_eva_debug'}; "
            "`eva recipes detection` lists the recipes"
        )
    return find_recipe("detection", args.config_file)


def read_own_data(args: argparse.Namespace) -> DetectionData:
    """Read the data that the flags name, once in a process; nothing without.

    Args:
        args: The command line with the flags of `config.parser`, or without them.

    Raises:
        ValueError: If flags are missing or the files are not right.
    """
    flags = named_data(args)
    shared = getattr(args, "val_fraction", None) is not None
    named = {"train_annotations", "train_images"} & {*flags} and not shared
    wants_train = flags and (not args.eval_only or named)
    parts = PARTS if wants_train else ("val",)
    return resolve_arguments(args, parts)


def _check_names(outline: Tree, overrides: list[str]) -> None:
    open_names = {"test.aug"}
    known = {name for name, value in outline.items() if isinstance(value, dict)}
    for section in ("dataloader", "train", "train.amp"):
        below = find(outline, section)
        known |= {f"{section}.{name}" for name in below} if isinstance(below, dict) else set()
        if isinstance(below, dict) and OTHERS in below:
            known.add(section)
            open_names.add(section)
    open_names |= {name for name, value in outline.items() if is_open(value)}
    open_names |= {name for name in ("dataloader", "train") if find(outline, name) is UNKNOWN}
    check_names(known | set(OPTIONAL_SETTINGS), overrides, of=open_names)


def _check_settings(outline: Tree, args: argparse.Namespace) -> None:
    """Refuse values that settings cannot have, and arguments that a class does not take."""
    texts = args.opts or []
    if any(text.startswith("~") for text in texts):  # what is taken away is not followed
        return
    built = ["model", "dataloader", *([] if args.eval_only else ["optimizer", "lr_multiplier"])]
    for key, _, value in (text.lstrip("+").partition("=") for text in texts):
        if find(outline, key) == value and _is_read(key, args):
            plain = plain_value(value)
            if plain is not UNKNOWN:
                check_value(key, plain)
        section, *rest = key.split(".")
        own = section == "dataloader" and named_data(args)
        if section in built and not own:
            _check_argument(outline.get(section), section, rest)
        elif section == "train" and not args.eval_only:
            _check_training(rest)


def _is_read(key: str, args: argparse.Namespace) -> bool:
    """Return whether `config.settings` looks at the value of a setting."""
    return not args.eval_only or (key in INTEGERS and key.startswith("dataloader.test."))


def _check_training(names: list[str]) -> None:
    part, below = names[0] if names else "", names[1:2]
    if part == "checkpointer":
        check_below("train.checkpointer", below, CHECKPOINTER)
    known = arguments_of(_PARALLEL) if part == "ddp" else None
    if known is not None:
        check_below("train.ddp", below, {"fp16_compression", *known} - {"module"})


def _check_argument(node: Any, key: str, names: list[str]) -> None:
    """Follow a setting into its section, and refuse it where a class takes no such argument."""
    for name in names:
        if not isinstance(node, dict):
            return
        target = node.get(TARGET)
        target = target.name if isinstance(target, Imported) else target
        known = arguments_of(target) if isinstance(target, str) else None
        if known is not None and name not in (TARGET, *known):
            of = str(target).rpartition(".")[2]
            raise SlipError(refused_argument(key, name, of=of, known=known))
        node, key = node.get(name), f"{key}.{name}"


def _check_data(outline: Tree, args: argparse.Namespace) -> None:
    if named_data(args):
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
    from eva_detection.config.saved import require_detector

    if needed:
        require_detector(source)
    official = any(source in (one.name, one.stem) for one in registry.list_official_files())
    if not official or refusal():
        registry.resolve_source(source)
