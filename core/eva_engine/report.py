"""What a run says of itself: opening lines, closing lines, its page."""

import argparse
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from eva_backbone.checkpoints.run_folders import (
    CONFIG,
    describe_weights,
    is_average,
    weights_of_run,
)
from eva_data.files import write_text
from eva_engine import distributed
from eva_engine.config import MESSAGES, METRICS, RunConfig
from eva_engine.evaluation.classification_report import (
    TITLES,
    echo_result,
    score_table,
    table,
    warn_of_left_out,
    write_results,
)
from eva_engine.evaluation.counting import Score
from eva_engine.run_log import Size
from eva_report.content import Curve, Curves, Link, NextStep, Report, ScoreRow, ScoreTable, Section
from eva_report.first_batch import first_batch
from eva_report.page import NAME, report_name, try_report
from eva_report.sheets import Tile
from eva_report.terminal import closing_lines, counted, opening_lines, show
from eva_runs.commands import echo
from eva_runs.output_folder import read_log
from eva_runs.record import record_start, run_facts

logger = logging.getLogger(__name__)

_VAL, _EMA, _RATE = "val_", "ema_", "learning rate"
_FILES = ("results.json", "config.json", METRICS, "log.txt")
LOSS = "Mean of what the training minimises, on the validation data; lower is better."


class Evaluation(NamedTuple):
    """Results of the weights, or of their moving average, after a step (from 1)."""

    step: int
    average: bool
    results: Mapping[str, float]

    @property
    def title(self) -> str:
        """Title of its column."""
        return f"step {self.step:,}" + (", moving average" if self.average else "")


def evaluations_of(folder: Path) -> list[Evaluation]:
    """Read all evaluations off the log, in order; of two in a step, the average is second."""
    evaluations = []
    for line in read_log(folder / METRICS):
        plain, averaged = dict[str, float](), dict[str, float]()
        for name, value in line.items():
            if name.startswith(f"{_VAL}{_EMA}") and value is not None:
                averaged[name.removeprefix(f"{_VAL}{_EMA}")] = float(value)
            elif name.startswith(_VAL) and value is not None:
                plain[name.removeprefix(_VAL)] = float(value)
        step = int(line["step"]) + 1
        evaluations += [
            Evaluation(step, results is averaged, results)
            for results in (plain, averaged)
            if results
        ]
    return evaluations


def curves(folder: Path) -> list[Section]:
    """Draw the log of a training in its folder: loss, results of evaluations, learning rate."""
    steps: dict[str, list[tuple[float, float]]] = {}
    for line in read_log(folder / METRICS):
        for name, value in line.items():
            if isinstance(value, int | float) and name not in ("step", "samples", "epoch"):
                steps.setdefault(name, []).append((line["step"] + 1.0, float(value)))
    losses: list[str] = [name for name in ("loss", "val_loss", "val_ema_loss") if name in steps]
    others = [name for name in steps if name.startswith(_VAL) and name not in losses]
    trained = [name for name in steps if name not in _NOT_MEASURED and not name.startswith(_VAL)]
    shares = [name for name in trained if all(0 <= y <= 1 for _, y in steps[name])]
    groups = [("Loss", "loss", losses), ("Validation", "result", others)]
    groups += [("Training", "share", shares)]
    groups += [
        (_legend(name).capitalize(), "value", [name]) for name in trained if name not in shares
    ]
    groups += [("Learning rate", _RATE, ["lr"] if "lr" in steps else [])]
    drawn = {name: Curve(name=_legend(name), points=points) for name, points in steps.items()}
    return [
        Curves(title=title, x_label="step", y_label=label, curves=[drawn[name] for name in names])
        for title, label, names in groups
        if names
    ]


_KNOWN = ("output", "device", "processes", "workers", "weights", "train", "val", "data")
_NOT_MEASURED = (
    *("loss", "lr", "grad_norm", "loss_scale", "skipped", "bad_samples", "samples_per_second"),
    *("eta_seconds", "memory_gib", "model_tflops", "model_flops_use"),
)


def _legend(name: str) -> str:
    if not name.startswith(_VAL):
        return {"loss": "training loss", "lr": _RATE}.get(name, name.replace("_", " "))
    average = ", moving average" if name.startswith(f"{_VAL}{_EMA}") else ""
    plain = name.removeprefix(_VAL).removeprefix(_EMA).replace("_", " ")
    return f"validation {plain}" if plain == "loss" and not average else plain + average


def announce(task: str, *, weights: str, data: Sequence[tuple[str, str]]) -> None:
    """Say on the main process's terminal what an evaluation is about to do, on which data."""
    if distributed.rank() == 0:
        lines = (
            description if use == "data" else f"{use}: {description}" for use, description in data
        )
        show(task, f"weights  {describe_weights(weights)}", *(f"data     {line}" for line in lines))


