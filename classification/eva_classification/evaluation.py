"""Evaluations: ImageNet and its variants, data of the user's own, frozen features."""

import argparse
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from eva_backbone.checkpoints.run_folders import BEST, CHECKPOINTS, CONFIG, RECORD, WEIGHTS
from eva_classification.commands import IMAGES, SETS
from eva_classification.features import FeatureExtractor
from eva_classification.models import PROBE_EPS, ImageClassifier, load_classifier
from eva_data.imagenet import CLASSES, ImageNetPaths, open_sets
from eva_data.labelled_images import (
    LabelledImages,
    hold_out_images,
    open_labelled,
    use_bands,
)
from eva_data.saving import write_text
from eva_data.transforms import band_transform, evaluation_transform
from eva_engine import distributed
from eva_engine.checkpoints.files import save_weights
from eva_engine.commands.options import check_frozen
from eva_engine.evaluation import frozen
from eva_engine.evaluation.attentive import KEPT, FittedProbe, choose_probe
from eva_engine.evaluation.class_report import class_sections, write_outcomes
from eva_engine.evaluation.classification_report import announce, average_and_gap, report_scores
from eva_engine.evaluation.counting import AnyLabel, OneLabel, Rule, Score, count
from eva_engine.evaluation.own_data import (
    bands_of_training,
    evaluate_own_data,
    fill_from_training,
    given_flags,
    settings_of,
)
from eva_report.content import NextStep, Section
from eva_runs.precision import resolve, to_precision

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
    left_out: Sequence[str]


def evaluate(options: argparse.Namespace, device: torch.device) -> None:
    """Score a classifier on ImageNet's sets or on own data by `classification/evaluate.py`.

    Raises:
        ValueError: If weights and data do not fit together.
    """
    began = time.monotonic()
    model = load_classifier(options.weights, variant=options.variant, image_size=options.image_size)
    options.precision = resolve(options.precision, device)
    model = to_precision(model, options.precision, device)
    flags = given_flags(options, "classes", "variant", "image_size", "crop_pct", "mean", "std")
    fill_from_training(options)
    work = _own_data if options.data else _imagenet
    scores, data, sections, left_out = work(model, options)
    if distributed.rank():
        return
    report_scores(
        options,
        scores,
        began=began,
        task=IMAGES.task,
        data=data,
        sections=sections,
        settings=settings_of(options, image_size=model.img_size),
        description="{table}" + describe_average(scores),
        more=average_entries(scores),
        left_out=left_out,
        device=device.type,
        next_steps=IMAGES.steps_after_evaluation(options, flags),
    )


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
    data = [(dataset.name, f"{len(dataset.samples):,} images") for dataset in sets]
    _announce(model, options, data)
    device = next(model.parameters()).device
    scores, left_out = dict[str, Score](), list[str]()
    sections: Callable[[], Sequence[Section]] = tuple
    for samples, group in itertools.groupby(sets, key=lambda entry: entry.samples):
        rules: dict[str, Rule] = {
            entry.name: OneLabel(entry.columns)
            if entry.accepted is None
            else AnyLabel(entry.accepted)
            for entry in group
        }
        first = next(iter(rules))
        complete = first == PAPER_SETS[0]
        counted = count(
            model,
            samples,
            rules,
            device=device,
            batch_size=options.batch_size,
            workers=options.workers,
            progress=first,
            details=complete,
            max_bad_samples=options.max_bad_samples,
        )
        scores |= counted.scores
        left_out += counted.left_out
        if complete:
            sections = partial(class_sections, samples, counted)
            if options.output is not None and not distributed.rank():
                write_outcomes(options.output, counted, samples)
    # in the paper's order: ReaL was judged together with ImageNet-1K
    ordered = {name: scores[name] for name in (*PAPER_SETS, "ObjectNet") if name in scores}
    return Evaluated(ordered, data, sections, left_out)


def _own_data(model: ImageClassifier, options: argparse.Namespace) -> Evaluated:
    bands = bands_of_training(options.weights)
    transform = evaluation_transform(
        model.img_size, crop_pct=options.crop_pct, mean=options.mean, std=options.std
    )
    samples = open_labelled(
        options.data,
        transform,
        classes=options.class_names,
        upright=False,
        has_bands=bands is not None,
    )
    if bands is not None:
        use_bands(samples, bands, band_transform(model.img_size, bands, crop_pct=options.crop_pct))
    data = [("data", f"{IMAGES.counted(samples)} ({options.data})")]
    _announce(model, options, data)
    counted = evaluate_own_data(
        model,
        samples,
        options,
        num_classes=model.num_classes,
    )
    sections = partial(class_sections, samples, counted, complete_in="per_class.csv")
    return Evaluated(dict(counted.scores), data, sections, counted.left_out)


