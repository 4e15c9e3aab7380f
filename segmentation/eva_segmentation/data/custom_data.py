"""Own folders of images and label maps in any config: `--train-images` and the like.

The config itself states folders and classes afterwards, so that the config that a run saves is all
that is needed to test, to continue or to predict, also with mmsegmentation's own tools.
"""

import argparse
import copy
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eva_data.holdout import check_share
from eva_data.label_maps import (
    EXAMPLE,
    ClassFile,
    check_pairs,
    hold_out,
    read_class_file,
)
from eva_segmentation.data.pipelines import LABEL_READERS

if TYPE_CHECKING:
    from mmengine.config import Config

logger = logging.getLogger(__name__)

_LOADERS = {"train": ("train_dataloader",), "val": ("val_dataloader", "test_dataloader")}


def add_arguments(parser: argparse.ArgumentParser, *, training: bool = True) -> None:
    """Add the flags for own data.

    Args:
        parser: Parser of `train.py` or `test.py`.
        training: Add the flags for training data too.
    """
    group = parser.add_argument_group(
        "your own data", "folders of images and of label maps that have the same file names"
    )
    parts = {"train": "training", "val": "evaluation"} if training else {"val": "evaluation"}
    for part, what in parts.items():
        group.add_argument(f"--{part}-images", type=Path, metavar="DIR", help=f"images for {what}")
        group.add_argument(
            f"--{part}-maps", type=Path, metavar="DIR", help=f"label maps for {what}"
        )
    if training:
        group.add_argument(
            "--val-share",
            type=float,
            metavar="SHARE",
            help="share of the training images to evaluate on, such as 0.1, in place of the "
            "folders for evaluation; chosen by their names, always the same",
        )
    group.add_argument(
        "--classes", type=Path, metavar="TOML", help="names, labels and colours of the classes"
    )


def check(arguments: argparse.Namespace) -> dict[str, Path]:
    """Look at the flags for own data before anything heavy is imported.

    Args:
        arguments: The command line with the flags of `add_arguments`.

    Returns:
        Flag -> file or folder; empty if there are no flags.

    Raises:
        FileNotFoundError: If a file or folder does not exist.
        ValueError: If flags are missing.
    """
    parts = ("train", "val") if hasattr(arguments, "train_images") else ("val",)
    flags = [f"{part}_{what}" for part in parts for what in ("images", "maps")] + ["classes"]
    given: dict[str, Path | None] = {flag: getattr(arguments, flag) for flag in flags}
    share = getattr(arguments, "val_share", None)
    if share is not None:
        check_share(share)
        if both := [_flag(flag) for flag in flags if flag.startswith("val") and given[flag]]:
            raise ValueError(
                f"--val-share {share:g} takes images for evaluation from the training images: "
                f"leave it out, or {', '.join(both)}"
            )
        flags = [flag for flag in flags if not flag.startswith("val")]
        given = {flag: given[flag] for flag in flags}
    elif not any(given.values()):
        return {}
    missing = [_flag(flag) for flag in flags if not given[flag]]
    if missing:
        like = f"; {EXAMPLE}" if "--classes" in missing else ""
        raise ValueError(
            f"{', '.join(missing)} missing: own data needs all {len(flags)} flags{like}"
        )
    paths = {flag: path for flag, path in given.items() if path}
    for flag, path in paths.items():
        if not path.exists():
            kind, like = ("class file", f"; {EXAMPLE}") if flag == "classes" else ("folder", "")
            raise FileNotFoundError(f"there is no {kind} {path}, which {_flag(flag)} names{like}")
    return paths


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def apply(config: "Config", arguments: argparse.Namespace) -> "Config":
    """Put the data of the command line into a config, if there is any.

    Args:
        config: "Config", which stays unchanged.
        arguments: The command line with the flags of `add_arguments`.

    Returns:
        The config with the data, or the same one if there are no flags.

    Raises:
        FileNotFoundError: If a file or folder does not exist.
        ValueError: If flags are missing, or the files are wrong; the message names the first.
    """
    given = check(arguments)
    if not given:
        return config
    parts = ("train", "val") if "train_images" in given else ("val",)
    share = getattr(arguments, "val_share", None)
    classes = read_class_file(given["classes"])
    config = copy.deepcopy(config)
    for part in parts:
        named = part if share is None else "train"
        images, maps = given[f"{named}_images"].absolute(), given[f"{named}_maps"].absolute()
        held: dict[str, Any] = {}
        pairs = check_pairs(images, maps, classes)
        if share is not None:
            held = {"val_share": share, "held_out": part == "val"}
            pairs = hold_out(pairs, images, share)[part == "val"]
        logger.info("%s: %d images of %s with label maps of %s", part, len(pairs), images, maps)
        for name in _LOADERS[part]:
            _set_dataset(config[name], images, maps, classes, held)
            if part == "val":
                config[name].batch_size = 1  # pictures of any sizes
    for node in _dicts(config._cfg_dict):
        if _type_name(node) in LABEL_READERS:
            node.clear()
            node.update(
                type="LoadLabelMap", labels=list(classes.labels), ignore=list(classes.ignore)
            )
    _set_classes(config.model, len(classes.names))
    _register(config)
    logger.info("the model has %d classes: %s", len(classes.names), ", ".join(classes.names))
    return config


