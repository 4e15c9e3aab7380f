"""Own folders of images and label maps in any config: `--train-images` and the like.

The config itself states folders and classes afterwards, so that the config that a run saves is all
that is needed to test, to continue or to predict, also with mmsegmentation's own tools.
"""

import argparse
import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eva_data.bands import BandRequest, Bands, continue_bands, measure_bands
from eva_data.classes import ALLOW_EMPTY, list_names
from eva_data.files import display_path
from eva_data.holdout import check_share
from eva_data.images import warn_of_depth
from eva_data.label_files import render_template
from eva_data.label_maps import (
    ClassFile,
    Pair,
    check_pairs,
    compare_labels,
    count_values,
    describe_classes,
    find_class_file,
    find_classes,
    hold_out,
    read_class_file,
)
from eva_data.saving import UnwritableError, write_text
from eva_openmmlab.own_data import LOADERS, add_plugin, dicts, replace_dataset, set_bands
from eva_openmmlab.run_folder import config_of_run, run_folder
from eva_report.terminal import SHOWN
from eva_runs.commands import echo
from eva_runs.request import RunRequest
from eva_segmentation.parts import LABEL_READERS

if TYPE_CHECKING:
    from mmengine.config import Config

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser, *, training: bool = True) -> None:
    """Add the flags for own data, of training too or of evaluation alone."""
    group = parser.add_argument_group(
        "your own data", "folders of images and of label maps that have the same file names"
    )
    parts = {"train": "training", "val": "evaluation"} if training else {"val": "evaluation"}
    add = group.add_argument
    for part, purpose in parts.items():
        add(f"--{part}-images", type=Path, metavar="DIR", help=f"images for {purpose}")
        add(f"--{part}-maps", type=Path, metavar="DIR", help=f"label maps for {purpose}")
    if training:
        help_text = (
            "share of the training images to evaluate on, such as 0.1, in place of the folders "
        )
        help_text += "for evaluation; chosen by their names, always the same"
        add("--val-share", type=float, metavar="SHARE", help=help_text)
    default = "classes.toml above the folders, written if it is not there"
    default = default if training else "those of the run"
    help_text = f"names, labels and colours of the classes (default: {default})"
    add("--classes", type=Path, metavar="TOML", help=help_text)
    if training:
        add(ALLOW_EMPTY, action="store_true", help="train on classes that no pixel is of, too")


@dataclass(frozen=True)
class PairedData:
    """Own folders of images and label maps, from the command line to the config.

    Attributes:
        folders: "train" and "val", or one of them -> images, label maps.
        classes: File of the classes; None to evaluate by those of the config.
        share: Share of the pairs for training that is held out for evaluation; None for none.
        allow_empty: Whether classes may have no pixel.
        bands: Bands of the images of a training; None for RGB.
    """

    folders: Mapping[str, tuple[Path, Path]]
    classes: Path | None
    share: float | None = None
    allow_empty: bool = False
    bands: BandRequest | None = None


def check(arguments: argparse.Namespace) -> PairedData | None:
    """Look for what the flags name before anything heavy is imported; None without any."""
    parts = ("train", "val") if hasattr(arguments, "train_images") else ("val",)
    flags = [f"{part}_{kind}" for part in parts for kind in ("images", "maps")]
    paths: dict[str, Path] = {f: path for f in flags if (path := getattr(arguments, f))}
    file: Path | None = arguments.classes
    share = getattr(arguments, "val_share", None)
    if share is not None:
        check_share(share)
        if {"val_images", "val_maps"} & paths.keys():
            raise ValueError(f"--val-share {share:g} takes the place of --val-images, --val-maps")
        flags = flags[:2]
    elif not paths and file is None:
        return None
    missing = [f"--{f.replace('_', '-')}" for f in flags if f not in paths]
    if missing:
        raise ValueError(f"own data needs {', '.join(missing)}, too")
    for path in (*paths.values(), *([file] if file else [])):
        path.stat()  # which names a missing one
    sources = {part: "train" if share is not None else part for part in parts}
    folders = {
        part: (paths[f"{source}_images"].absolute(), paths[f"{source}_maps"].absolute())
        for part, source in sources.items()
    }
    file = file or (_find_class_file(folders) if "train" in folders else None)
    return PairedData(
        folders,
        file,
        share,
        bool(getattr(arguments, "allow_empty_classes", False)),
        RunRequest.from_options(arguments).band_request(),
    )


def _find_class_file(folders: Mapping[str, tuple[Path, Path]]) -> Path:
    """Find `classes.toml` above folders, or write it by the values of their maps."""
    splits = [*dict.fromkeys(folders.values())]
    file, classes = find_classes(splits)
    if not file.exists():
        for images, maps in splits:
            check_pairs(images, maps, classes)
        try:
            write_text(file, render_template("classes.toml", classes=classes.rows))
        except UnwritableError as error:
            raise ValueError(f"{error}: name such a file by --classes") from None
        names = list_names(classes.names, 16)
        echo(f"{file} was written by the values of the maps: {names}; name the classes there")
    return file


