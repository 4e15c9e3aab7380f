"""What a run says of itself: opening lines, closing lines, its page."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from eva_backbone.checkpoints.run_folders import CONFIG, EMA_WEIGHTS, named_weights, weights_of_run
from eva_data.files import write_text
from eva_engine import distributed
from eva_engine.config import SAYS, RunConfig
from eva_engine.evaluation.classification_report import score_table
from eva_engine.evaluation.counting import Score
from eva_engine.run_log import METRICS, lines_of, thinned
from eva_report.content import (
    Curve,
    Curves,
    Link,
    Report,
    ScoreRow,
    ScoreTable,
    Section,
    Step,
)
from eva_report.page import NAME, report_name, try_report
from eva_report.terminal import SHOWN, closing_lines, opening_lines
from eva_runs.record import facts, record_start

logger = logging.getLogger(__name__)

_VAL, _EMA, _RATE = "val_", "ema_", "learning rate"
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


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A run that has ended, as far as its page shows it.

    Attributes:
        folder: Output folder.
        title: Title of the page.
        recipe: Name of the recipe.
        config: The resolved recipe.
        steps: Steps of the complete run.
        batch_size: Samples of a step.
        data: Use and description of each data set.
        weights: Weights that it began from.
        meanings: Name of a result -> what it measures, the main one first.
        next_steps: Commands to run next.
    """

    folder: Path
    title: str
    recipe: str
    config: Mapping[str, Any]
    steps: int
    batch_size: int
    data: Sequence[tuple[str, str]] = ()
    weights: str = "random"
    meanings: Mapping[str, str] = field(default_factory=dict)
    next_steps: Sequence[Step] = ()

    @property
    def metric(self) -> str:
        """Name of the result by which evaluations are compared."""
        chosen = self.config.get("run", {}).get("best_metric")
        return str(chosen or next(iter(self.meanings), "loss"))

    def evaluations(self) -> list[Evaluation]:
        """Read all evaluations off the log, in order; of two in a step, the average is second."""
        found = []
        for line in lines_of(self.folder / METRICS):
            named = {name.removeprefix(_VAL): v for name, v in line.items() if _VAL in name[:4]}
            plain = {n: float(v) for n, v in named.items() if v is not None and _EMA not in n[:4]}
            ema = {n[4:]: float(v) for n, v in named.items() if v is not None and _EMA in n[:4]}
            step = int(line["step"]) + 1
            found += [Evaluation(step, bool(i), one) for i, one in enumerate((plain, ema)) if one]
        return found

    def best(self, evaluations: Sequence[Evaluation]) -> Evaluation | None:
        """Return the best evaluation by `metric`; the first of equals."""
        scored = [one for one in evaluations if self.metric in one.results]
        sign = -1 if self.metric == "loss" else 1
        return max(scored, key=lambda one: sign * one.results[self.metric], default=None)

    def sentence(self) -> str:
        """Say the best and the last scores in a line or two; empty without an evaluation."""
        evaluations = self.evaluations()
        best = self.best(evaluations)
        if best is None:
            return ""
        last = [one for one in evaluations if one.step == evaluations[-1].step]
        lines = [f"best     {self._written(best)}"]
        lines += [f"last     {self._written(one)}" for one in last if one != best]
        return "\n".join(lines)

    def _written(self, one: Evaluation) -> str:
        names = [*self.meanings, *(name for name in one.results if name not in self.meanings)]
        shown = [f"{name} {one.results[name]:.4g}" for name in names if name in one.results]
        return f"{', '.join(shown)} ({one.title})"


def training_report(
    run: TrainedRun,
    origin: Sequence[tuple[str, str]],
    sections: Callable[[], Sequence[Section]] = tuple,
) -> Report:
    """Make the page of a training.

    Args:
        run: The run.
        origin: Facts of `eva_runs.record.facts`.
        sections: Function that makes the sections of the project.
    """
    evaluations = run.evaluations()
    best = run.best(evaluations)
    weights = weights_of_run(run.folder)
    facts = [*origin, ("recipe", run.recipe), ("began from", run.weights), *run.data]
    length = f"{run.steps:,} step{'s' * (run.steps > 1)} of {run.batch_size} samples"
    facts.append(("length", length))
    facts += _settings(run.config)
    score = f"; {run.metric} {best.results[run.metric]:.4g} after {best.title}" if best else ""
    kept = f"weights{' (moving average)' if weights.name == EMA_WEIGHTS else ''}"
    place = weights.relative_to(run.folder)
    names = ("results.json", "config.json", METRICS, "log.txt")
    return Report(
        title=run.title,
        summary=f"{length}{score}.",
        facts=facts,
        sections=[*_scores(run, evaluations, best), *curves(run.folder), *sections()],
        links=[
            Link(title=f"{kept}: {place}", path=place),
            *(Link(title=name, path=Path(name)) for name in names),
        ],
        next_steps=run.next_steps,
    )


