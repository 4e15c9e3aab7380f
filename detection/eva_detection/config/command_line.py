"""The checked config that a command line of `train_net.py` describes."""

import argparse
from collections.abc import Sequence

from omegaconf import DictConfig

from eva_detection.building import describe, resolving
from eva_detection.config.checks import check_config
from eva_detection.config.early import require_recipe
from eva_detection.config.files import load_config_file
from eva_detection.config.overrides import apply_overrides, check_overrides
from eva_detection.config.own_data import apply_custom_data


def load_config(args: argparse.Namespace) -> tuple[DictConfig, list[str]]:
    """Load the config with own data and overrides, and check it.

    Args:
        args: The command line, from `config.parser.make_parser`. A recipe that it names is replaced
            by the path of that recipe.

    Returns:
        The config, and what to log of it.

    Raises:
        ValueError: In one sentence, if it cannot work.
    """
    args.config_file = str(require_recipe(args))
    try:
        cfg = load_config_file(args.config_file)
    except Exception as error:  # a recipe is Python, which may raise anything
        raise ValueError(
            f"--config-file {args.config_file} cannot be read: {describe(error)}"
        ) from error
    with resolving():
        check_overrides(cfg, args.opts)
        scales = getattr(args, "scale_lr", False)
        reference = images_per_step(cfg) if scales else 0
        notes = apply_custom_data(cfg, args)
        apply_overrides(cfg, args.opts)
        check_config(cfg, "evaluation" if args.eval_only else "training", args=args)
        if scales:
            notes.append(scale_lr(cfg, reference=reference, overrides=args.opts))
    return cfg, notes


def images_per_step(cfg: DictConfig) -> int:
    """Count the images of one optimizer step, over all processes and accumulated batches."""
    return int(cfg.dataloader.train.total_batch_size * cfg.train.get("accumulate", 1))


def scale_lr(cfg: DictConfig, *, reference: int, overrides: Sequence[str]) -> str:
    """Apply the linear rule: the learning rate grows with the images of a step.

    Args:
        cfg: The config with its overrides, changed in place.
        reference: Images of a step that the recipe's learning rate is for.
        overrides: `key=value` strings of the command line.

    Returns:
        What was changed, for the log.

    Raises:
        ValueError: If the learning rate is given as well.
    """
    if any(text.lstrip("+").startswith("optimizer.lr=") for text in overrides):
        raise ValueError("--scale-lr scales the recipe's optimizer.lr: give one of the two")
    images, before = images_per_step(cfg), cfg.optimizer.lr
    cfg.optimizer.lr = before * images / reference
    return (
        f"--scale-lr: optimizer.lr = {before:g} * {images} / {reference} = {cfg.optimizer.lr:g} "
        f"for {images} images a step"
    )