def evaluation_page(
    folder: Path,
    *,
    task: str,
    weights: str,
    data: Sequence[tuple[str, str]],
    settings: Mapping[str, Any],
    device: str,
    summary: str,
    sections: Sequence[Section],
    links: Sequence[str],
    next_steps: Sequence[NextStep] = (),
) -> Report:
    """Make the page of an evaluation.

    The summary has the score that counts; `data` are uses and descriptions of the datasets,
    `settings` as the page shows them, and `links` names of files of the folder.
    """
    how = run_facts(
        folder, "evaluation", seed=None, device=device, processes=distributed.world_size()
    )
    shown = [(name, str(value)) for name, value in settings.items()]
    return Report(
        title=f"{task}: evaluation of {Path(weights).name}",
        summary=summary,
        facts=[*how, ("weights", describe_weights(weights)), *data, *shown],
        sections=sections,
        links=[Link(title=name, path=Path(name)) for name in ("results.json", *links)],
        next_steps=next_steps,
    )


def report_evaluation(
    options: argparse.Namespace,
    scores: Mapping[str, Score],
    *,
    began: float,
    settings: Mapping[str, Any],
    unit: str = "images",
    description: str = "",
    extra: Mapping[str, Mapping[str, float]] | None = None,
    more: Mapping[str, Any] | None = None,
    left_out: Sequence[str] | None = None,
    sections: Callable[[], Sequence[Section]] = tuple,
    next_steps: Sequence[NextStep] = (),
    **page: Any,
) -> None:
    """Write and say the results of a classifier, set or method -> score; on the main process.

    `options` have `weights`, and the folder of the results as `output`, or None; the evaluation
    `began` by `time.monotonic`. The `settings` are for `results.json` and the page, `description`
    replaces the table of scores on the terminal, `extra` has further numbers of sets by the keys of
    `TITLES`, and `more` further entries of `results.json`. `left_out` says why samples could not be
    read; None where that is said elsewhere. For `page` see `evaluation_page`.
    """
    shown = {
        name: {TITLES[key]: value for key, value in values.items()}
        for name, values in (extra or {}).items()
    }

    def make() -> Report:
        first, score = next(iter(scores.items()))
        return evaluation_page(
            options.output,
            weights=options.weights,
            settings={k.replace("_", " "): v for k, v in settings.items() if k not in _KNOWN},
            summary=f"top1 {score.top1:.2f} % of {score.samples:,} {unit} ({first}).",
            sections=[score_table(scores, unit, shown), *sections()],
            links=("per_class.csv", "confusion.png", "videos.jsonl"),
            next_steps=next_steps,
            **page,
        )

    file = None
    if options.output is not None:
        if left_out is not None:
            more = {**(more or {}), "left_out": list(left_out)}
        written = write_results(options.output, settings, scores, unit=unit, extra=extra, more=more)
        echo(f"wrote {written}")
        file = try_report(options.output, make, name=report_name(options.output, "evaluation"))
    description = description or table(scores, unit=unit, extra=shown)
    echo_result(description, began=began, report=file, next_steps=next_steps)
    warn_of_left_out(left_out or (), unit=unit)


