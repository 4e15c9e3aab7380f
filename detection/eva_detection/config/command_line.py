"""From the command line of `train_net.py` to a checked config, and to the processes of a run."""

import argparse
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from detectron2.config import LazyConfig
from detectron2.engine import launch
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from eva_backbone.checkpoints.registry import resolve_source
from eva_data.interruption import EXIT_KEYBOARD
from eva_detection.config.files import load_config_file
from eva_detection.config.recipes import check_arguments, check_overrides
from eva_detection.config.settings import check_machine, check_sections, check_settings, describe
from eva_detection.data.custom_data import (
    apply_custom_data,
    check_classes,
    images_per_step,
    scale_lr,
)
from eva_detection.training.endings import say


def load_config(args: argparse.Namespace) -> tuple[DictConfig, list[str]]:
    """The config with own data and overrides, and what to log of it.

    Raises:
        ValueError: In one sentence, where they cannot work.
    """
    if not args.config_file:
        raise ValueError("give a recipe with --config-file")
    try:
        cfg = load_config_file(args.config_file)
    except Exception as error:  # a recipe is Python, which may raise anything
        raise ValueError(
            f"--config-file {args.config_file} cannot be read: {describe(error)}"
        ) from error
    if flags := [text for text in args.opts if text.startswith("--")]:
        raise ValueError(f"{flags[0]}: flags come before the settings, such as train.max_iter=100")
    try:
        check_overrides(cfg, args.opts)
        scales = getattr(args, "scale_lr", False)
        reference = images_per_step(cfg) if scales else 0
        notes = apply_custom_data(cfg, args)
        _override(cfg, args.opts)
        trains, processes = not args.eval_only, args.num_gpus * args.num_machines
        check_sections(cfg, trains=trains)
        check_machine(cfg, args)
        check_settings(cfg, processes=processes, trains=trains)
        sections = ["model", "dataloader"] + (["optimizer", "lr_multiplier"] if trains else [])
        check_arguments(cfg, sections)
        check_classes(cfg)
        if scales:
            notes.append(scale_lr(cfg, reference=reference, overrides=args.opts))
        continues = args.resume and (Path(cfg.train.output_dir) / "last_checkpoint").exists()
        if cfg.train.init_checkpoint and not continues:
            resolve_source(cfg.train.init_checkpoint)  # before models and data sets are built
    except OmegaConfBaseException as error:
        raise ValueError(f"the config cannot be resolved: {describe(error)}") from error
    return cfg, notes


def _override(cfg: DictConfig, overrides: list[str]) -> None:
    for text in overrides:
        try:
            LazyConfig.apply_overrides(cfg, [text])
        except Exception as error:  # of hydra's parser, OmegaConf, or detectron2 between them
            raise ValueError(
                f"the setting {text!r} cannot be applied: {describe(error)}"
            ) from error


def start_processes(run: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Start the processes of a run on this machine, and end when they have ended.

    Args:
        run: One process.
        args: The command line, for `run`.

    Raises:
        SystemExit: With the code of the first process that does not succeed.
    """
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # whom it ends, why
    try:
        launch(
            run,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except KeyboardInterrupt:
        _end_children()
        sys.exit(EXIT_KEYBOARD)
    except ProcessExitedException as error:
        if error.signal_name:
            say(
                f"process {error.error_index} was ended by {error.signal_name}, which the system "
                "sends, for example, for want of memory"
            )
            sys.exit(1)
        sys.exit(error.exit_code)
    except ProcessRaisedException as error:  # before `run`, as the processes find each other
        reason = str(error).strip().splitlines()[-1]
        say(f"the processes cannot be started with --dist-url {args.dist_url}: {reason}")
        sys.exit(1)


def _end_children() -> None:
    """End the processes of a run that Ctrl-C has not reached."""
    for patience, number in ((5, signal.SIGINT), (30, signal.SIGKILL)):
        for child in multiprocessing.active_children():
            child.join(patience)
            if child.is_alive() and child.pid is not None:
                os.kill(child.pid, number)
