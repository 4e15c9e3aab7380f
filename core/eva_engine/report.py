"""What a run says of itself: opening lines, closing lines, its page."""

import argparse
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from eva_backbone.checkpoints.run_folders import CONFIG, is_average, named_weights, weights_of_run
from eva_data.files import write_text
from eva_engine import distributed
from eva_engine.config import METRICS, SAYS, RunConfig
from eva_engine.evaluation.classification_report import (
    TITLES,
    complain_of_left_out,
    say_end,
    score_table,
    table,
    write_results,
)
from eva_engine.evaluation.counting import Score
from eva_engine.run_log import Size
from eva_report.content import Curve, Curves, Link, Report, ScoreRow, ScoreTable, Section, Step
from eva_report.first_batch import first_batch
from eva_report.page import NAME, report_name, try_report
from eva_report.sheets import Tile
from eva_report.terminal import closing_lines, counted, opening_lines, show
from eva_runs.commands import say
from eva_runs.output_folder import read_log
from eva_runs.record import facts, record_start

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
    found = []
    for line in read_log(folder / METRICS):
        plain, averaged = dict[str, float](), dict[str, float]()
        for name, value in line.items():
            if name.startswith(f"{_VAL}{_EMA}") and value is not None:
                averaged[name.removeprefix(f"{_VAL}{_EMA}")] = float(value)
            elif name.startswith(_VAL) and value is not None:
                plain[name.removeprefix(_VAL)] = float(value)
        step = int(line["step"]) + 1
        found += [Evaluation(step, one is averaged, one) for one in (plain, averaged) if one]
    return found


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
    groups += [(_legend(one).capitalize(), "value", [one]) for one in trained if one not in shares]
    groups += [("Learning rate", _RATE, ["lr"] if "lr" in steps else [])]
    drawn = {name: Curve(name=_legend(name), points=points) for name, points in steps.items()}
    return [
        Curves(title=title, x_label="step", y_label=label, curves=[drawn[one] for one in names])
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
        named = (text if use == "data" else f"{use}: {text}" for use, text in data)
        show(task, f"weights  {named_weights(weights)}", *(f"data     {text}" for text in named))


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
    next_steps: Sequence[Step] = (),
) -> Report:
    """Make the page of an evaluation.

    The summary has the score that counts; `data` are uses and descriptions of the datasets,
    `settings` as the page shows them, and `links` names of files of the folder.
    """
    how = facts(folder, "evaluation", seed=None, device=device, processes=distributed.world_size())
    shown = [(name, str(value)) for name, value in settings.items()]
    return Report(
        title=f"{task}: evaluation of {Path(weights).name}",
        summary=summary,
        facts=[*how, ("weights", named_weights(weights)), *data, *shown],
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
    text: str = "",
    extra: Mapping[str, Mapping[str, float]] | None = None,
    more: Mapping[str, Any] | None = None,
    left_out: Sequence[str] | None = None,
    sections: Callable[[], Sequence[Section]] = tuple,
    next_steps: Sequence[Step] = (),
    **page: Any,
) -> None:
    """Write and say the results of a classifier, set or method -> score; on the main process.

    `options` have `weights`, and the folder of the results as `output`, or None; the evaluation
    `began` by `time.monotonic`. The `settings` are for `results.json` and the page, `text` replaces
    the table of scores on the terminal, `extra` has further numbers of sets by the keys of
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
        say(f"wrote {written}")
        file = try_report(options.output, make, name=report_name(options.output, "evaluation"))
    text = text or table(scores, unit=unit, extra=shown)
    say_end(text, began=began, report=file, next_steps=next_steps)
    complain_of_left_out(left_out or (), unit=unit)


# name of the recipe of the runs in this context; its folder names a run without one
RECIPE: ContextVar[str] = ContextVar("recipe", default="")


@dataclass(frozen=True, kw_only=True)
class Presentation:
    """What a project says of its run; without one, a run says what the engine knows."""

    task: str  # "Classification"
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
    next_steps: Callable[[Path], Sequence[Step]] = lambda folder: ()


class Presenter:
    """Speaks for the main process of a run."""

    def __init__(
        self, presentation: Presentation, run: RunConfig, config: Mapping[str, Any], size: Size
    ) -> None:
        self._says, self._run, self._config, self._size = presentation, run, config, size
        self._length = f"{counted(size.steps, 'step')} of {size.batch} samples"
        self._metric = run.best_metric or next(iter(presentation.meanings), "loss")
        self._recipe = RECIPE.get() or run.output.name
        self._began = time.monotonic()

    def open(self, start_step: int, checkpoint: Path | None) -> None:
        """Record the start after some steps and the recipe, and say what is about to be done."""
        run, says, size = self._run, self._says, self._size
        record_start(run.output, "training", log=METRICS, continues=start_step > 0)
        write_text(run.output / CONFIG, json.dumps(self._config, indent=2))
        where = f"{size.processes} x " * (size.processes > 1) + size.device.type
        model = f" {says.what}," if says.what else ""
        epochs = counted(run.epochs, "epoch")
        show(*opening_lines(
            task=f"train {self._recipe}:{model} {self._length} ({epochs}) on {where}",
            weights=str(checkpoint) if checkpoint else named_weights(says.weights),
            data=[f"{use}: {text}" for use, text in says.data],
            output=run.output,
            more=[SAYS.resumed(start_step, size.steps, checkpoint)] if checkpoint else (),
        ))  # fmt: skip

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
        scored = [one for one in evaluations if metric in one.results]
        sign = -1 if metric == "loss" else 1
        best = max(scored, key=lambda one: sign * one.results[metric], default=None)
        ends = [one for one in evaluations if one.step == evaluations[-1].step and one != best]
        shown = [best, *ends] if best else []
        page: Path | None = folder / NAME
        if worked or not (folder / NAME).is_file():
            page = try_report(folder, lambda: self._report(shown, next_steps))
        show(*closing_lines(
            scores="\n".join(
                f"{'last' if place else 'best'}     {self._written(one)}"
                for place, one in enumerate(shown)
            ),
            duration=time.monotonic() - self._began,
            weights=weights_of_run(folder),
            report=page,
            next_command=next_steps[0].command if next_steps else None,
        ))  # fmt: skip

    def _names(self, results: Iterable[str]) -> list[str]:
        """Put names of results in the order of the project's meanings."""
        return sorted(results, key=lambda name: [*self._says.meanings, name].index(name))

    def _written(self, one: Evaluation) -> str:
        shown = [f"{name} {one.results[name]:.4g}" for name in self._names(one.results)]
        return f"{', '.join(shown)} ({one.title})"

    def _report(self, shown: Sequence[Evaluation], next_steps: Sequence[Step]) -> Report:
        """Make the page; `shown` has the best evaluation, and the last ones if others."""
        folder, says, metric = self._run.output, self._says, self._metric
        weights = weights_of_run(folder)
        average = " (moving average)" if is_average(weights) else ""
        place = weights.relative_to(folder)
        score = f"; {metric} {shown[0].results[metric]:.4g} after {shown[0].title}" if shown else ""
        how = facts(
            folder, "training", seed=self._run.seed,
            device=self._size.device.type, processes=self._size.processes,
        )  # fmt: skip
        return Report(
            title=f"{says.task}: training of {self._recipe}",
            summary=f"{self._length}{score}.",
            facts=[
                *how,
                ("recipe", self._recipe),
                ("began from", named_weights(says.weights)),
                *says.data,
                ("length", self._length),
                *_settings(self._config),
            ],
            sections=[
                *first_batch(folder), *([self._score_table(shown)] if shown else []),
                *curves(folder), *says.sections(),
            ],
            links=[
                Link(title=f"weights{average}: {place}", path=place),
                *(Link(title=name, path=Path(name)) for name in _FILES),
            ],
            next_steps=next_steps,
        )  # fmt: skip

    def _score_table(self, shown: Sequence[Evaluation]) -> ScoreTable:
        best, *last = shown
        names = self._names(dict.fromkeys(name for one in shown for name in one.results))
        meanings = {"loss": LOSS, **self._says.meanings}
        values = {name: [one.results.get(name) for one in shown] for name in names}
        rows = [
            ScoreRow(name=name, values=values[name], meaning=meanings.get(name, ""))
            for name in names
        ]
        text = f"On the validation data. The best is that by {self._metric}: {best.title}."
        if last:
            both = ", with and without moving average" * any(one.average for one in shown)
            text += f" The last: step {last[0].step:,}{both}."
        percent = any(abs(value) > 2 for one in shown for value in one.results.values())
        columns = ["best", *("last average" if one.average else "last" for one in last)]
        digits = 2 if percent else 4
        return ScoreTable(title="Scores", columns=columns, rows=rows, text=text, digits=digits)


def _settings(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name the settings that people ask for first."""
    run, optimizer = config["run"], config["optimizer"]
    named = {
        "epochs": run["epochs"], "precision": run["precision"], "learning rate": optimizer["lr"],
        "layer decay": optimizer["layer_decay"], "moving average": run["ema_decay"],
    }  # fmt: skip
    return [(name, f"{value:g}" if isinstance(value, float) else str(value))
            for name, value in named.items() if value]  # fmt: skip
