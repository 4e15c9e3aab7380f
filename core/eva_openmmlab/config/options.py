"""Settings from the command line, checked before anything is built."""

import difflib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from eva_openmmlab.config import names
from eva_openmmlab.config.demo_data import demo_data
from eva_openmmlab.config.files import read_config
from eva_openmmlab.config.words import USUAL_SETTINGS
from eva_runs.command_line.slips import SlipError, hint

_MISSPELT = 0.85  # likeness of two names
_INSIDE = {"randomness": names.RANDOMNESS, "auto_scale_lr": names.AUTO_SCALE_LR}
_ELSEWHERE = (
    "put the data set there, name its folder with --data-root, or data of your own with the flags "
    "that --help lists"
)
LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")


def load_config(
    path: str | os.PathLike[str],
    options: Mapping[str, Any] | None = None,
    *,
    plugins: bool = True,
) -> Config:
    """Read a config and merge settings into it.

    Args:
        path: The file.
        options: `--cfg-options`: dotted name -> value.
        plugins: As for `read_config`.

    Returns:
        The config.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If an option does not belong to the config.
    """
    cfg = read_config(Path(path), plugins=plugins)
    if options:
        check_options(cfg, options)
        check_values(options)
        cfg.merge_from_dict(dict(options))
    return cfg


def check_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Refuse settings that no part of the program would read.

    A name must be in the config or among what the runner and the loaders read; a new one may join
    the arguments of a `type`, whose constructor refuses what it does not know, unless it looks like
    a misspelt one.

    Args:
        cfg: The config.
        options: Dotted name -> value.

    Raises:
        ValueError: Naming the first that is wrong, and close names (a `SlipError`).
    """
    for name in options:
        node: Any = cfg
        parts = name.split(".")
        for depth, part in enumerate(parts):
            place = ".".join(parts[:depth]) or "the config"
            if isinstance(node, list | tuple):
                if not part.isdigit() or int(part) >= len(node):
                    raise ValueError(f"option {name}: {place} has the places 0 to {len(node) - 1}")
                node = node[int(part)]
            elif not isinstance(node, Mapping | Config):
                raise ValueError(f"option {name}: {place} is {node!r} and has no {part!r}")
            elif part in node:
                node = node[part]
            else:
                known = [str(key) for key in node]
                if part in _extra(parts[:depth]):
                    if depth == 0 and parts[0] in _INSIDE and len(parts) > 1:
                        node = dict.fromkeys(_INSIDE[parts[0]])
                        continue
                    break
                is_argument = depth and "type" in node
                others = [key for key in known if key != "type"]  # dtype is not a misspelt one
                if is_argument and not difflib.get_close_matches(part, others, cutoff=_MISSPELT):
                    break
                usual = [] if depth else [one.partition("=")[0] for one in USUAL_SETTINGS]
                raise SlipError(
                    f"option {name}: {place} has no {part!r}{hint(part, known + usual)}"
                )


def check_values(options: Mapping[str, Any]) -> None:
    """Refuse values that a setting of `config.names` cannot have, as text for a number.

    Args:
        options: Dotted name -> value; None is left to what reads it.

    Raises:
        ValueError: Naming the first that is wrong.
    """
    for name, value in options.items():
        if value is None or name not in names.INTEGERS.keys() | names.NUMBERS:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if name in names.NUMBERS:
            if not number or not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} must be a number that is not negative, got {value!r}")
        elif not number or value != value // 1 or value < names.INTEGERS[name]:
            least = names.INTEGERS[name]
            wanted = "a positive integer" if least == 1 else f"an integer of at least {least}"
            raise ValueError(f"{name} must be {wanted}, got {value!r}")


def _extra(place: list[str]) -> frozenset[str]:
    """List names that are read at a place of the config although it need not have them."""
    if not place:
        return names.RUNNER | names.RUNNER_CONFIG
    if len(place) == 1 and place[0] in LOADERS:
        return names.LOADING
    return _INSIDE.get(place[0], frozenset()) if len(place) == 1 else frozenset()


def parts_of(dataset: Any) -> list[Any]:
    """List the data sets that a config names, without what wraps or joins them.

    Args:
        dataset: Config of a data set.
    """
    inner = dataset.get("dataset", dataset.get("datasets"))
    if inner is None:
        return [dataset]
    return [
        part for one in (inner if isinstance(inner, list) else [inner]) for part in parts_of(one)
    ]


def set_data_root(cfg: Config, folder: str | os.PathLike[str]) -> None:
    """Let all loaders, and the metrics that read annotations, read below one folder.

    Args:
        cfg: The config.
        folder: Folder in place of the config's `data_root`.

    Raises:
        ValueError: If the config names files by paths of their own, as one with own data does.
    """
    moved: dict[str, str] = {}
    for name in LOADERS:
        for dataset in parts_of(cfg[name].dataset) if cfg.get(name) else ():
            if file := dataset.get("ann_file"):
                if Path(file).is_absolute():
                    raise ValueError(
                        f"--data-root {folder} has no effect on {file}, which {name} reads; leave "
                        "it out, or name own data again"
                    )
                before = Path(dataset.get("data_root") or "") / file
                moved[str(before)] = str(Path(folder) / file)
            dataset.data_root = os.fspath(folder)
    for name in ("val_evaluator", "test_evaluator"):
        metrics = cfg.get(name) or []
        for metric in metrics if isinstance(metrics, list) else [metrics]:
            file = str(Path(metric.get("ann_file") or ""))
            metric.update({"ann_file": moved[file]} if file in moved else {})


def check_data(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Look for the folders and annotation files that a run needs.

    Args:
        cfg: The config.
        loaders: Names of the loaders that will be used.

    Raises:
        FileNotFoundError: Naming what is missing and how to get it.
    """
    for name in loaders:
        for dataset in parts_of(cfg[name].dataset) if cfg.get(name) else ():
            root = Path(dataset.get("data_root") or "")
            fix = demo_data(root) or _ELSEWHERE
            for prefix in (dataset.get("data_prefix") or {}).values():
                if not (root / prefix).is_dir():
                    raise FileNotFoundError(
                        f"there is no folder {root / prefix}, which {name} reads; {fix}"
                    )
            file = dataset.get("ann_file")
            if file and not (root / file).is_file():
                raise FileNotFoundError(
                    f"there is no annotation file {root / file}, which {name} reads; {fix}"
                )


def check_weights(cfg: Config) -> None:
    """Look for the weights that a run loads; official ones may be downloaded now.

    Args:
        cfg: The config.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the weights have an unknown name.
    """
    if cfg.get("load_from"):
        from eva_backbone.checkpoints.registry import resolve_source

        resolve_source(cfg.load_from)
