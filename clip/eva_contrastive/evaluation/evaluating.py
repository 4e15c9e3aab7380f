"""Evaluation of a CLIP on sets of classes and on retrieval, one by one, each kept at once.

Published numbers, in percent, are those of the official README of EVA-CLIP-g and of Table 10b.
Which videos of Kinetics were evaluated is not published; theirs are those of the official lists.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eva_contrastive.evaluation.benchmarks import OWN, Benchmark, open_benchmarks, open_retrieval
from eva_contrastive.evaluation.retrieval import RANKS, Retrieval, encode_pairs, retrieval_scores
from eva_contrastive.evaluation.zero_shot import ZeroShotClassifier, class_features
from eva_contrastive.model.eva_clip import EvaClip
from eva_contrastive.model.loading import load_eva_clip
from eva_contrastive.model.open_clip_files import find_preparation, open_clip_weights
from eva_contrastive.reports import retrieval_examples, search_step
from eva_data.captions.sources import CaptionedImages
from eva_data.saving import write_text
from eva_data.transforms import ImageTransform, evaluation_transform
from eva_engine import distributed
from eva_engine.evaluation.class_report import class_sections
from eva_engine.evaluation.classification_report import (
    announce,
    average_and_gap,
    report_evaluation,
    write_results,
)
from eva_engine.evaluation.counting import OneLabel, Score, count
from eva_engine.evaluation.own_data import evaluate_own_data, fill_from_training, settings_of
from eva_report.content import ScoreRow, ScoreTable, Section
from eva_report.terminal import align_columns
from eva_runs.precision import choose_dtype, resolve, to_precision

PAPER = "EVA-CLIP-g"


class Published(NamedTuple):
    """Published accuracy of a set, top-1 or Kinetics' mean of top-1 and top-5, and its samples."""

    accuracy: float
    samples: int


SETS: Mapping[str, Published] = {
    "ImageNet-1K": Published(78.53, 50_000),
    "ImageNet-V2": Published(71.52, 10_000),
    "ImageNet-A": Published(73.59, 7_500),
    "ImageNet-R": Published(92.50, 30_000),
    "ImageNet-Sketch": Published(67.31, 50_889),
    "ObjectNet": Published(72.33, 18_574),
    "CIFAR-10": Published(98.31, 10_000),
    "CIFAR-100": Published(88.66, 10_000),
    "UCF-101": Published(76.05, 3_783),
    "Kinetics-400": Published((54.04 + 76.42) / 2, 19_760),
    "Kinetics-600": Published((52.76 + 75.99) / 2, 29_779),
    "Kinetics-700": Published((46.65 + 70.16) / 2, 33_914),
}
SHIFTS = tuple(SETS)[:6]  # the gap is that of the first to the mean of all six
RETRIEVAL = {  # images of the complete set, and published recalls from images and from texts
    "Flickr30k": (1_000, (88.3, 98.3, 99.3, 72.64, 91.6, 95.12)),
    "COCO": (5_000, (61.76, 83.28, 89.96, 44.07, 68.5, 77.33)),
}
MOST_CLASSES = 200  # of a set with a section of its own


@dataclass
class Results:
    """What an evaluation has found so far, by the names of its sets."""

    scores: dict[str, Score] = field(default_factory=dict)
    extra: dict[str, dict[str, float]] = field(default_factory=dict)  # further numbers of these
    retrieval: dict[str, Retrieval] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)  # reasons


def summary(scores: Mapping[str, Score]) -> dict[str, float | None]:
    """Compute the `average` of the twelve sets and the `gap` of robustness; None where sets lack.

    The gap is that of ImageNet-1K's top-1 to the mean of it and its five variants, as in the
    paper. Kinetics counts with the mean of top-1 and top-5.
    """
    values = {
        name: score.mean_top1_top5 if name.startswith("Kinetics") else score.top1
        for name, score in scores.items()
    }
    complete, shifts = average_and_gap(values, tuple(SETS)), average_and_gap(values, SHIFTS)
    return {"average": complete and complete[0], "gap": shifts and shifts[1]}


