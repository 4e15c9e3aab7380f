"""What a run says of itself: opening lines, closing lines and its report."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eva_backbone.checkpoints.runs.engine import CONFIG
from eva_backbone.checkpoints.runs.weights import named_weights, weights_of_run
from eva_data.files import write_text
from eva_engine.config import SAYS, RunConfig
from eva_engine.evaluation.report import TrainedRun, training_report
from eva_engine.run_log import METRICS
from eva_report.content import Section, Step
from eva_report.page import NAME, try_report
from eva_report.terminal import SHOWN, closing_lines, opening_lines
from eva_runs.record import facts, record_start

logger = logging.getLogger(__name__)

_recipe: ContextVar[str] = ContextVar("recipe", default="")


@contextmanager
def run_of(recipe: str) -> Iterator[None]:
    """Let the runs of a block be called by their recipe, not by their folder.

    Args:
        recipe: Its name.
    """
    token = _recipe.set(recipe)
    try:
        yield
    finally:
        _recipe.reset(token)


def _nothing() -> Sequence[Section]:
    return ()


def _no_steps(folder: Path) -> Sequence[Step]:
    del folder
    return ()


@dataclass(frozen=True, kw_only=True)
class Presentation:
    """What a project says of its run; without one, a run says what the engine knows.

    Attributes:
        task: Name of the task: "Classification".
        what: What is trained, in a few words: "eva_debug at 48 px".
        weights: Weights that it begins from, as they were named; empty for random ones.
        data: Use and description with counts of each data set: ("train", "1,425 images, 10 classes
            (output/digits/train)").
        meanings: Name of a result of the evaluation -> what it measures; names as in `results` of
            `eva_engine.loop.TrainingRun`, the main one first.
        sections: Function that makes the project's sections of the report, called on the main
            process after the last evaluation of this start.
        next_steps: Function of the run's folder that gives commands to run next, the most useful
            first; it is named in the terminal.
    """

    task: str
    what: str = ""
    weights: str = ""
    data: Sequence[tuple[str, str]] = ()
    meanings: Mapping[str, str] = field(default_factory=dict)
    sections: Callable[[], Sequence[Section]] = _nothing
    next_steps: Callable[[Path], Sequence[Step]] = _no_steps


class Presenter:
    """Speaks for the main process of a run.

    Args:
        presentation: What the project says.
        run: Settings of the run.
        config: The resolved recipe.
        steps: Steps of the complete run.
        batch_size: Samples of a step, all processes together.
        device: Type of the device.
        processes: Number of processes.
    """

    def __init__(
        self,
        presentation: Presentation,
        run: RunConfig,
        config: Mapping[str, Any],
        *,
        steps: int,
        batch_size: int,
        device: str,
        processes: int,
    ) -> None:
        self._says, self._run, self._config = presentation, run, config
        self._steps, self._batch_size = steps, batch_size
        self._device, self._processes = device, processes
        self._recipe = _recipe.get() or run.output.name
        self._began = time.monotonic()

    def open(self, start_step: int, checkpoint: Path | None) -> None:
        """Record the start and the recipe, and say what is about to be done.

        Args:
            start_step: Steps that are done already.
            checkpoint: Where the run continues from; None for one that begins.
        """
        run, says = self._run, self._says
        record_start(run.output, "training", log=METRICS, continues=start_step > 0)
        write_text(run.output / CONFIG, json.dumps(self._config, indent=2))
        where = f"{self._processes} x {self._device}" if self._processes > 1 else self._device
        model = f" {says.what}," if says.what else ""
        steps, epochs = _counted(self._steps, "step"), _counted(run.epochs, "epoch")
        lines = opening_lines(
            task=f"train {self._recipe}:{model} {steps} of {self._batch_size} samples ({epochs}) "
            f"on {where}",
            weights=str(checkpoint) if checkpoint else named_weights(says.weights),
            data=[f"{use}: {text}" for use, text in says.data],
            output=run.output,
            more=[SAYS.resumed(start_step, self._steps, checkpoint)] if checkpoint else (),
        )
        for line in lines:
            logger.info("%s", line, extra=SHOWN)

    def close(self, *, worked: bool) -> None:
        """Write the report, and say what came out.

        Args:
            worked: Whether this start trained or evaluated; if not, an earlier report stays.
        """
        try:
            self._close(worked=worked)
        except Exception as error:  # whatever it is: the run has succeeded
            logger.warning("the run is done; its results cannot be said: %s", error)
            logger.debug("no report", exc_info=True)

    def _close(self, *, worked: bool) -> None:
        folder, says = self._run.output, self._says
        page: Path | None = folder / NAME
        next_steps = list(says.next_steps(folder))
        run = TrainedRun(
            folder=folder,
            title=f"{says.task}: training of {self._recipe}",
            recipe=self._recipe,
            config=self._config,
            steps=self._steps,
            batch_size=self._batch_size,
            data=says.data,
            weights=named_weights(says.weights),
            meanings=says.meanings,
            next_steps=next_steps,
        )
        if worked or not (folder / NAME).is_file():
            origin = facts(
                folder, "training", seed=self._run.seed, device=self._device,
                processes=self._processes,
            )  # fmt: skip
            page = try_report(folder, lambda: training_report(run, origin, says.sections))
        lines = closing_lines(
            scores=run.sentence(),
            duration=time.monotonic() - self._began,
            weights=weights_of_run(folder),
            report=page,
            next_command=next_steps[0].command if next_steps else None,
        )
        for line in lines:
            logger.info("%s", line, extra=SHOWN)


def _counted(number: int, unit: str) -> str:
    return f"{number:,} {unit}{'s' * (number != 1)}"