def _classes_of(config: "Config", folders: Mapping[str, tuple[Path, Path]]) -> ClassFile:
    """Take the classes of a run on own data, else those of `classes.toml` above the folders."""
    from eva_openmmlab.config import parts_of

    dataset = parts_of(config[LOADERS["val"][0]].dataset)[0]
    meta = dataset.get("metainfo") or {}
    if "labels" in meta:
        names, colors, labels = describe_classes(meta)
        steps = [step for step in dicts(dataset) if step.get("type") == "LoadLabelMap"]
        return ClassFile(
            names=tuple(names),
            labels=tuple(labels),
            colors=tuple(colors),
            ignore=tuple(steps[0]["ignore"]) if steps else (),
            image_ending=dataset.get("image_ending", ""),
            map_ending=dataset.get("map_ending", ""),
        )
    file = find_class_file([*folders.values()])
    if not file.exists():
        raise ValueError(f"{config.filename} is of other data: name your classes by --classes")
    return read_class_file(file)


def _check_labels(pairs: Sequence[Pair], part: str, classes: ClassFile, data: PairedData) -> None:
    """Read maps until each class was seen; in validation some may be missing, with a warning."""
    values, folder = count_values(pairs, classes.labels), data.folders[part][1]
    lenient = data.allow_empty or part == "val"
    file = data.classes or Path("the class file")
    misfit = compare_labels(values, classes, file, may_lack=lenient)
    if misfit.problem and "train" in data.folders:
        raise ValueError(f"{folder}, {len(pairs)} maps for {part}: {misfit.problem}")
    if misfit.unseen:
        unseen = list_names(misfit.unseen)
        logger.warning("%s: no pixel for %s is of %s", display_path(folder), part, unseen)
    if misfit.ignored:
        message = "%s: pixels of the labels %s are ignored, as %s says"
        logger.info(message, part, misfit.ignored, display_path(file), extra=SHOWN)


def apply(config: "Config", data: PairedData) -> "Config":
    """Put the data that `check` has found into a copy of a config."""
    classes = read_class_file(data.classes) if data.classes else _classes_of(config, data.folders)
    config = copy.deepcopy(config)
    continued = None
    if config.get("resume") and run_folder(config.work_dir).is_used():
        continued = continue_bands(_bands_of_run(config.work_dir), data.bands)
    for part, (images, maps) in data.folders.items():
        held: dict[str, Any] = {}
        pairs = check_pairs(images, maps, classes)
        if data.share is not None:
            held = {"val_share": data.share, "held_out": part == "val"}
            train, val = hold_out(pairs, images, data.share)
            pairs = val if part == "val" else train
        _check_labels(pairs, part, classes, data)
        files = [pair.image for pair in pairs]
        if data.bands and part == "train":
            bands = continued or measure_bands(files, data.bands)
            logger.info("bands %s", bands.describe(), extra=SHOWN)
            if left_out := set_bands(config, bands, "BandSegPreprocessor"):
                logger.info("augmentations %s", left_out, extra=SHOWN)
        elif not data.bands:
            warn_of_depth(len(files), files.__getitem__)
        logger.info("%s: %d images of %s with label maps of %s", part, len(pairs), images, maps)
        for name in LOADERS[part]:
            replace_dataset(
                config[name],
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
                **held,
            )
            if part == "val":
                config[name].batch_size = 1  # images of any sizes
    for node in dicts([*config.values()]):
        if str(node.get("type")).rpartition(".")[2] in LABEL_READERS:
            node.clear()
            node.update(
                type="LoadLabelMap", labels=list(classes.labels), ignore=list(classes.ignore)
            )
    _set_classes(config.model, len(classes.names))
    add_plugin(config, "eva_segmentation.plugin")
    logger.info("the model has %d classes: %s", len(classes.names), ", ".join(classes.names))
    return config


def _bands_of_run(folder: str) -> Bands | None:
    """Return the bands of a run's images; None for RGB."""
    from eva_openmmlab.config import load_config

    file = config_of_run(folder)
    model = load_config(file).model if file else {}
    return Bands.from_json((model.get("data_preprocessor") or {}).get("bands"))


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
            for loss in dicts(head):
                weights = loss.get("class_weight")
                if isinstance(weights, list) and before not in (None, count):
                    if len(set(weights[:before])) != 1:
                        raise ValueError(
                            f"class_weight {weights} of a loss is for {before} classes; for your "
                            f"{count} give all the same weight in the config, or leave it out"
                        )
                    # what follows the classes', such as Mask2Former's "no object", stays
                    loss.class_weight = weights[:1] * count + weights[before:]