def accuracy_table(results: Results, meanings: Mapping[str, str]) -> ScoreTable:
    """Make the table of sets of classes, with the average, the gap and the paper's numbers."""
    values: dict[str, list[float | None]] = {}
    for name, score in results.scores.items():
        numbers, published = results.extra[name], SETS.get(name)
        mean = numbers["mean_top1_top5"] if name.startswith("Kinetics") else None
        complete = published is not None and score.samples >= published.samples
        values[name] = [score.samples, score.top1, score.top5, mean, numbers.get("mean_per_class")]
        values[name].append(published.accuracy if published is not None and complete else None)
    means = summary(results.scores)
    for title, name in (("average of 12", "average"), ("robustness gap", "gap")):
        if means[name] is not None:
            values[title] = [None, means[name], *[None] * 4]
    return ScoreTable(
        title="Zero-shot accuracy",
        columns=["samples", "top-1", "top-5", "(1+5)/2", "class mean", PAPER],
        rows=[ScoreRow(name=k, values=v, meaning=meanings.get(k, "")) for k, v in values.items()],
        text="Zero-shot: percent of samples whose class is ranked first, or among the first five. "
        "The class mean counts each class alike.",
        digits=2,
    )


def retrieval_table(results: Results, meanings: Mapping[str, str]) -> ScoreTable:
    """Make the table of retrieval, with the paper's numbers."""
    values: dict[str, list[float | None]] = {}
    for name, retrieval in results.retrieval.items():
        values[name] = [*retrieval.values()]
        images, recalls = RETRIEVAL.get(name, (0, ()))
        if images == retrieval["images"]:
            values[f"{name}, {PAPER}"] = [None, None, *recalls]
    ways = [f"{way} R@{rank}" for way in ("I->T", "T->I") for rank in RANKS]
    return ScoreTable(
        title="Retrieval",
        columns=["images", "captions", *ways],
        rows=[ScoreRow(name=k, values=v, meaning=meanings.get(k, "")) for k, v in values.items()],
        text="Percent of images with one of their captions (I->T), and of captions with their "
        "image (T->I), among the first 1, 5 and 10.",
        digits=2,
    )


def aligned(tables: Iterable[ScoreTable]) -> str:
    """Format tables for the terminal."""
    written = []
    for table in tables:
        rows = [["set", *table.columns]]
        for row in table.rows:
            cells = (
                f"{v:.2f}" if isinstance(v, float) else "" if v is None else str(v)
                for v in row.values
            )
            rows.append([row.name, *cells])
        written.append(align_columns(rows))
    return "\n".join(written)


def evaluate(options: argparse.Namespace, device: torch.device) -> None:
    """Evaluate a CLIP on the sets that the options of `clip/evaluate_zero_shot.py` name."""
    began = time.monotonic()
    options.image_size, options.mean, options.std = find_preparation(
        options.weights, image_size=options.image_size, mean=options.mean, std=options.std
    )
    options.weights = str(open_clip_weights(Path(options.weights)) or options.weights)
    options.precision = resolve(options.precision, device)
    dtype = choose_dtype(options.precision, device)
    model = load_eva_clip(options.weights, image_size=options.image_size, dtype=dtype)
    model = to_precision(model, options.precision, device)
    fill_from_training(options)
    transform = evaluation_transform(
        model.image_size, crop_pct=options.crop_pct, mean=options.mean, std=options.std
    )
    # all of them at first, so that a wrong path is an error at once
    sets = open_benchmarks(options, transform, image_size=model.image_size)
    pairs = open_retrieval(options)
    data = [(s.name, f"{len(s.samples):,} samples, {len(s.names):,} class names") for s in sets]
    data += [(name, f"{len(images):,} images with captions") for name, images in pairs.items()]
    title = f"evaluate a CLIP at {model.image_size} px on {device.type}"
    announce(title, weights=options.weights, data=data)
    evaluation = _Evaluation(model, options, transform, names=[name for name, _ in data])
    for benchmark in sets:
        evaluation.count(benchmark)
    for name, images in pairs.items():
        evaluation.retrieve(name, images)
    if distributed.rank() == 0:
        evaluation.report(data, began, device)


