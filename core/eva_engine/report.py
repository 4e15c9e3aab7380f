"""What a training says of itself: its first and last lines, and its page."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from eva_backbone.checkpoints.run_folders import (
    CONFIG,
    best_of_engine,
    describe_weights,
    evaluation_of_best,
    is_average,
    weights_of_run,
)
from eva_data.saving import write_text
from eva_engine.checkpoints.files import rank_results
from eva_engine.config import MESSAGES, METRICS, RunConfig
from eva_engine.run_log import Size
from eva_report.content import (
    Link,
    NextStep,
    Report,
    ScoreRow,
    ScoreTable,
    Section,
    score_name,
)
from eva_report.curves import plot_log
from eva_report.first_batch import first_batch
from eva_report.page import NAME, close_run, is_current
from eva_report.sheets import Tile
from eva_report.terminal import (
    counted,
    opening_lines,
    show,
)
from eva_runs.record import record_start, run_facts
from eva_runs.run_logs import read_log

logger = logging.getLogger(__name__)

LOSS = "Mean training objective on the validation data; lower is better."
_VAL, _EMA = "val_", "ema_"
_FILES = ("results.json", "config.json", METRICS, "log.txt")
_LEGENDS = {"loss": "training loss", "lr": "learning rate", "accuracy": "training accuracy"}
_FACTS = {"train": "training data", "val": "validation data"}
_NOT_DRAWN = {
    *("step", "samples", "epoch", "grad_norm", "loss_scale", "skipped", "bad_samples"),
    *("samples_per_second", "eta_seconds", "memory_gib", "model_tflops"),
}
_SETTINGS = {  # those that people ask for first
    "epochs": ("run", "epochs"),
    "precision": ("run", "precision"),
    "learning rate": ("optimizer", "lr"),
    "layer decay": ("optimizer", "layer_decay"),
    "moving average": ("run", "ema_decay"),
}


class Evaluation(NamedTuple):
    """Results of the weights, or of their moving average, after a step (from 1)."""

    step: int
    average: bool
    results: Mapping[str, float]

    @property
    def title(self) -> str:
        """Title of its column."""
        return f"step {self.step:,}" + (", moving average" if self.average else "")


def evaluations_of(lines: Iterable[Mapping[str, Any]]) -> list[Evaluation]:
    """Read all evaluations off a log, in order; of two in a step, the average is second."""
    evaluations = []
    for line in lines:
        results: dict[bool, dict[str, float]] = {False: {}, True: {}}  # of the average or not
        for name, value in line.items():
            if name.startswith(_VAL) and value is not None:
                name = name.removeprefix(_VAL)
                results[name.startswith(_EMA)][name.removeprefix(_EMA)] = float(value)
        step = int(line["step"]) + 1
        evaluations += [Evaluation(step, *kind) for kind in results.items() if kind[1]]
    return evaluations


def _of_best_weights(folder: Path) -> Evaluation | None:
    """Read the evaluation of the weights that a run's folder stands for, if it kept the best."""
    file = best_of_engine(folder)
    if file is None:
        return None
    entry = evaluation_of_best(folder, file)
    finite = {name: value for name, value in entry["results"].items() if math.isfinite(value)}
    return Evaluation(entry["step"] + 1, is_average(file), finite)