def _settings(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name the settings that people ask for first."""
    run, optimizer = config.get("run", {}), config.get("optimizer", {})
    named = (
        ("epochs", run.get("epochs")),
        ("precision", run.get("precision")),
        ("learning rate", optimizer.get("lr")),
        ("layer decay", optimizer.get("layer_decay")),
        ("moving average", run.get("ema_decay")),
    )
    return [(name, f"{value:g}" if isinstance(value, float) else str(value))
            for name, value in named if value]  # fmt: skip


def _scores(
    run: TrainedRun, evaluations: Sequence[Evaluation], best: Evaluation | None
) -> list[Section]:
    if best is None:
        return []
    last = [one for one in evaluations if one.step == evaluations[-1].step and one != best]
    shown = [best, *last]
    names = [*run.meanings, *(name for name in best.results if name not in run.meanings)]
    rows = [
        ScoreRow(
            name=name,
            values=[one.results.get(name) for one in shown],
            meaning=run.meanings.get(name, LOSS if name == "loss" else ""),
        )
        for name in names
        if any(name in one.results for one in shown)
    ]
    columns = ["best", *("last average" if one.average else "last" for one in last)]
    text = f"On the validation data. The best is that by {run.metric}: {best.title}."
    if last:
        text += f" The last: step {last[0].step:,}" + (
            ", with and without moving average." if any(one.average for one in shown) else "."
        )
    percent = any(abs(value) > 2 for row in rows for value in row.values if value is not None)
    digits = 2 if percent else 4
    return [ScoreTable(title="Scores", columns=columns, rows=rows, text=text, digits=digits)]


def curves(folder: Path) -> list[Section]:
    """Draw the log of a training: loss, results of evaluations, learning rate.

    Args:
        folder: Output folder with `metrics.jsonl`.

    Returns:
        A section for each group of numbers that the log has.
    """
    steps: dict[str, list[tuple[float, float]]] = {}
    for line in lines_of(folder / METRICS):
        for name, value in line.items():
            if isinstance(value, int | float) and name not in ("step", "samples", "epoch"):
                steps.setdefault(name, []).append((line["step"] + 1.0, float(value)))
    losses: list[str] = [name for name in ("loss", "val_loss", "val_ema_loss") if name in steps]
    others = [name for name in steps if name.startswith(_VAL) and name not in losses]
    trained = [name for name in steps if name not in _NOT_MEASURED and not name.startswith(_VAL)]
    shares = [name for name in trained if all(0 <= y <= 1 for _, y in steps[name])]
    groups: tuple[tuple[str, str, list[str], str], ...] = (
        ("Loss", "loss", losses, "Each point of the training is a mean over steps."),
        ("Validation", "result", others, ""),
        ("Training", "share", shares, ""),
        *((_legend(one).capitalize(), "value", [one], "") for one in trained if one not in shares),
        ("Learning rate", _RATE, ["lr"] if "lr" in steps else [], ""),
    )
    return [
        Curves(
            title=title,
            x_label="step",
            y_label=label,
            curves=[Curve(name=_legend(name), points=thinned(steps[name])) for name in names],
            text=text,
        )
        for title, label, names, text in groups
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
    plain = name.removeprefix(_VAL).replace("_", " ")
    if plain.startswith("ema "):
        return f"{plain.removeprefix('ema ')}, moving average"
    return f"validation {plain}" if plain == "loss" else plain


def announce(task: str, *, weights: str, data: Sequence[tuple[str, str]]) -> None:
    """Say on the terminal what an evaluation is about to do; the main process does.

    Args:
        task: What is done: "evaluate a classifier at 224 px on cuda".
        weights: Weights, as they were named.
        data: Use and description with counts of each data set.
    """
    if distributed.rank():
        return
    named = (text if use == "data" else f"{use}: {text}" for use, text in data)
    described = (f"data     {text}" for text in named)
    for line in (task, f"weights  {named_weights(weights)}", *described):
        logger.info("%s", line, extra=SHOWN)


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

    Args:
        folder: Output of the evaluation.
        task: Name of the task: "Classification".
        weights: Weights that were scored, as they were named.
        data: Use and description of each data set.
        settings: Name -> setting of the evaluation, as the page shows them.
        device: Type of the device.
        summary: A sentence with the score that counts.
        sections: What the page shows.
        links: Names of files of the folder.
        next_steps: Commands to run next.
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


def write_evaluation_report(
    folder: Path,
    scores: Mapping[str, Score],
    *,
    task: str,
    weights: str,
    data: Sequence[tuple[str, str]],
    settings: Mapping[str, Any],
    sections: Callable[[], Sequence[Section]] = tuple,
    device: str = "cpu",
    unit: str = "images",
    extra: Mapping[str, Mapping[str, float]] | None = None,
    next_steps: Sequence[Step] = (),
) -> Path | None:
    """Write `report.html` of an evaluation of a classifier; on the main process.

    Args:
        folder: Output of the evaluation, with `results.json`.
        scores: Set, or method, -> score.
        task: Name of the task: "Classification".
        weights: Weights that were scored, as they were named.
        data: Use and description of each data set.
        settings: Settings of the evaluation.
        sections: Function that makes further sections.
        device: Type of the device.
        unit: Name of the samples.
        extra: Set -> further numbers, in percent, by their titles.
        next_steps: Commands to run next.

    Returns:
        The file; None if it could not be made.
    """

    def make() -> Report:
        first, score = next(iter(scores.items()))
        return evaluation_page(
            folder, task=task, weights=weights, data=data, device=device,
            settings={k.replace("_", " "): v for k, v in settings.items() if k not in _KNOWN},
            summary=f"top1 {score.top1:.2f} % of {score.samples:,} {unit} ({first}).",
            sections=[score_table(scores, unit, extra or {}), *sections()],
            links=("per_class.csv", "confusion.png", "videos.jsonl"), next_steps=next_steps,
        )  # fmt: skip

    return try_report(folder, make, name=report_name(folder, "evaluation"))


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
