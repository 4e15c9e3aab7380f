"""Label images with a trained detector or segmentor, for training and for annotation programs.

    eva label photos --weights output/mine --to yolo --output labelled
    eva label photos --weights output/mine --to coco --output labelled2 --val mine/data.yaml
        --target-precision 0.9      # on one line: a threshold for each class
    eva label photos --weights output/rooms --to maps --output labelled3 --val rooms/val
        --target-precision 0.9      # pixels below it get 255, which no training looks at

OUTPUT receives a folder with the dataset; report.html, the images in greatest doubt first; and
label_next.txt, up to 100 images to label by hand next. The same command continues where it was
stopped. Another format, or other thresholds with --overwrite, take the predictions that are there.
"""

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path, PurePath
from typing import Any

from eva_backbone.checkpoints.registry import OFFICIAL_FILES, require_known
from eva_backbone.checkpoints.run_folders import (
    CONFIG,
    folder_of_run,
    is_detectron2_run,
    is_engine_run,
)
from eva_command.public_settings import read_json, read_python, task_of_engine, task_of_mmengine
from eva_command.recipes import find_task as task_of_recipe
from eva_data.files import IMAGE_SUFFIXES, expand_home
from eva_data.inputs import JobPlan, plan_jobs
from eva_data.writing import FORMATS, regions_of
from eva_openmmlab.run_folder import config_of_run
from eva_report.demos import require_format
from eva_runs.commands import Command, lazy_import
from eva_runs.options import SOURCES, add_download_option, command_parser, probability
from eva_runs.output_folder import number_folder
from eva_runs.recipes import find_recipe

TASKS = ("detection", "mmdetection", "segmentation")
_FILES_OF_LABELS = ("coco-panoptic", "geojson", "maps", "voc", "yolo")  # one of each image
NEXT = "label_next.txt"


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("source", nargs="+", type=Path, metavar="SOURCE", help="folder, pattern or image")
    add("--weights", required=True, help=f"detector or segmentor: {SOURCES}")
    forms = [*FORMATS, "maps"]
    help_text = "format; maps of a segmentor, whose regions are else objects"
    add("--to", required=True, choices=forms, dest="form", help=help_text)
    help_text = "folder for the results (default: output/labels, or labels-2 after a finished one)"
    add("--output", type=Path, metavar="DIR", help=help_text)
    add("--recipe", help="the model's recipe (default: that of the run of the weights)")
    add("--task", choices=TASKS, help="default: that of the run, or of the official weights")
    help_text = "least score of a labelled object or pixel (default: %(default)s)"
    add("--score-threshold", type=probability, default=0.5, metavar="SCORE", help=help_text)
    help_text = (
        "for each class the lowest score from which on this share of its boxes, or pixels, in "
    )
    add("--target-precision", type=probability, metavar="SHARE", help=f"{help_text}--val is right")
    help_text = (
        "labelled data, as --data of detection, or images/, maps/ and classes.toml of a segmentor"
    )
    add("--val", type=Path, metavar="DATA", help=help_text)
    add("--boxes-only", action="store_true", help="no masks")
    add("--device", help='"cuda", "cuda:1" or "cpu" (default: that of the model\'s demo)')
    add("--overwrite", action="store_true", help="replace the dataset in --output")
    add_download_option(parser)
    options = parser.parse_args(arguments)
    if (options.target_precision is None) != (options.val is None):
        parser.error("--target-precision and --val are given together")
    if options.boxes_only and options.form == "coco-panoptic":
        parser.error("--to coco-panoptic has masks: leave out --boxes-only")
    if options.output is None:
        if options.overwrite:
            parser.error("--overwrite replaces the dataset of a folder: name it by --output")
        options.output = number_folder(Path("output/labels"), lambda path: (path / NEXT).exists())
    options.plan = _plan(options)
    return options


def find_task(weights: str, task: str | None) -> tuple[str | None, Path | None]:
    """Find the task of weights, unless it is named, and the config of a detector or segmentor."""
    require_known(weights)
    path = expand_home(weights)
    folder, config = folder_of_run(path), config_of_run(path)
    official_task = next(
        (entry.task for entry in OFFICIAL_FILES if path.name in (entry.name, entry.stem)), None
    )
    if config is not None:
        official_task = task_of_mmengine(read_python(config)[0])
    elif path.exists() and is_detectron2_run(folder):
        official_task, config = "detection", folder / "config.yaml"
    elif is_engine_run(path):
        official_task = task_of_engine(read_json(path / CONFIG))
    return task or official_task, config