@dataclass(frozen=True, kw_only=True)
class Presentation:
    """What a project says of its run; without one, a run says what the engine knows."""

    task: str  # "Classification"
    recipe: str = ""  # its name; a run without one is called by its folder
    what: str = ""  # that is trained: "eva_debug at 48 px"
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
        self._says, self._run, self._config, self._size = presentation, run, config, size
        self._length = f"{counted(size.steps, 'step')} of {size.batch} samples"
        self._metric = run.best_metric or next(iter(presentation.meanings), "loss")
        self._recipe = presentation.recipe or run.output.name
        self._began = time.monotonic()

    def open(self, start_step: int, checkpoint: Path | None) -> None:
        """Record the start after some steps and the recipe, and say what is about to be done."""
        run, says, size = self._run, self._says, self._size
        record_start(run.output, "training", log=METRICS, continues=start_step > 0)
        write_text(run.output / CONFIG, json.dumps(self._config, indent=2))
        where = f"{size.processes} x " * (size.processes > 1) + size.device.type
        model = f" {says.what}," if says.what else ""
        epochs = counted(run.epochs, "epoch")
        show(
            *opening_lines(
                task=f"train {self._recipe}:{model} {self._length} ({epochs}) on {where}",
                weights=str(checkpoint) if checkpoint else describe_weights(says.weights),
                data=[f"{use}: {description}" for use, description in says.data],
                output=run.output,
                more=[MESSAGES.resumed(start_step, size.steps, checkpoint)] if checkpoint else (),
            )
        )

    def close(self, *, worked: bool) -> None:
        """Write the report, unless this start did nothing, and say what came out."""
        try:
            self._close(worked=worked)
        except Exception as error:  # whatever it is: the run has succeeded
            logger.warning("the run is done; its results cannot be said: %s", error)
            logger.debug("no report", exc_info=True)

    def _close(self, *, worked: bool) -> None:
        folder, metric = self._run.output, self._metric
        next_steps = list(self._says.next_steps(folder))
        evaluations = evaluations_of(folder)
        scored = [evaluation for evaluation in evaluations if metric in evaluation.results]
        sign = -1 if metric == "loss" else 1
        best = max(scored, key=lambda evaluation: sign * evaluation.results[metric], default=None)
        ends = [
            evaluation
            for evaluation in evaluations
            if evaluation.step == evaluations[-1].step and evaluation != best
        ]
        shown = [best, *ends] if best else []
        page: Path | None = folder / NAME
        if worked or not (folder / NAME).is_file():
            page = try_report(folder, lambda: self._report(shown, next_steps))
        show(
            *closing_lines(
                scores="\n".join(
                    f"{'last' if position else 'best'}     {self._written(evaluation)}"
                    for position, evaluation in enumerate(shown)
                ),
                duration=time.monotonic() - self._began,
                weights=weights_of_run(folder),
                report=page,
                next_command=next_steps[0].command if next_steps else None,
            )
        )

    def _names(self, results: Iterable[str]) -> list[str]:
        """Put names of results in the order of the project's meanings."""
        return sorted(results, key=lambda name: [*self._says.meanings, name].index(name))

    def _written(self, evaluation: Evaluation) -> str:
        shown = [
            f"{name} {evaluation.results[name]:.4g}" for name in self._names(evaluation.results)
        ]
        return f"{', '.join(shown)} ({evaluation.title})"

    def _report(self, shown: Sequence[Evaluation], next_steps: Sequence[NextStep]) -> Report:
        """Make the page; `shown` has the best evaluation, and the last ones if others."""
        folder, says, metric = self._run.output, self._says, self._metric
        weights = weights_of_run(folder)
        average = " (moving average)" if is_average(weights) else ""
        relative = weights.relative_to(folder)
        score = f"; {metric} {shown[0].results[metric]:.4g} after {shown[0].title}" if shown else ""
        how = run_facts(
            folder,
            "training",
            seed=self._run.seed,
            device=self._size.device.type,
            processes=self._size.processes,
        )
        return Report(
            title=f"{says.task}: training of {self._recipe}",
            summary=f"{self._length}{score}.",
            facts=[
                *how,
                ("recipe", self._recipe),
                ("began from", describe_weights(says.weights)),
                *says.data,
                ("length", self._length),
                *_settings(self._config),
            ],
            sections=[
                *first_batch(folder),
                *([self._score_table(shown)] if shown else []),
                *curves(folder),
                *says.sections(),
            ],
            links=[
                Link(title=f"weights{average}: {relative}", path=relative),
                *(Link(title=name, path=Path(name)) for name in _FILES),
            ],
            next_steps=next_steps,
        )

    def _score_table(self, shown: Sequence[Evaluation]) -> ScoreTable:
        best, *last = shown
        names = self._names(
            dict.fromkeys(name for evaluation in shown for name in evaluation.results)
        )
        meanings = {"loss": LOSS, **self._says.meanings}
        values = {name: [evaluation.results.get(name) for evaluation in shown] for name in names}
        rows = [
            ScoreRow(name=name, values=values[name], meaning=meanings.get(name, ""))
            for name in names
        ]
        description = f"On the validation data. The best is that by {self._metric}: {best.title}."
        if last:
            both = ", with and without moving average" * any(
                evaluation.average for evaluation in shown
            )
            description += f" The last: step {last[0].step:,}{both}."
        percent = any(
            abs(value) > 2 for evaluation in shown for value in evaluation.results.values()
        )
        columns = [
            "best",
            *("last average" if evaluation.average else "last" for evaluation in last),
        ]
        digits = 2 if percent else 4
        return ScoreTable(
            title="Scores", columns=columns, rows=rows, text=description, digits=digits
        )


def _settings(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name the settings that people ask for first."""
    run, optimizer = config["run"], config["optimizer"]
    values = {
        "epochs": run["epochs"],
        "precision": run["precision"],
        "learning rate": optimizer["lr"],
        "layer decay": optimizer["layer_decay"],
        "moving average": run["ema_decay"],
    }
    return [
        (name, f"{value:g}" if isinstance(value, float) else str(value))
        for name, value in values.items()
        if value
    ]
