"""Evaluation of a CLIP on sets of classes and on retrieval, one by one, each kept at once."""

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eva_contrastive.evaluation.benchmarks import OWN, Benchmark, Opened, open_all
from eva_contrastive.evaluation.retrieval import (
    CaptionedPictures,
    EncodedPairs,
    RetrievalScore,
    encode_pairs,
    retrieval_scores,
)
from eva_contrastive.evaluation.table import entries_of, summary, text_table, write_tables
from eva_contrastive.evaluation.zero_shot import ZeroShotClassifier, class_features
from eva_contrastive.model.eva_clip import EvaClip
from eva_contrastive.model.loading import load_eva_clip
from eva_contrastive.model.open_clip_files import find_preparation, open_clip_weights
from eva_contrastive.reports import (
    MOST_CLASSES,
    class_sections,
    describe,
    evaluation_report,
    retrieval_examples,
    search_step,
)
from eva_data.files import UnwritableError
from eva_data.transforms import ImageTransform
from eva_engine import distributed
from eva_engine.distributed import choose_dtype, evaluation_in
from eva_engine.evaluation.classification_report import (
    Examples,
    complain_of_left_out,
    say_end,
    write_results,
)
from eva_engine.evaluation.counting import Counted, OneLabel, Outcomes, Score, count
from eva_engine.evaluation.own_data import evaluate_own_data, fill_from_training, settings_of
from eva_engine.report import announce
from eva_report.content import Section, Step
from eva_report.page import report_name, try_report
from eva_runs.errors import one_line


@dataclass
class _Results:
    """What has been evaluated so far."""

    scores: dict[str, Score] = field(default_factory=dict)
    class_means: dict[str, float] = field(default_factory=dict)
    retrieval: dict[str, RetrievalScore] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    sections: list[Callable[[], list[Section]]] = field(default_factory=list)


def evaluate(options: argparse.Namespace, device: torch.device) -> None:
    """Evaluate a CLIP on the sets that the options of `clip/evaluate_zero_shot.py` name.

    Raises:
        ValueError: If weights and data do not fit together.
    """
    with evaluation_in(options.output):
        _evaluate_to(options, device)


def _evaluate_to(options: argparse.Namespace, device: torch.device) -> None:
    began = time.monotonic()
    options.image_size, options.mean, options.std = find_preparation(
        options.weights, image_size=options.image_size, mean=options.mean, std=options.std
    )
    options.weights = str(open_clip_weights(Path(options.weights)) or options.weights)
    model = load_eva_clip(
        options.weights,
        image_size=options.image_size,
        text_heads=options.text_heads,
        dtype=choose_dtype(options.precision, device),
    ).to(device)
    fill_from_training(options)
    opened = open_all(options, image_size=model.image_size)
    described = describe(opened)
    announce(
        f"evaluate a CLIP at {model.image_size} px on {device.type}",
        weights=options.weights,
        data=described,
    )
    work = _Work(model, options)
    results = _Results()
    names = [one.name for one in opened.benchmarks] + [*opened.pairs]
    for one in opened.benchmarks:
        counted, examples = work.count(one)
        if counted.confusion is not None:
            results.sections.append(partial(class_sections, one, counted, examples))
        name = next(iter(counted.scores))
        results.scores[one.name] = counted.scores[name]
        if counted.confusion is not None:
            results.class_means[one.name] = counted.mean_per_class
        results.left_out += counted.left_out
        _keep(options, results, opened, model, names)
    for name, pairs in opened.pairs.items():
        encoded = work.encode(name, pairs, opened.transform)
        results.retrieval[name] = retrieval_scores(encoded.images, encoded.texts, encoded.owners)
        results.left_out += encoded.left_out
        results.sections.append(partial(retrieval_examples, encoded, pairs, name=name))
        _keep(options, results, opened, model, names)
    if distributed.rank() == 0:
        page, next_steps = None, list[Step]()
        if options.output is not None:
            write_tables(options.output, results.scores, results.retrieval)
            page = try_report(
                options.output,
                lambda: evaluation_report(
                    options, results.scores, results.retrieval, data=described,
                    class_means=results.class_means, sections=results.sections,
                    device=device.type,
                ),
                name=report_name(options.output, "evaluation"),
            )  # fmt: skip
            next_steps = [search_step(options.weights, options.output)]
        text = text_table(results.scores, results.retrieval, class_means=results.class_means)
        say_end(text, began=began, report=page, next_steps=next_steps)
        complain_of_left_out(results.left_out, unit="samples")


class _Work:
    """Evaluates sets; features of the same names are computed once."""

    def __init__(self, model: EvaClip, options: argparse.Namespace) -> None:
        self._model, self._options = model, options
        self._known: dict[Any, Tensor] = {}

    def count(self, one: Benchmark) -> tuple[Counted, Examples]:
        """Count the correct predictions of a set; with wrong and right samples for the report."""
        outcomes = Outcomes()
        counted = self._count(one, outcomes)
        return counted, outcomes.gathered()

    def _count(self, one: Benchmark, outcomes: Outcomes) -> Counted:
        options = self._options
        classifier = ZeroShotClassifier(self._model, self._weights(one))
        with self._explained():
            if one.name == OWN:
                return evaluate_own_data(
                    classifier, one.samples, options, num_classes=len(one.names),
                    skip_unreadable=options.skip_unreadable, receive=outcomes.add,
                )  # fmt: skip
            # of a part of the names, the confusion would not have the labels as its rows
            small = one.columns is None and len(one.names) <= MOST_CLASSES
            return count(
                classifier, one.samples, {one.name: OneLabel(one.columns)},
                device=next(self._model.parameters()).device, batch_size=options.batch_size,
                workers=options.workers, progress=one.name, confusion=small,
                receive=outcomes.add if small else None,
                skip_unreadable=options.skip_unreadable,
            )  # fmt: skip

    def encode(
        self, name: str, pairs: CaptionedPictures, transform: ImageTransform
    ) -> EncodedPairs:
        """Compute the features of pictures and captions."""
        options = self._options
        with self._explained():
            return encode_pairs(
                self._model, pairs, transform, batch_size=options.batch_size,
                workers=options.workers, progress=name, skip_unreadable=options.skip_unreadable,
            )  # fmt: skip

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Name the option that leaves out what cannot be read."""
        try:
            yield
        except OSError as error:
            if self._options.skip_unreadable or isinstance(error, UnwritableError):
                raise
            raise OSError(
                f"{one_line(error)}; --skip-unreadable leaves such samples out"
            ) from error

    def _weights(self, one: Benchmark) -> Tensor:
        key = (tuple(one.names), tuple(one.templates))
        if key not in self._known:
            self._known[key] = class_features(
                self._model, one.names, one.templates, progress=f"{one.name}, texts"
            )
        return self._known[key]


def _keep(
    options: argparse.Namespace,
    results: _Results,
    opened: Opened,
    model: EvaClip,
    names: Sequence[str],
) -> None:
    """Write what there is, so that an interruption loses no complete set."""
    if distributed.rank() or options.output is None:
        return
    more = entries_of(results.scores, results.retrieval)
    for name, value in results.class_means.items():
        more["sets"][name]["mean_per_class"] = value
    done = {*results.scores, *results.retrieval}
    write_results(
        options.output,
        settings_of(options, image_size=model.image_size),
        results.scores,
        unit="samples",
        extra=more["sets"],
        more={
            **summary(results.scores),
            "retrieval": more["retrieval"],
            "left_out": list(results.left_out),
            "missing": opened.missing,
            "not_evaluated": [name for name in names if name not in done],
        },
    )
