"""What `classification/evaluate.py` does: ImageNet and its variants, or data of the user's own."""

import argparse
import itertools
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from eva_classification.evaluate_command import SETS
from eva_classification.imagenet_average import (
    PAPER_SETS,
    average_entries,
    table_with_average,
)
from eva_classification.inference.next_steps import demo_step
from eva_classification.models import ImageClassifier, load_classifier
from eva_data.imagenet import CLASSES, ImageNetPaths, open_sets
from eva_data.labelled_images import open_labelled
from eva_data.transforms import evaluation_transform
from eva_engine import distributed
from eva_engine.distributed import choose_dtype, evaluation_in
from eva_engine.evaluation.classification_report import (
    classification_sections,
    complain_of_left_out,
    say_end,
    write_results,
)
from eva_engine.evaluation.counting import AnyLabel, Counted, OneLabel, Outcomes, Rule, Score, count
from eva_engine.evaluation.own_data import (
    evaluate_own_data,
    fill_from_training,
    given_flags,
    settings_of,
)
from eva_engine.report import announce, write_evaluation_report
from eva_report.content import Section, Step
from eva_runs.commands import say

Sections = Callable[[], Sequence[Section]]


class Evaluated(NamedTuple):
    """What an evaluation gave: scores, the data, what its report shows; what was left out."""

    scores: dict[str, Score]
    data: list[tuple[str, str]]
    sections: Sections
    left_out: Sequence[str] | None = None  # of own data


def evaluate(options: argparse.Namespace, device: torch.device) -> None:
    """Score a classifier on ImageNet's sets or on own data.

    Args:
        options: Options of `eva_classification.evaluate_command`.
        device: Device of this process.

    Raises:
        ValueError: If weights and data do not fit together.
    """
    with evaluation_in(options.output):
        _evaluate_to(options, device)


def _evaluate_to(options: argparse.Namespace, device: torch.device) -> None:
    began = time.monotonic()
    model = load_classifier(options.weights, variant=options.variant, image_size=options.image_size)
    model = model.to(device, choose_dtype(options.precision, device))
    flags = given_flags(
        options, "classes", "variant", "image_size", "crop_pct", "mean", "std"
    )  # fmt: skip
    fill_from_training(options)
    work = _own_data if options.data else _imagenet
    scores, data, sections, left_out = work(model, options)
    if distributed.rank():
        return
    page, next_steps = None, list[Step]()
    if options.output is not None:
        settings = settings_of(options, image_size=model.img_size)
        more = average_entries(scores)
        if left_out is not None:
            more |= {"left_out": list(left_out)}
        file = write_results(options.output, settings, scores, more=more)
        say(f"wrote {file}")
        next_steps = [
            demo_step(options.weights, options.output / "demo", flags, data=[options.data])
        ]
        page = write_evaluation_report(
            options.output, scores, task="Classification", weights=options.weights,
            data=data, settings=settings, sections=sections, device=device.type,
            next_steps=next_steps,
        )  # fmt: skip
    say_end(table_with_average(scores), began=began, report=page, next_steps=next_steps)
    complain_of_left_out(left_out or ())


def _imagenet(model: ImageClassifier, options: argparse.Namespace) -> Evaluated:
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
    _announce(model, options, [(one.name, f"{len(one.samples):,} images") for one in sets])
    device = next(model.parameters()).device
    scores: dict[str, Score] = {}
    data: list[tuple[str, str]] = []
    sections: Sections = tuple
    for samples, group in itertools.groupby(sets, key=lambda entry: entry.samples):
        rules: dict[str, Rule] = {
            entry.name: OneLabel(entry.columns)
            if entry.accepted is None
            else AnyLabel(entry.accepted)
            for entry in group
        }
        first, outcomes = next(iter(rules)), Outcomes()
        complete = first == PAPER_SETS[0]
        counted = count(
            model, samples, rules, device=device, batch_size=options.batch_size,
            workers=options.workers, progress=first, confusion=complete,
            receive=outcomes.add if complete else None,
        )  # fmt: skip
        scores |= counted.scores
        data.append((first, f"{len(samples):,} images"))
        if complete:
            examples = outcomes.gathered()
            sections = partial(_sections, samples, counted, examples)
    # in the paper's order: ReaL was judged together with ImageNet-1K
    ordered = {name: scores[name] for name in (*PAPER_SETS, "ObjectNet") if name in scores}
    return Evaluated(ordered, data, sections)


def _own_data(model: ImageClassifier, options: argparse.Namespace) -> Evaluated:
    transform = evaluation_transform(
        model.img_size, crop_pct=options.crop_pct, mean=options.mean, std=options.std
    )
    samples = open_labelled(options.data, transform, classes=options.class_names, upright=False)
    described = f"{len(samples):,} images, {len(samples.classes):,} classes ({options.data})"
    data = [("data", described)]
    _announce(model, options, data)
    outcomes = Outcomes()
    counted = evaluate_own_data(
        model, samples, options, num_classes=model.num_classes, receive=outcomes.add,
        skip_unreadable=True, max_bad_samples=options.max_bad_samples,
    )  # fmt: skip
    examples = outcomes.gathered()
    sections = partial(_sections, samples, counted, examples)
    return Evaluated(dict(counted.scores), data, sections, counted.left_out)


def _announce(
    model: ImageClassifier, options: argparse.Namespace, data: Sequence[tuple[str, str]]
) -> None:
    place = next(model.parameters()).device.type
    task = f"evaluate a classifier of {model.num_classes:,} classes at {model.img_size} px"
    announce(f"{task} on {place}", weights=options.weights, data=data)


def _sections(samples: Any, counted: Counted, examples: Any) -> Sequence[Section]:
    return classification_sections(
        counted, samples.classes, examples=examples, name=samples.sample_id,
        picture=lambda index: samples.load(index)[0], complete_in="per_class.csv",
    )  # fmt: skip