def find_model(weights: str, recipe: str | None, task: str | None) -> tuple[str, Path]:
    """Find task and config of a detector or segmentor, or raise a ValueError."""
    task, config = find_task(weights, task)
    if task is None and recipe and not expand_home(recipe).is_file():  # which tells no task
        task, detected_task = task_of_recipe(recipe, None)
        recipe = str(detected_task)
    config = find_recipe(task, recipe) if recipe and task in TASKS else config
    if task not in TASKS or config is None:
        message = (
            "is of no run of a detector or segmentor: give --recipe, and --task if not official"
        )
        raise ValueError(f"{weights} {message}")
    return task, config


def read_extractor(weights: str) -> dict[str, Any]:
    """Read what the run of a detector or segmentor says of its ViT and its weights do not show.

    Returns:
        Options of a feature extractor, None where the run has no value; none for other weights.
    """
    task, config = find_task(weights, None)
    if config is None:
        return {}
    if task == "detection":
        load: Any = import_module("eva_detection.config.files").load_config_file
        try:
            cfg = load(config)
        except ValueError:  # a recipe of the user's own, which runs only if it is named
            return {}
        model, bands = cfg.model, import_module("eva_detection.building").bands_of(cfg)
        net, pixels = model.backbone.net, [model.pixel_mean, model.pixel_std]
    else:
        model = read_python(config)[0]["model"]
        net, prepared = model["backbone"], model.get("data_preprocessor", {})
        pixels = [prepared.get("mean"), prepared.get("std")]
        bands = prepared.get("bands")
    if bands:
        raise ValueError(f"{weights} was trained on bands, and this is for RGB alone")
    mean, std = (values and [value / 255 for value in values] for values in pixels)
    windows = {"window_size": net.get("window_size", 0)}
    windows["global_blocks"] = list(net.get("global_attn_indexes", ()))
    sizes = {"num_heads": net.get("num_heads"), "image_size": net.get("img_size")}
    return windows | sizes | {"mean": mean, "std": std}


def load_model(
    task: str, config: Path | str, *, score_threshold: float = 0.5, **options: Any
) -> tuple[Any, dict[int, str]]:
    """Load a detector or segmentor by its config; return it with ids and names of its classes."""
    options |= {"score_threshold": score_threshold} if task != "segmentation" else {}
    build = import_module(f"eva_{task}.inference.predictor").Predictor.from_config
    model: Any = build(config, **options)
    return model, dict(getattr(model, "categories", None) or enumerate(model.names))


def open_model(
    weights: str, *, recipe: str | None = None, task: str | None = None, **options: Any
) -> tuple[list[str], Callable[[Any], list[Any]]]:
    """Load a model for a program that annotates; `options` are those of `load_model`.

    Returns:
        Names of the classes, and a function that finds the objects of an image (H, W, 3), as
        `eva_data.writing` takes them: those of a detector, or the regions of a segmentor.
    """
    task, config = find_model(weights, recipe, task)
    model, names = load_model(task, config, weights=weights, **options)
    model.require_rgb("a label tool")
    if task == "segmentation":
        return [*names.values()], lambda rgb: regions_of(model.predict(rgb), len(names))
    return [*names.values()], model.in_coco_format


def _plan(options: argparse.Namespace) -> JobPlan:
    """Find task, config and images, and check that the dataset may be written."""
    options.task, options.config = find_model(options.weights, options.recipe, options.task)
    if options.form == "maps" and options.task != "segmentation":
        raise ValueError(f"--to {options.form} is not for {options.task}: a segmentor makes maps")
    folder = options.output / options.form
    plan = plan_jobs(
        options.source,
        suffixes=IMAGE_SUFFIXES,
        results=[options.output],
        kinds="images",
        targets=lambda name: [folder / "__".join(_labels_of(name, options.form).parts)],
    )
    if not plan.jobs:
        raise ValueError("; ".join(plan.problems))
    require_format(options, plan.jobs)
    return plan


def _labels_of(image: PurePath, form: str) -> PurePath:
    """Name the labels of an image, of formats with a file for each of them without its suffix."""
    return image.with_suffix("") if form in _FILES_OF_LABELS else image


main = Command(
    "eva label",
    _parse,
    lazy_import("eva_command.labelling:label"),
    interrupted="the same command continues",
)
