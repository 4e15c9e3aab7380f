"""Command line of `classification/evaluate.py`."""

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from eva_classification.imagenet_average import (
    PAPER_SETS,
    average_entries,
    table_with_average,
)
from eva_classification.models import ImageClassifier, load_classifier
from eva_data.files import make_folder
from eva_data.labelled.folders import open_labelled
from eva_data.labelled.imagenet import CLASSES, ImageNetPaths, open_sets
from eva_data.transforms import evaluation_transform
from eva_engine import distributed
from eva_engine.commands.options import (
    add_arguments,
    add_weights,
    choose_dtype,
    command,
    new_parser,
)
from eva_engine.evaluation.counting import Score, count
from eva_engine.evaluation.own_data import evaluate_own_data, fill_from_training, settings_of
from eva_engine.evaluation.reports import write_results
from eva_engine.evaluation.rules import AnyLabel, OneLabel, Rule

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
    fill_from_training(options)
    work = _own_data if options.data else _imagenet
    scores = work(model, options)
    if distributed.rank() == 0:
        sys.stdout.write(table_with_average(scores) + "\n")
        if options.output is not None:
            settings = settings_of(options, image_size=model.img_size)
            more = average_entries(scores)
            file = write_results(options.output, settings, scores, more=more)
            sys.stdout.write(f"wrote {file}\n")


main = command(PROGRAM, _parse, _evaluate)


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
        rules: dict[str, Rule] = {
            entry.name: OneLabel(entry.columns)
            if entry.accepted is None
            else AnyLabel(entry.accepted)
            for entry in group
        }
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
    counted = evaluate_own_data(model, samples, options, num_classes=model.num_classes)
    return dict(counted.scores)
