"""Accuracy of a classifier during its training, and what its report shows of it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

import torch
from PIL import Image
from torch import nn

from eva_engine.config import RunConfig
from eva_engine.evaluation.classification_report import MOST_CONFUSION, classification_sections
from eva_engine.evaluation.counting import Counted, LabelledSamples, count
from eva_engine.evaluation.left_out import LeftOutSamples
from eva_engine.evaluation.outcomes import Outcome, Outcomes
from eva_engine.evaluation.rules import OneLabel
from eva_report.content import Section

T = TypeVar("T")
Examples = tuple[list[Outcome], list[Outcome]]


class BestEvaluation(Generic[T]):
    """Keeps what a report shows of the best evaluation, whose scores head the report.

    A run is evaluated several times, at last with the moving average, which may be the worst.

    Args:
        metric: Name of the result that decides; of `loss` the smallest is best.

    Attributes:
        kept: What was offered with the best results since the run was started; None before.
    """

    def __init__(self, metric: str) -> None:
        self.kept: T | None = None
        self._metric, self._results = metric, dict[str, float]()
        self._value = -math.inf

    def offer(self, results: Mapping[str, float], found: T) -> None:
        """Keep something if its results are better than those before.

        Args:
            results: Results of an evaluation, which has the metric.
            found: What to keep of it.
        """
        value = results[self._metric] * (-1 if self._metric == "loss" else 1)
        better = math.isfinite(value) and not value <= self._value  # than NaN, too
        if self.kept is None or better:
            self._value, self._results, self.kept = value, dict(results), found

    def named(self, sections: Sequence[Section]) -> list[Section]:
        """Say in the texts of sections to which evaluation they belong.

        Args:
            sections: Sections on what was kept.
        """
        scores = ", ".join(f"{name} {value:.4g}" for name, value in self._results.items())
        of = f"Of the best evaluation by {self._metric} since the last start: {scores}."
        return [replace(one, text=f"{of} {one.text}".strip()) for one in sections]


class Validation:
    """Accuracy on validation samples during a run, each counted once.

    Args:
        samples: Inputs and labels.
        run: Batch size, workers, and how many samples may be unreadable.
        device: Device of the model.
        skip_unreadable: Leave samples out that cannot be read, at most `run.max_bad_samples`; the
            log names them. Otherwise one ends the run.

    Attributes:
        results: Names of the results.
        best: Counts of the best evaluation by `run.best_metric`, or else by `top1`, with the
            confusion of at most `MOST_CONFUSION` classes, and its wrong and right samples, see
            `Outcomes.gathered`.
    """

    results = ("loss", "top1", "top5")

    def __init__(
        self,
        samples: LabelledSamples,
        run: RunConfig,
        device: torch.device,
        *,
        skip_unreadable: bool = False,
    ) -> None:
        self._samples, self._run, self._device = samples, run, device
        self.best = BestEvaluation[tuple[Counted, Examples]](run.best_metric or "top1")
        self._skip, self._left_out = skip_unreadable, LeftOutSamples(run.max_bad_samples)

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Compute loss, and accuracies in percent; called on all processes.

        Args:
            model: The model in evaluation mode.

        Returns:
            `loss`, `top1` and `top5`.

        Raises:
            TooManyBadSamplesError: If more samples than allowed cannot be read.
        """
        outcomes = Outcomes()
        counted = count(
            model,
            self._samples,
            {"val": OneLabel()},
            device=self._device,
            batch_size=self._run.batch_size,
            workers=self._run.workers,
            skip_unreadable=self._skip,
            confusion=len(self._samples.classes) <= MOST_CONFUSION,
            receive=outcomes.add,
        )
        examples = outcomes.gathered()
        self._left_out.mention(counted.left_out, of=len(self._samples))
        score = counted.scores["val"]
        results = {name: getattr(score, name) for name in self.results}
        self.best.offer(results, (counted, examples))
        return results

    def sections(
        self, picture: Callable[[int], Image.Image], *, unit: str = "images"
    ) -> list[Section]:
        """Make the sections of a report on the best evaluation.

        Args:
            picture: As for `classification_sections`.
            unit: Name of the samples.

        Returns:
            The sections; none before an evaluation.
        """
        if self.best.kept is None:
            return []
        counted, examples = self.best.kept
        return self.best.named(
            classification_sections(
                counted, self._samples.classes, examples=examples, picture=picture,
                name=self._samples.sample_id, unit=unit,
            )
        )  # fmt: skip
