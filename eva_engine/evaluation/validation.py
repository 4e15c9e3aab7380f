"""Accuracy of a classifier during its training, and what its report shows of it."""

from collections.abc import Callable

import torch
from PIL import Image
from torch import nn

from eva_data.reports.content import Section
from eva_engine.config import RunConfig
from eva_engine.evaluation.classification_report import MOST_CONFUSION, classification_sections
from eva_engine.evaluation.counting import Counted, LabelledSamples, count
from eva_engine.evaluation.left_out import LeftOutSamples
from eva_engine.evaluation.outcomes import Outcome, Outcomes
from eva_engine.evaluation.rules import OneLabel


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
        last: Counts of the last evaluation, with the confusion of at most `MOST_CONFUSION` classes.
        examples: Its wrong and right samples for a report, see `Outcomes.gathered`.
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
        self.last: Counted | None = None
        self.examples: tuple[list[Outcome], list[Outcome]] = ([], [])
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
        self.last, self.examples = counted, outcomes.gathered()
        self._left_out.mention(counted.left_out, of=len(self._samples))
        score = counted.scores["val"]
        return {name: getattr(score, name) for name in self.results}

    def sections(
        self, picture: Callable[[int], Image.Image], *, unit: str = "images"
    ) -> list[Section]:
        """Make the sections of a report on the last evaluation.

        Args:
            picture: As for `classification_sections`.
            unit: Name of the samples.

        Returns:
            The sections; none before an evaluation.
        """
        if self.last is None:
            return []
        return classification_sections(
            self.last, self._samples.classes, examples=self.examples, picture=picture,
            name=self._samples.sample_id, unit=unit,
        )  # fmt: skip
