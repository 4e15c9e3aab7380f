"""Evaluations: ImageNet and its variants, data of the user's own, frozen features."""

import argparse
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eva_classification.commands import SETS
from eva_classification.features import FeatureExtractor
from eva_classification.inference.predictor import demo_step
from eva_classification.models import ImageClassifier, load_classifier
from eva_data.imagenet import CLASSES, ImageNetPaths, open_sets
from eva_data.labelled_images import LabelledImages, open_labelled
from eva_data.transforms import evaluation_transform
from eva_engine import distributed
from eva_engine.commands.options import check_frozen
from eva_engine.distributed import choose_dtype
from eva_engine.evaluation.classification_report import (
    average_and_gap,
    classification_sections,
    complain_of_left_out,
    say_end,
    table,
    write_results,
)
from eva_engine.evaluation.counting import (
    AnyLabel,
    Counted,
    OneLabel,
    Outcomes,
    Rule,
    Score,
    count,
    counted_of,
)
from eva_engine.evaluation.frozen import Kept, labelled_features, report_frozen, score_frozen
from eva_engine.evaluation.own_data import (
    evaluate_own_data,
    fill_from_training,
    given_flags,
    settings_of,
)
from eva_engine.report import announce, write_evaluation_report
from eva_report.content import Section, Step
from eva_runs.commands import say

PAPER_SETS = (  # in the order of Table 5; the gap is between the first and the average
    "ImageNet-1K",
    "ImageNet-V2",
    "ImageNet-ReaL",
    "ImageNet-A",
    "ImageNet-R",
    "ImageNet-Sketch",
)


class Evaluated(NamedTuple):
    """What an evaluation gave: scores, the data, what its report shows; what was left out."""

    scores: dict[str, Score]
    data: list[tuple[str, str]]
    sections: Callable[[], Sequence[Section]]
    left_out: Sequence[str] | None = None  # of own data


def evaluate(options: argparse.Namespace, device: torch.device) -> None:
    """Score a classifier on ImageNet's sets or on own data by `classification/evaluate.py`.

    Raises:
        ValueError: If weights and data do not fit together.
    """
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
    sets = open_sets(
        ImageNetPaths(**{name: getattr(options, name) for name in SETS}),
        image_size=model.img_size,
        crop_pct=options.crop_pct,
        mean=options.mean,
        std=options.std,
    )
    _announce(model, options, [(one.name, f"{len(one.samples):,} images") for one in sets])
    device = next(model.parameters()).device
    scores: dict[str, Score] = {}
    data: list[tuple[str, str]] = []
    sections: Callable[[], Sequence[Section]] = tuple
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
            sections = partial(_sections, samples, counted, outcomes.gathered())
    # in the paper's order: ReaL was judged together with ImageNet-1K
    ordered = {name: scores[name] for name in (*PAPER_SETS, "ObjectNet") if name in scores}
    return Evaluated(ordered, data, sections)


def _own_data(model: ImageClassifier, options: argparse.Namespace) -> Evaluated:
    transform = evaluation_transform(
        model.img_size, crop_pct=options.crop_pct, mean=options.mean, std=options.std
    )
    samples = open_labelled(options.data, transform, classes=options.class_names, upright=False)
    data = [("data", _described(samples, options.data))]
    _announce(model, options, data)
    outcomes = Outcomes()
    counted = evaluate_own_data(
        model, samples, options, num_classes=model.num_classes, receive=outcomes.add,
        skip_unreadable=True, max_bad_samples=options.max_bad_samples,
    )  # fmt: skip
    sections = partial(_sections, samples, counted, outcomes.gathered())
    return Evaluated(dict(counted.scores), data, sections, counted.left_out)


def _described(samples: LabelledImages, place: str) -> str:
    return f"{len(samples):,} images, {len(samples.classes):,} classes ({place})"


def _announce(
    model: ImageClassifier, options: argparse.Namespace, data: Sequence[tuple[str, str]]
) -> None:
    place = next(model.parameters()).device.type
    task = f"evaluate a classifier of {model.num_classes:,} classes at {model.img_size} px"
    announce(f"{task} on {place}", weights=options.weights, data=data)


def _sections(samples: Any, counted: Counted, examples: Any) -> Sequence[Section]:
    return classification_sections(
        counted, samples.classes, examples=examples, name=samples.sample_id,
        image=lambda index: samples.load(index)[0], complete_in="per_class.csv",
    )  # fmt: skip


def table_with_average(scores: Mapping[str, Score]) -> str:
    """Write scores (set -> score) as a table, with average and gap where all six sets are there."""
    lines = [table(scores)]
    both = average_entries(scores)
    if both["average"] is not None:
        lines.append(f"{'average of six':16} {'':8} {both['average']:8.3f}")
        lines.append(f"{'gap to 1K':16} {'':8} {both['gap']:8.3f}")
    elif PAPER_SETS[0] in scores and len(scores) > 1:
        missing = [name for name in PAPER_SETS if name not in scores]
        lines.append(f"no average and gap of the paper's six sets without {', '.join(missing)}")
    return "\n".join(lines)


def average_entries(scores: Mapping[str, Score]) -> dict[str, Any]:
    """Make `average` and `gap` of `results.json`; None where one of the six sets is missing."""
    both = average_and_gap({name: score.top1 for name, score in scores.items()}, PAPER_SETS)
    average, gap = both if both is not None else (None, None)
    return {"average": average, "gap": gap}


# ---- frozen features -----------------------------------------------------------------------------
def evaluate_frozen(options: argparse.Namespace, device: torch.device) -> None:
    """Score frozen features by the options of `eva classification evaluate-frozen`.

    Raises:
        ValueError: If weights and data do not fit together.
    """
    began = time.monotonic()
    extractor = FeatureExtractor.from_options(options, device)
    learn = open_labelled(options.train, extractor.transform, upright=False)
    score = open_labelled(options.val, extractor.transform, classes=learn.classes, upright=False)
    check_frozen(options, len(learn))
    announce(
        f"score frozen features at {extractor.image_size} px on {device.type}",
        weights=options.weights,
        data=[
            ("train", _described(learn, options.train)),
            ("val", _described(score, options.val)),
        ],
    )

    def compute(samples: LabelledImages, limit: int | None, title: str) -> tuple[Tensor, Tensor]:
        (found,), labels = labelled_features(
            lambda images: [extractor(images)], samples, kept=[Kept([extractor.vit.embed_dim])],
            device=device, batch_size=options.batch_size, workers=options.workers, limit=limit,
            title=title, max_bad_samples=options.max_bad_samples,
        )  # fmt: skip
        return found, labels

    features, labels = compute(learn, options.limit, "train")
    queries, truth = compute(score, None, "val")
    if distributed.rank() > 0:
        return
    classes = len(learn.classes)
    said: list[Tensor] = []
    scores, chosen = score_frozen(
        options, features, labels, queries, truth, classes=classes, receive=said.append
    )
    settings = {
        "train_images": len(features),
        "pooling": extractor.pooling,
        "image_size": extractor.image_size,
    }
    title = (
        f"{Path(options.weights).name}, pooling {extractor.pooling}, {extractor.image_size} px: "
        f"{len(features)} images of {classes} classes to learn from"
    )
    counted, examples = counted_of(said[-1], truth)
    complete = len(truth) == len(score)  # else the places of samples are not those of images
    sections = classification_sections(
        counted, score.classes, examples=examples, name=score.sample_id,
        image=(lambda index: score.load(index)[0]) if complete else None,
    )  # fmt: skip
    report_frozen(options, title, settings | chosen, scores, began=began, sections=sections)