def _set_dataset(
    loader: Any, images: Path, maps: Path, classes: ClassFile, held: Mapping[str, Any]
) -> None:
    dataset = loader.dataset
    while "dataset" in dataset:  # wrapped, to repeat it for example
        dataset = dataset.dataset
    pipeline, test_mode = dataset.pipeline, dataset.get("test_mode", False)
    dataset.clear()
    dataset.update(
        type="PairedFolders",
        images=str(images),
        maps=str(maps),
        image_ending=classes.image_ending,
        map_ending=classes.map_ending,
        metainfo={
            "classes": list(classes.names),
            "palette": [list(color) for color in classes.colors],
            "labels": list(classes.labels),
        },
        pipeline=pipeline,
        test_mode=test_mode,
        **held,
    )


def _set_classes(model: Any, count: int) -> None:
    """Set the number of classes of all heads, and the weights of classes in their losses."""
    model = model.get("module", model)  # of test-time augmentation
    for name in ("decode_head", "auxiliary_head"):
        heads = model.get(name) or []
        for head in heads if isinstance(heads, list) else [heads]:
            before = head.get("num_classes")
            head.num_classes = count
            # a head with a channel for each class; Mask2Former's channels belong to its masks
            if head.get("out_channels") == before is not None and "feat_channels" not in head:
                head.out_channels = count
            if "num_things_classes" in head:
                head.update(num_things_classes=count, num_stuff_classes=0)
            for loss in _dicts(head):
                if isinstance(loss.get("class_weight"), list) and before is not None:
                    loss.class_weight = _resized(loss.class_weight, before, count)


def _resized(weights: list[float], before: int, count: int) -> list[float]:
    """Fit the weights of classes, and of what may follow them, to another number of classes."""
    if before == count:
        return weights
    own, rest = weights[:before], weights[before:]
    if len(set(own)) != 1 or len(weights) < before:
        raise ValueError(
            f"class_weight of a loss has {len(weights)} values for {before} classes; for your "
            f"{count} classes give them all the same weight in the config, or leave it out"
        )
    return [own[0]] * count + rest


def _register(config: "Config") -> None:
    """Register the data set for whoever reads the saved config."""
    imports = config.get("custom_imports") or {"imports": [], "allow_failed_imports": False}
    named = imports["imports"]
    named = [named] if isinstance(named, str) else list(named)
    if "eva_segmentation.plugin" not in named:
        named.append("eva_segmentation.plugin")
        config.custom_imports = {**imports, "imports": named}


def _dicts(node: Any) -> Iterator[Any]:
    """Yield all dicts inside, the outermost first."""
    if isinstance(node, dict):
        yield node
    if isinstance(node, dict | list | tuple):
        for value in list(node.values() if isinstance(node, dict) else node):
            yield from _dicts(value)


def _type_name(node: Any) -> str:
    kind = node.get("type", "")
    name = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
    return name.rpartition(".")[2]
