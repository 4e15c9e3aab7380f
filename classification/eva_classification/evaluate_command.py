"""Command line of `classification/evaluate.py`."""

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.variants import CLIP_MEAN, CLIP_STD
from eva_classification.imagenet_average import (
    PAPER_SETS,
    average_entries,
    table_with_average,
)
from eva_classification.model_options import add_weights
from eva_classification.models import ImageClassifier, load_classifier
from eva_data.files import make_folder
from eva_data.labelled.folders import open_labelled
from eva_data.labelled.imagenet import CLASSES, ImageNetPaths, open_sets
from eva_data.transforms import evaluation_transform
from eva_engine import distributed
from eva_engine.checkpoints.files import read_config
from eva_engine.commands.options import add_arguments, choose_dtype, command, new_parser
from eva_engine.evaluation.counting import MAX_CONFUSION, OneLabel, Score, count, rule_for
from eva_engine.evaluation.reports import draw_confusion, write_per_class, write_results

PROGRAM = "classification/evaluate.py"
SETS = {
    "imagenet": "ImageNet-1K val, a folder for each WordNet id",
    "real": "real.json of ImageNet-ReaL; labels --imagenet",
    "v2": "ImageNet-V2 matched frequency, folders 0 to 999",
    "a": "ImageNet-A",
    "r": "ImageNet-R",
    "sketch": "ImageNet-Sketch",
    "objectnet": "ObjectNet, with images and mappings",
}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = new_parser(
        PROGRAM,
        "Evaluate a classifier on ImageNet-1K and its variants, or on your own data. "
        "With several GPUs: torchrun --nproc-per-node N classification/evaluate.py ...",
    )
    add_weights(parser, kinds="official name, or file of a run")
    parser.add_argument("--variant", help="size of the ViT, if the weights do not say")
    parser.add_argument(
        "--data",
        help="your own: a folder of class folders, torchvision:NAME:ROOT:SPLIT or hf:NAME:SPLIT",
    )
    parser.add_argument("--classes", help="text file with the classes of --data in label order")
    for name, text in SETS.items():
        parser.add_argument(f"--{name}", type=Path, help=text)
    parser.add_argument("--crop-pct", type=float, help="default: the run's, else 1 as published")
    add_arguments(parser)
    parser.add_argument("--output", type=Path, help="folder of results.json and pictures")
    options = parser.parse_args(arguments)
    if options.data and any(getattr(options, name) for name in SETS):
        parser.error("--data is your own; evaluate ImageNet's sets in another run")
    if options.classes and not options.data:
        parser.error("--classes belongs to --data")
    if not options.data and not any(getattr(options, name) for name in SETS):
        parser.error(f"nothing to evaluate: give --data or any of --{', --'.join(SETS)}")
    return options


def _evaluate(options: argparse.Namespace, device: torch.device) -> None:
    model = load_classifier(options.weights, variant=options.variant, image_size=options.image_size)
    model = model.to(device, choose_dtype(options.precision, device))
    if options.output is not None:
        make_folder(options.output)  # fails now, not after hours
    noted = _noted(options)
    for name, usual in (("crop_pct", 1.0), ("mean", CLIP_MEAN), ("std", CLIP_STD)):
        if getattr(options, name) is None:
            setattr(options, name, noted.get(name, usual))
    options.class_names = options.classes or noted.get("class_names")
    work = _own_data if options.data else _imagenet
    scores = work(model, options)
    if distributed.rank() == 0:
        sys.stdout.write(table_with_average(scores) + "\n")
        if options.output is not None:
            settings = {key: value if isinstance(value, int | float) else str(value)
                        for key, value in vars(options).items()
                        if value is not None and key != "class_names"}  # fmt: skip
            settings["image_size"] = model.img_size
            settings["processes"] = distributed.world_size()
            more = average_entries(scores)
            file = write_results(options.output, settings, scores, more=more)
            sys.stdout.write(f"wrote {file}\n")


main = command(PROGRAM, _parse, _evaluate)


def _noted(options: argparse.Namespace) -> dict[str, Any]:
    """Settings of the run that made the weights, as far as they note them and the options do not.

    Raises:
        ValueError: If a note is of another kind.
    """
    config = read_config(resolve_source(options.weights)) or {}
    data = config.get("data", {})
    found = dict(data) if isinstance(data, dict) else {}
    noted = {name: found[name] for name in ("crop_pct", "mean", "std") if name in found}
    if "class_names" in config:
        noted["class_names"] = config["class_names"]
    fits: dict[str, Callable[[Any], bool]] = {
        "crop_pct": _is_number,
        "mean": _are_three,
        "std": _are_three,
        "class_names": lambda value: (
            isinstance(value, list) and all(isinstance(name, str) for name in value)
        ),
    }
    for name, value in noted.items():
        option = "classes" if name == "class_names" else name
        if getattr(options, option) is None and not fits[name](value):
            raise ValueError(
                f"{options.weights} notes {name}={str(value)[:60]} of its training, which it "
                f"cannot be: give --{option.replace('_', '-')}"
            )
    return noted


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_three(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))


def _imagenet(model: ImageClassifier, options: argparse.Namespace) -> dict[str, Score]:
    if model.num_classes != CLASSES:
        raise ValueError(
            f"{options.weights} has {model.num_classes} classes, ImageNet-1K and its variants need "
            f"{CLASSES}; evaluate it on its own data with --data"
        )
    paths = ImageNetPaths(**{name: getattr(options, name) for name in SETS})
    sets = open_sets(
        paths,
        image_size=model.img_size,
        crop_pct=options.crop_pct,
        mean=options.mean,
        std=options.std,
    )
    device = next(model.parameters()).device
    scores: dict[str, Score] = {}
    for samples, group in itertools.groupby(sets, key=lambda entry: entry.samples):
        rules = {entry.name: rule_for(entry.columns, entry.accepted) for entry in group}
        counted = count(
            model, samples, rules, device=device, batch_size=options.batch_size,
            workers=options.workers, progress=next(iter(rules)),
        )  # fmt: skip
        scores |= counted.scores
    # in the paper's order: ReaL was judged together with ImageNet-1K
    return {name: scores[name] for name in (*PAPER_SETS, "ObjectNet") if name in scores}


def _own_data(model: ImageClassifier, options: argparse.Namespace) -> dict[str, Score]:
    transform = evaluation_transform(
        model.img_size, crop_pct=options.crop_pct, mean=options.mean, std=options.std
    )
    samples = open_labelled(options.data, transform, classes=options.class_names, upright=False)
    if len(samples.classes) != model.num_classes:
        raise ValueError(
            f"{options.data} has {len(samples.classes)} classes, {options.weights} has "
            f"{model.num_classes}: give the classes of its training, one in a line of a text file, "
            "as --classes"
        )
    small = len(samples.classes) <= MAX_CONFUSION
    counted = count(
        model, samples, {"data": OneLabel()}, device=next(model.parameters()).device,
        batch_size=options.batch_size, workers=options.workers, progress="data",
        confusion=small and options.output is not None,
    )  # fmt: skip
    if distributed.rank() == 0 and counted.confusion is not None:
        for file in (
            write_per_class(options.output, counted, samples.classes),
            draw_confusion(options.output, counted.confusion, samples.classes),
        ):
            sys.stdout.write(f"wrote {file}\n")
    elif distributed.rank() == 0 and options.output is not None:
        sys.stdout.write(f"no per-class results for more than {MAX_CONFUSION} classes\n")
    return dict(counted.scores)