def curves(lines: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Plot the log of a training: loss, results of evaluations, metrics, learning rate."""
    names = dict.fromkeys(
        name
        for line in lines
        for name, value in line.items()
        if isinstance(value, int | float) and name not in _NOT_DRAWN
    )
    losses: list[str] = [name for name in ("loss", "val_loss", "val_ema_loss") if name in names]
    results = [name for name in names if name.startswith(_VAL) and name not in losses]
    alone = [name for name in names if name not in {*losses, *results}]
    groups = {"Loss": losses, "Validation": results}
    groups |= {_legend(name).capitalize(): [name] for name in alone}
    return [
        plot_log(
            title,
            lines,
            {name: _legend(name) for name in group},
            step=lambda line: line["step"] + 1,
            x_label="step",
            y_label=title.lower(),
        )
        for title, group in groups.items()
        if group
    ]


def _legend(name: str) -> str:
    average = ", moving average" if name.startswith(_VAL + _EMA) else ""
    kind = "validation " if name.startswith(_VAL) else ""
    metric = score_name(name.removeprefix(_VAL).removeprefix(_EMA))
    return _LEGENDS.get(name, f"{kind}{metric}{average}")


@dataclass(frozen=True, kw_only=True)
class Presentation:
    """What a project says of its run; without one, a run says what the engine knows."""

    task: str  # "Classification"
    recipe: str = ""  # its name; a run without one is called by its folder
    model: str = ""  # that is trained: "eva_debug at 48 px"
    weights: str = ""  # that it begins from, as they were named; empty for random ones
    data: Sequence[tuple[str, str]] = ()  # ("train", "1,425 images, 10 classes (output/train)")
    # of the results of `eva_engine.loop.TrainingRun`, the main one first
    meanings: Mapping[str, str] = field(default_factory=dict)
    # draws samples of the run's first batch, on the device, with the random state of its step
    first_batch: Callable[[Any], Iterable[Tile]] = lambda batch: ()
    # called on the main process after the last evaluation of this start
    sections: Callable[[], Sequence[Section]] = tuple
    # commands to run next in the run's folder; the terminal names the first one
    next_steps: Callable[[Path], Sequence[NextStep]] = lambda folder: ()


class Presenter:
    """Speaks for the main process of a run."""

    def __init__(
        self, presentation: Presentation, run: RunConfig, config: Mapping[str, Any], size: Size
    ) -> None:
        self._presentation, self._run, self._config, self._size = presentation, run, config, size
        self._length = f"{counted(size.steps, 'step')} of {size.batch} samples"
        self._metric = run.best_metric or next(iter(presentation.meanings), "loss")
        self._recipe = presentation.recipe or run.output.name
        self._began = time.monotonic()

    def open(self, start_step: int, checkpoint: Path | None) -> None:
        """Record the start after some steps and the recipe, and say what is about to be done."""
        run, size, presentation = self._run, self._size, self._presentation
        record_start(run.output, "training", continues=start_step > 0)
        write_text(run.output / CONFIG, json.dumps(self._config, indent=2))
        where = f"{size.processes} x {size.device.type}" if size.processes > 1 else size.device.type
        model = f" {presentation.model}," if presentation.model else ""
        epochs = counted(run.epochs, "epoch")
        show(
            *opening_lines(
                task=f"train {self._recipe}:{model} {self._length} ({epochs}) on {where}",
                weights=str(checkpoint) if checkpoint else describe_weights(presentation.weights),
                data=[f"{use}: {description}" for use, description in presentation.data],
                output=run.output,
                more=[MESSAGES.resumed(start_step, size.steps, checkpoint)] if checkpoint else (),
            )
        )

    def lacks_page(self) -> bool:
        """Return whether a finished run has no page of its end, for whose tables it evaluates."""
        return not is_current(self._run.output / NAME)

    def close(self, *, worked: bool) -> None:
        """Write the report, unless this start did nothing, and say what came out.

        The run is complete: an error of it is a warning.
        """
        folder = self._run.output
        try:
            next_steps = list(self._presentation.next_steps(folder))
            lines = [*read_log(folder / METRICS)]
            shown = self._best_and_last(evaluations_of(lines))
            close_run(
                folder,
                "training",
                lambda: self._report(lines, shown, next_steps),
                began=self._began if worked else None,
                scores=self._describe(shown),
                weights=weights_of_run(folder),
                next_command=lambda: next_steps[0].command if next_steps else None,
            )
        except Exception as error:  # whatever it is
            logger.warning("nothing is said of %s: %s", folder, error)
            logger.debug("no closing lines", exc_info=True)

    def _describe(self, shown: Sequence[Evaluation]) -> str:
        """Write a line for the best evaluation and for each of the last, if others."""
        scores = []
        for title, evaluation in zip(("best", *("last" for _ in shown)), shown, strict=False):
            results = evaluation.results
            values = ", ".join(
                f"{score_name(name)} {results[name]:.4g}" for name in self._in_order(results)
            )
            scores.append(f"{title}     {values} ({evaluation.title})")
        return "\n".join(scores)

    def _best_and_last(self, evaluations: Sequence[Evaluation]) -> list[Evaluation]:
        metric = self._metric
        scored = [evaluation for evaluation in evaluations if metric in evaluation.results]
        if not scored:
            return []
        best = _of_best_weights(self._run.output) or max(
            reversed(scored), key=lambda evaluation: rank_results(evaluation.results, metric)
        )
        last = [e for e in evaluations if e.step == evaluations[-1].step and e != best]
        return [best, *last]

    def _in_order(self, results: Iterable[str]) -> list[str]:
        """Put names of results in the order of the project's meanings."""
        return sorted(results, key=lambda name: [*self._presentation.meanings, name].index(name))

    def _report(
        self,
        lines: Sequence[Mapping[str, Any]],
        shown: Sequence[Evaluation],
        next_steps: Sequence[NextStep],
    ) -> Report:
        """Make the page; `shown` has the best evaluation, and the last ones if others."""
        folder, metric, presentation = self._run.output, self._metric, self._presentation
        weights = weights_of_run(folder)
        average = " (moving average)" if is_average(weights) else ""
        relative = weights.relative_to(folder)
        score = (
            f"; {score_name(metric)} {shown[0].results[metric]:.4g} after {shown[0].title}"
            if shown
            else ""
        )
        how = run_facts(
            folder,
            "training",
            seed=self._run.seed,
            device=self._size.device.type,
            processes=self._size.processes,
        )
        settings = {name: self._config[part][key] for name, (part, key) in _SETTINGS.items()}
        return Report(
            title=f"{presentation.task}: training of {self._recipe}",
            summary=f"{self._length}{score}.",
            facts=[
                *how,
                ("recipe", self._recipe),
                ("began from", describe_weights(presentation.weights)),
                *((_FACTS.get(name, name), value) for name, value in presentation.data),
                ("length", self._length),
                *((name, str(value)) for name, value in settings.items() if value),
            ],
            sections=[
                *first_batch(folder),
                *([self._score_table(shown)] if shown else []),
                *curves(lines),
                *presentation.sections(),
            ],
            links=[
                Link(title=f"weights{average}: {relative}", path=relative),
                *(Link(title=name, path=Path(name)) for name in _FILES),
            ],
            next_steps=next_steps,
        )

    def _score_table(self, shown: Sequence[Evaluation]) -> ScoreTable:
        meanings = {"loss": LOSS, **self._presentation.meanings}
        names = dict.fromkeys(name for evaluation in shown for name in evaluation.results)
        rows = [
            ScoreRow(
                name=score_name(name),
                values=[evaluation.results.get(name) for evaluation in shown],
                meaning=meanings.get(name, ""),
            )
            for name in self._in_order(names)
        ]
        percent = any(abs(value) > 2 for row in rows for value in row.values if value is not None)
        best, *last = (evaluation.title for evaluation in shown)
        return ScoreTable(
            title="Scores",
            columns=[f"best: {best}", *(f"last: {title}" for title in last)],
            rows=rows,
            text=f"On the validation data; best by {score_name(self._metric)}.",
            digits=2 if percent else 4,
        )