def _announce(
    model: ImageClassifier, options: argparse.Namespace, data: Sequence[tuple[str, str]]
) -> None:
    device = next(model.parameters()).device.type
    task = f"evaluate a classifier of {model.num_classes:,} classes at {model.img_size} px"
    announce(f"{task} on {device}", weights=options.weights, data=data)


def describe_average(scores: Mapping[str, Score]) -> str:
    """Write average and gap of the paper's six sets, or which of the sets are missing."""
    averages = average_entries(scores)
    if averages["average"] is not None:
        return f"\naverage of six  {averages['average']:.3f}\ngap to 1K  {averages['gap']:.3f}"
    missing = [name for name in PAPER_SETS if name not in scores]
    started = PAPER_SETS[0] in scores and len(scores) > 1
    return f"\nno average of the paper's six sets without {', '.join(missing)}" if started else ""


def average_entries(scores: Mapping[str, Score]) -> dict[str, Any]:
    """Make `average` and `gap` of `results.json`; None where one of the six sets is missing."""
    averages = average_and_gap({name: score.top1 for name, score in scores.items()}, PAPER_SETS)
    return dict(zip(("average", "gap"), averages or (None, None), strict=True))


def evaluate_frozen(options: argparse.Namespace, device: torch.device) -> None:
    """Score frozen features by the options of `eva classification evaluate-frozen`.

    Raises:
        ValueError: If weights and data do not fit together.
    """
    began = time.monotonic()
    extractor = FeatureExtractor.from_options(options, device)
    transform = extractor.transform
    queries: LabelledImages
    labelled: LabelledImages = open_labelled(options.train, transform, upright=False)
    if options.val_share:
        labelled, queries = hold_out_images(
            labelled, options.val_share, transform, name="--val-share"
        )
    else:
        queries = open_labelled(options.val, transform, classes=labelled.classes, upright=False)
    if options.save and not (
        extractor.pooling == "cls" and "norm.weight" in extractor.vit.state_dict()
    ):
        raise ValueError(
            f"--save: a linear classifier reads the class token behind a final norm, and "
            f"{options.weights} has pooling={extractor.pooling}: choose weights such as dinov2_s14"
        )
    images = check_frozen(options, len(labelled)) + len(queries)
    side, channels = extractor.image_size // extractor.vit.patch_size, extractor.vit.embed_dim
    options.probe = "tokens" if options.attentive else "none"
    choose_probe(options, unit="images", samples=images, patches=side**2, channels=channels)
    tokens = frozen.Kept([1, side**2, channels], KEPT, torch.device("cpu"))
    frozen.evaluate_frozen(
        IMAGES,
        options,
        device,
        extractor,
        train_samples=labelled,
        queries=queries,
        seen=f"{extractor.image_size} px",
        began=began,
        compute=partial(_pooled_and_patches, extractor) if options.attentive else None,
        probed=tokens if options.attentive else None,
        save=partial(_save_probe, options, extractor, labelled.classes) if options.save else None,
    )


def _pooled_and_patches(extractor: FeatureExtractor, images: torch.Tensor) -> list[torch.Tensor]:
    pooled, tokens = extractor.pooled_and_patches(images)  # (B, C), (B, H/p, W/p, C)
    return [pooled, tokens.flatten(1, 2)[:, None]]


def _save_probe(
    options: argparse.Namespace,
    extractor: FeatureExtractor,
    classes: Sequence[str],
    classifier: frozen.LinearClassifier | FittedProbe,
    score: Score,
) -> Sequence[NextStep]:
    """Write a fitted classifier and its ViT as a run with best weights; return its next steps."""
    if isinstance(classifier, FittedProbe):
        head = classifier.probe.state_dict()
    else:
        head = {
            "0.running_mean": classifier.mean,
            "0.running_var": torch.full_like(classifier.mean, 1 - PROBE_EPS),
            "1.weight": classifier.weight / classifier.deviation,  # maybe too small for a variance
            "1.bias": classifier.bias,
        }
    tensors = extractor.vit.state_dict() | {f"head.{name}": value for name, value in head.items()}
    state = {name: value.float().cpu().contiguous() for name, value in tensors.items()}
    if "head.0.running_mean" in state:
        state["head.0.num_batches_tracked"] = torch.tensor(1)
    config = {
        "model": {"image_size": extractor.image_size, "init_checkpoint": str(options.weights)},
        "data": {"train": options.train, "mean": extractor.mean, "std": extractor.std},
        "run": {"best_metric": "top1"},
        "class_names": list(classes),
    }
    best = options.output / BEST
    best.mkdir(parents=True, exist_ok=True)
    (options.output / CHECKPOINTS).mkdir(exist_ok=True)  # by which a run is recognised
    save_weights(state, best / WEIGHTS, config)
    record = {WEIGHTS: {"step": 0, "results": {"top1": score.top1, "loss": score.loss}}}
    write_text(best / RECORD, json.dumps(record))
    write_text(options.output / CONFIG, json.dumps(config))
    return IMAGES.steps_after_training(options.val or "", options.train, options.output)
