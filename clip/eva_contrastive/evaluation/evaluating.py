"""Evaluation of a CLIP on sets of classes and on retrieval, one by one, each kept at once."""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eva_contrastive.evaluation.benchmarks import OWN, Benchmark, Opened, open_all
from eva_contrastive.evaluation.retrieval import Retrieval, encode_pairs, retrieval_scores
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
from eva_data.captions.sources import CaptionedImages
from eva_data.files import UnwritableError
from eva_engine import distributed
from eva_engine.distributed import choose_dtype
from eva_engine.evaluation.classification_report import complain_of_left_out, say_end, write_results
from eva_engine.evaluation.counting import OneLabel, Outcomes, Score, count
from eva_engine.evaluation.own_data import evaluate_own_data, fill_from_training, settings_of
from eva_engine.report import announce
from eva_report.content import Section, Step
from eva_report.page import report_name, try_report
from eva_runs.errors import one_line


def evaluate(options: argparse.Namespace, device: torch.device) -> None:
    """Evaluate a CLIP on the sets that the options of `clip/evaluate_zero_shot.py` name."""
    began = time.monotonic()
    options.image_size, options.mean, options.std = find_preparation(
        options.weights, image_size=options.image_size, mean=options.mean, std=options.std
    )
    options.weights = str(open_clip_weights(Path(options.weights)) or options.weights)
    model = load_eva_clip(
        options.weights, image_size=options.image_size,
        dtype=choose_dtype(options.precision, device),
    ).to(device)  # fmt: skip
    fill_from_training(options)
    opened = open_all(options, image_size=model.image_size)
    data = describe(opened)
    title = f"evaluate a CLIP at {model.image_size} px on {device.type}"
    announce(title, weights=options.weights, data=data)
    evaluation = _Evaluation(model, options, opened, device)
    try:
        for one in opened.benchmarks:
            evaluation.count(one)
        for name, pairs in opened.pairs.items():
            evaluation.retrieve(name, pairs)
    except OSError as error:
        if options.skip_unreadable or isinstance(error, UnwritableError):
            raise
        fix = "--skip-unreadable leaves such samples out"
        raise OSError(f"{one_line(error)}; {fix}") from error
    if distributed.rank() == 0:
        evaluation.report(data, began)


class _Evaluation:
    """Evaluates sets, and keeps the results of each at once; features of names are reused."""

    def __init__(
        self, model: EvaClip, options: argparse.Namespace, opened: Opened, device: torch.device
    ) -> None:
        self._model, self._options, self._opened, self._device = model, options, opened, device
        self._features: dict[Any, Tensor] = {}  # of classes, by names and sentences
        self._scores: dict[str, Score] = {}
        self._class_means: dict[str, float] = {}
        self._retrieval: dict[str, Retrieval] = {}
        self._left_out: list[str] = []
        self._sections: list[Callable[[], list[Section]]] = []

    def count(self, one: Benchmark) -> None:
        """Count the correct predictions of a set, with wrong and right samples for the report."""
        options, outcomes = self._options, Outcomes()
        key = (tuple(one.names), tuple(one.templates))
        if key not in self._features:
            self._features[key] = class_features(
                self._model, one.names, one.templates, progress=f"{one.name}, texts"
            )
        classifier = ZeroShotClassifier(self._model, self._features[key])
        # of a part of the names, the confusion would not have the labels as its rows
        small = one.columns is None and len(one.names) <= MOST_CLASSES
        more: dict[str, Any] = {"skip_unreadable": options.skip_unreadable}
        more["receive"] = outcomes.add if small or one.name == OWN else None
        if one.name == OWN:
            counted = evaluate_own_data(
                classifier, one.samples, options, num_classes=len(one.names), **more
            )
        else:
            counted = count(
                classifier, one.samples, {one.name: OneLabel(one.columns)}, device=self._device,
                batch_size=options.batch_size, workers=options.workers, progress=one.name,
                confusion=small, **more,
            )  # fmt: skip
        examples = outcomes.gathered()
        (self._scores[one.name],) = counted.scores.values()
        if counted.confusion is not None:
            self._class_means[one.name] = counted.mean_per_class
            self._sections.append(partial(
                class_sections, one.samples, counted, one.names, examples, of=f" ({one.name})",
                unit="samples", complete_in="per_class.csv" if one.name == OWN else "",
            ))  # fmt: skip
        self._left_out += counted.left_out
        self._keep()

    def retrieve(self, name: str, pairs: CaptionedImages) -> None:
        """Score the retrieval among pairs."""
        options = self._options
        encoded = encode_pairs(
            self._model, pairs, self._opened.transform, batch_size=options.batch_size,
            workers=options.workers, progress=name, skip_unreadable=options.skip_unreadable,
        )  # fmt: skip
        self._retrieval[name] = retrieval_scores(encoded.images, encoded.texts, encoded.owners)
        self._left_out += encoded.left_out
        self._sections.append(partial(retrieval_examples, encoded, pairs, name=name))
        self._keep()

    def _keep(self) -> None:
        """Write the results so far, so that an interruption loses no complete set."""
        if distributed.rank() or self._options.output is None:
            return
        sets, retrieval = entries_of(self._scores, self._retrieval)
        for name, value in self._class_means.items():
            sets[name]["mean_per_class"] = value
        names = [*(one.name for one in self._opened.benchmarks), *self._opened.pairs]
        done = {*self._scores, *self._retrieval}
        more = {
            **summary(self._scores), "retrieval": retrieval, "left_out": list(self._left_out),
            "not_evaluated": [name for name in names if name not in done],
        }  # fmt: skip
        settings = settings_of(self._options, image_size=self._model.image_size)
        write_results(
            self._options.output, settings, self._scores, unit="samples", extra=sets, more=more
        )

    def report(self, data: list[tuple[str, str]], began: float) -> None:
        """Write tables and page, and say the end."""
        options, page, next_steps = self._options, None, list[Step]()
        if options.output is not None:
            write_tables(options.output, self._scores, self._retrieval)
            page = try_report(
                options.output,
                lambda: evaluation_report(
                    options, self._scores, self._retrieval, data=data, device=self._device.type,
                    class_means=self._class_means, sections=self._sections,
                ),
                name=report_name(options.output, "evaluation"),
            )  # fmt: skip
            next_steps = [search_step(options.weights, options.output)]
        text = text_table(self._scores, self._retrieval, class_means=self._class_means)
        say_end(text, began=began, report=page, next_steps=next_steps)
        complain_of_left_out(self._left_out, unit="samples")
