"""What `classification/evaluate.py` does: ImageNet and its variants, or data of the user's own."""

import argparse
import itertools

import torch

from eva_classification.evaluate_command import SETS
from eva_classification.imagenet_average import (
    PAPER_SETS,
    average_entries,
    table_with_average,
)
from eva_classification.models import ImageClassifier, load_classifier
from eva_data.commands import say
from eva_data.files import make_folder
from eva_data.labelled.folders import open_labelled
from eva_data.labelled.imagenet import CLASSES, ImageNetPaths, open_sets
from eva_data.transforms import evaluation_transform
from eva_engine import distributed
from eva_engine.commands.options import choose_dtype
from eva_engine.evaluation.counting import Score, count
from eva_engine.evaluation.own_data import evaluate_own_data, fill_from_training, settings_of
from eva_engine.evaluation.reports import write_results
from eva_engine.evaluation.rules import AnyLabel, OneLabel, Rule


def evaluate(options: argparse.Namespace, device: torch.device) -> None:
    """Score a classifier on ImageNet's sets or on own data.

    Args:
        options: Options of `eva_classification.evaluate_command`.
        device: Device of this process.

    Raises:
        ValueError: If weights and data do not fit together.
    """
    model = load_classifier(options.weights, variant=options.variant, image_size=options.image_size)
    model = model.to(device, choose_dtype(options.precision, device))
    if options.output is not None:
        make_folder(options.output)  # fails now, not after hours
    fill_from_training(options)
    work = _own_data if options.data else _imagenet
    scores = work(model, options)
    if distributed.rank() == 0:
        say(table_with_average(scores))
        if options.output is not None:
            settings = settings_of(options, image_size=model.img_size)
            more = average_entries(scores)
            file = write_results(options.output, settings, scores, more=more)
            say(f"wrote {file}")


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