class _Evaluation:
    """Evaluates sets of these names, and keeps the results of each at once."""

    def __init__(
        self,
        model: EvaClip,
        options: argparse.Namespace,
        transform: ImageTransform,
        *,
        names: list[str],
    ) -> None:
        self._model, self._options, self._transform = model, options, transform
        self._names, self._results = names, Results()
        self._features: dict[Any, Tensor] = {}  # of classes, by names and sentences
        self._sections: list[Callable[[], list[Section]]] = []

    def count(self, benchmark: Benchmark) -> None:
        """Count the correct predictions of a set, with wrong and right samples for the report."""
        options, results = self._options, self._results
        key = (tuple(benchmark.names), tuple(benchmark.templates))
        if key not in self._features:
            self._features[key] = class_features(
                self._model,
                benchmark.names,
                benchmark.templates,
                progress=f"{benchmark.name}, texts",
            )
        features = self._features[key]
        classifier = ZeroShotClassifier(self._model, features)
        if benchmark.name == OWN:
            counted = evaluate_own_data(
                classifier,
                benchmark.samples,
                options,
                num_classes=len(benchmark.names),
            )
        else:
            # of a part of the names, the confusion would not have the labels as its rows
            small = benchmark.columns is None and len(benchmark.names) <= MOST_CLASSES
            counted = count(
                classifier,
                benchmark.samples,
                {benchmark.name: OneLabel(benchmark.columns)},
                device=features.device,
                batch_size=options.batch_size,
                workers=options.workers,
                progress=benchmark.name,
                details=small,
                max_bad_samples=options.max_bad_samples,
            )
        (results.scores[benchmark.name],) = counted.scores.values()
        score = results.scores[benchmark.name]
        extra = results.extra[benchmark.name] = {"mean_top1_top5": score.mean_top1_top5}
        if counted.confusion is not None:
            extra["mean_per_class"] = counted.mean_per_class
            self._sections.append(
                partial(
                    class_sections,
                    benchmark.samples,
                    counted,
                    classes=benchmark.names,
                    of=f" ({benchmark.name})",
                    unit="samples",
                    complete_in="per_class.csv" if benchmark.name == OWN else "",
                )
            )
        results.left_out += counted.left_out
        self._keep()

    def retrieve(self, name: str, pairs: CaptionedImages) -> None:
        """Score the retrieval among pairs."""
        options, results = self._options, self._results
        encoded = encode_pairs(
            self._model,
            pairs,
            self._transform,
            batch_size=options.batch_size,
            workers=options.workers,
            progress=name,
            max_bad_samples=options.max_bad_samples,
        )
        results.retrieval[name] = retrieval_scores(encoded.images, encoded.texts, encoded.owners)
        results.left_out += encoded.left_out
        self._sections.append(partial(retrieval_examples, encoded, pairs, name=name))
        self._keep()

    def _keep(self) -> None:
        """Write the results so far, so that an interruption loses no complete set."""
        results = self._results
        if distributed.rank() or self._options.output is None:
            return
        done = {*results.scores, *results.retrieval}
        notes = {
            **summary(results.scores),
            "retrieval": results.retrieval,
            "left_out": results.left_out,
            "not_evaluated": [name for name in self._names if name not in done],
        }
        settings = settings_of(self._options, image_size=self._model.image_size)
        write_results(
            self._options.output,
            settings,
            results.scores,
            unit="samples",
            extra=results.extra,
            more=notes,
        )

    def report(self, data: list[tuple[str, str]], began: float, device: torch.device) -> None:
        """Write tables and page, and say the end; `data` has names and descriptions of the sets."""
        options, results = self._options, self._results
        meanings, make = dict(data), (accuracy_table, retrieval_table)
        tables = [table for table in (m(results, meanings) for m in make) if table.rows]
        if options.output is not None:
            write_text(options.output / "table.md", f"```\n{aligned(tables)}\n```\n")
        settings = {
            "sentences of data": " | ".join(options.templates or ()),
            "class names": options.classes,
            "precision": options.precision,
            "batch size": options.batch_size,
        }
        lines = [f"{name}: top-1 {score.top1:.2f} %" for name, score in results.scores.items()]
        lines += [
            f"{name}: {score['image_to_text_r1']:.2f} % of the images find their caption first"
            for name, score in results.retrieval.items()
        ]
        report_evaluation(
            options,
            began=began,
            task="CLIP",
            data=data,
            settings={name: value for name, value in settings.items() if value},
            device=device.type,
            summary=f"{'; '.join(lines)}.",
            description=aligned(tables),
            sections=lambda: [*tables, *(section for m in self._sections for section in m())],
            left_out=results.left_out,
            unit="samples",
            next_steps=[search_step(options.weights, options.output)] if options.output else [],
        )
