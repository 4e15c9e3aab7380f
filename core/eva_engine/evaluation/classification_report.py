"""Results of a classifier: terminal table, files, report sections, validation during training."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from eva_data.files import printable, replace_file, write_text
from eva_engine.config import RunConfig
from eva_engine.evaluation.counting import (
    FIRST,
    LEFT_OUT,
    Counted,
    OneLabel,
    Outcome,
    Score,
    ShownSamples,
    count,
)
from eva_report.content import (
    Confusion,
    Example,
    Gallery,
    NextStep,
    ScoreRow,
    ScoreTable,
    Section,
    Table,
    TitledImage,
)
from eva_report.drawing import score_text
from eva_report.page import write_csv
from eva_report.terminal import closing_lines
from eva_runs.commands import echo, print_error
from eva_runs.data_order import BadSamples
from eva_runs.interruption import StopSignal

Extra = Mapping[str, float]  # further numbers of a set by their names

NAMED = 40  # classes whose names fit beside an image
NUMBERED = 20  # classes whose numbers fit into its cells
TERMS = {"top1": "top-1", "top5": "top-5", "loss": "loss"}  # of a score, in the terminal
_LEFT_OUT = 10  # samples left out that the terminal names


def table(
    scores: Mapping[str, Score], *, unit: str = "images", extra: Mapping[str, Extra] | None = None
) -> str:
    """Write scores (set -> score), and further numbers of a set by their titles, as a table."""
    titles = list(dict.fromkeys(title for values in (extra or {}).values() for title in values))
    widths, shown = [max(8, len(title)) for title in titles], _shown(scores)
    rows = [
        [f"{'set':16} {unit:>8}" + "".join(f" {TERMS[metric]:>8}" for metric in shown), *titles]
    ]
    for name, score in scores.items():
        numbers = [getattr(score, metric) for metric in shown]
        line = f"{name:16} {score.samples:8}" + "".join(f" {value:8.3f}" for value in numbers)
        values = (extra or {}).get(name, {})
        rows.append(
            [line, *(f"{values[metric]:.3f}" if metric in values else "" for metric in titles)]
        )
    return "\n".join(" ".join(map(str.rjust, row, [0, *widths])) for row in rows)


def _shown(scores: Mapping[str, Score]) -> list[str]:
    few = all(score.few for score in scores.values())
    return [name for name in TERMS if name != "top5" or not few]


def average_and_gap(values: Mapping[str, float], sets: Sequence[str]) -> tuple[float, float] | None:
    """Average accuracies over sets, and how far the first lies above it; None if one is missing."""
    if not set(sets) <= values.keys():
        return None
    average = sum(values[name] for name in sets) / len(sets)
    return average, values[sets[0]] - average


def echo_result(
    scores: str, *, began: float, report: Path | None, next_steps: Sequence[NextStep] = ()
) -> None:
    """Say on the standard output what came out of an evaluation that began at `time.monotonic`."""
    command, took = next_steps[0].command if next_steps else None, time.monotonic() - began
    lines = closing_lines(scores=scores, duration=took, report=report, next_command=command)
    echo("\n".join(lines))


def warn_of_left_out(left_out: Sequence[str], *, unit: str = "images") -> None:
    """Name the samples that were left out in the terminal, the first ones with their reasons."""
    if not left_out:
        return
    lines = [f"{len(left_out)} {unit} could not be read and were left out:"]
    lines += [printable(reason) for reason in left_out[:_LEFT_OUT]]
    rest = len(left_out) - _LEFT_OUT
    if rest > 0:
        lines.append(f"and {rest} more")
    print_error("\n  ".join(lines))


def write_results(
    folder: Path,
    settings: Mapping[str, Any],
    scores: Mapping[str, Score],
    *,
    more: Mapping[str, Any] | None = None,
    extra: Mapping[str, Extra] | None = None,
    unit: str = "images",
) -> Path:
    """Write `results.json` to a folder, which is made if it is not there.

    `more` are further entries, such as an average over sets; `extra` has further entries of each
    set, such as `mean_per_class`.
    """
    columns = ("top1", "top5", "loss", "right1", "right5")
    sets = {
        name: {unit: score.samples, **{metric: getattr(score, metric) for metric in columns}}
        | dict((extra or {}).get(name, {}))
        for name, score in scores.items()
    }
    content = {"settings": dict(settings), "sets": sets, **(more or {})}
    write_text(folder / "results.json", json.dumps(content, indent=2) + "\n")
    return folder / "results.json"


def write_per_class(
    folder: Path, counted: Counted, classes: Sequence[str], *, unit: str = "images"
) -> Path:
    """Write `per_class.csv`: accuracies of each class, and its most frequent confusion."""
    rows = [
        ["" if cell is None else f"{cell:.3f}" if isinstance(cell, float) else cell for cell in row]
        for row in _per_class(counted, [printable(name) for name in classes])
    ]
    heads = ["class", unit, "top1", "top5", "most_often_taken_for", "times"]
    write_csv(folder / "per_class.csv", heads, rows)
    return folder / "per_class.csv"


def _per_class(counted: Counted, names: Sequence[str]) -> list[list[Any]]:
    """List name, samples, top1 and top5 (percent, or None), what it was taken for, how often."""
    assert counted.confusion is not None
    assert counted.right5 is not None
    wrong = counted.confusion.clone()
    wrong.fill_diagonal_(0)
    times, taken_for = wrong.max(1)
    samples, right = counted.confusion.sum(1), counted.confusion.diagonal()
    columns = (samples, right, counted.right5, taken_for, times)
    rows = []
    for name, n, *rights, other, many in zip(names, *(c.tolist() for c in columns), strict=True):
        shares = (100 * count / n if n else None for count in rights)
        rows.append([name, n, *shares, names[other] if many else "", many])
    return rows


def draw_confusion(
    folder: Path, confusion: Tensor, classes: Sequence[str], *, unit: str = "images"
) -> Path:
    """Draw `confusion.png`: rows are labels, columns predictions, shades the row's shares."""
    number = len(classes)
    shares = confusion.double() / confusion.sum(1, keepdim=True).clamp(min=1)
    side = min(14.0, 3.5 + 0.32 * number)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, label=f"share of the class's {unit}", shrink=0.8)
    top1 = 100 * float(confusion.trace() / confusion.sum().clamp(min=1))
    title = f"top-1 {top1:.2f} % of {int(confusion.sum())} {unit}"
    axes.set(xlabel="prediction", ylabel="label", title=title)
    if number <= NAMED:
        # a name with dollars is not a formula
        names = [printable(name) for name in classes]
        axes.set_xticks(range(number), names, rotation=90, parse_math=False)
        axes.set_yticks(range(number), names, parse_math=False)
    if number <= NUMBERED:
        for row, column in confusion.nonzero().tolist():
            dark = shares[row, column] > 0.5
            axes.text(
                column,
                row,
                str(int(confusion[row, column])),
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else "black",
            )
    with replace_file(folder / "confusion.png") as file:
        figure.savefig(file, dpi=120, format="png")
    return folder / "confusion.png"


MOST_CONFUSION = 1000  # classes of a training whose confusion is counted for the report

MEANINGS = {
    "top1": "Percent of the {unit} whose most probable class is the label; higher is better.",
    "top5": "Percent of the {unit} whose label is among the five most probable classes.",
    "loss": "Mean cross-entropy of the label; lower is better, confident mistakes cost most.",
}
TITLES = {"mean_top1_top5": "(1+5)/2", "mean_per_class": "class mean"}  # of further numbers
EXTRA_MEANINGS = {
    "(1+5)/2": "Mean of top1 and top5, the main score of Kinetics' challenges.",
    "class mean": "Mean over the classes of their top1: each class counts as much as any other.",
}


def describe_scores(unit: str = "images") -> dict[str, str]:
    """Say what the results of a classifier mean; the main one first."""
    return {name: meaning.format(unit=unit) for name, meaning in MEANINGS.items()}


def score_table(
    scores: Mapping[str, Score], unit: str, extra: Mapping[str, Mapping[str, float]]
) -> ScoreTable:
    """Make the table of scores (set, or method, -> score) and further numbers in percent."""
    more = list(dict.fromkeys(name for values in extra.values() for name in values))
    values = {name: [getattr(score, name) for score in scores.values()] for name in _shown(scores)}
    values |= {name: [extra.get(set_name, {}).get(name) for set_name in scores] for name in more}
    descriptions = describe_scores(unit) | EXTRA_MEANINGS
    rows = [ScoreRow(name=k, values=v, meaning=descriptions.get(k, "")) for k, v in values.items()]
    counts = ", ".join(f"{name}: {score.samples:,} {unit}" for name, score in scores.items())
    return ScoreTable(title="Scores", columns=list(scores), rows=rows, text=counts, digits=2)


def class_sections(
    samples: ShownSamples,
    counted: Counted,
    *,
    unit: str = "images",
    classes: Sequence[str] | None = None,
    of: str = "",
    complete_in: str = "",
    examples: bool = True,
) -> list[Section]:
    """Make the sections of a classifier's evaluation: classes, confusion, worst and best examples.

    `classes` replace the names of the samples' own; titles end in `of`. The file `complete_in`
    beside the report has the results of all classes.
    """
    names = [printable(name) for name in classes or samples.classes]
    sections: list[Section] = []
    if counted.confusion is not None:
        sections += [
            _classes(counted, names, unit, complete_in),
            Confusion(
                title="Confusion",
                classes=names,
                counts=counted.confusion.numpy(),
                unit=unit,
                text="Each row is a label, each column the class that was found most probable.",
            ),
        ]
    worst = (
        f"The {unit} with the most probable wrong predictions, behind them their probability. Some "
        "of the labels may be wrong."
    )
    best = f"The {unit} of different classes whose label was found most probable."
    for title, outcomes, description in (
        ("Worst: confident and wrong", counted.wrong, worst),
        ("Best: confident and right", counted.right, best),
    ):
        if examples:
            shown = [_example(outcome, names, samples) for outcome in outcomes]
            sections.append(Gallery(title=title, examples=shown, text=description))
    return [replace(section, title=section.title + of) for section in sections]


def _classes(counted: Counted, names: Sequence[str], unit: str, complete_in: str) -> Table:
    rows = sorted(_per_class(counted, names), key=lambda row: (row[2] is None, row[2]))
    left, few = len(counted.left_out), len(names) <= FIRST
    return Table(
        title="Classes",
        heads=["class", unit, "top1 (%)", *["top5 (%)"] * (not few), "most often taken for"],
        rows=[
            [*row[: 4 - few], f"{other} ({times} time{'s' * (times > 1)})" if times else None]
            for *row, other, times in rows
        ],
        text=describe_constant_prediction(counted, names, unit) + "The worst class comes first. "
        f"Mean over the classes that have {unit}: {counted.mean_per_class:.1f} %."
        + (f" Left out because they could not be read: {left:,} {unit}." if left else ""),
        complete_in=complete_in,
    )


def describe_constant_prediction(counted: Counted, names: Sequence[str], unit: str) -> str:
    """Say that samples of several classes have one prediction; "" where they have more."""
    assert counted.confusion is not None
    predicted, several = counted.confusion.sum(0), int((counted.confusion.sum(1) > 0).sum()) > 1
    if not several or predicted.max() < predicted.sum():
        return ""
    return f"All {int(predicted.sum()):,} {unit} were called {names[int(predicted.argmax())]}. "


def _example(outcome: Outcome, names: Sequence[str], samples: ShownSamples) -> Example:
    predicted = f"{names[outcome.prediction]} ({score_text(outcome.confidence)})"
    caption = f"truth {names[outcome.label]}, predicted {predicted}"
    # folder of a class, and file
    title = printable("/".join(Path(samples.sample_id(outcome.sample)).parts[-2:]))
    return Example(
        caption=caption, images=[TitledImage(title=title, image=samples.image(outcome.sample))]
    )


T = TypeVar("T")


class BestEvaluation(Generic[T]):
    """Keeps what a report shows of the best evaluation by a metric, whose scores head the report.

    A run is evaluated several times, at last with the moving average, which may be the worst.

    Attributes:
        kept: What was offered with the best results since the run was started; None before.
    """

    def __init__(self, metric: str) -> None:
        self.kept: T | None = None
        self._metric, self._results = metric, dict[str, float]()
        self._value = -math.inf

    def offer(self, results: Mapping[str, float], evaluation: T) -> None:
        """Keep something of an evaluation if its results are better than those before."""
        value = results[self._metric] * (-1 if self._metric == "loss" else 1)
        better = math.isfinite(value) and not value <= self._value  # than NaN, too
        if self.kept is None or better:
            self._value, self._results, self.kept = value, dict(results), evaluation

    def named(self, sections: Sequence[Section]) -> list[Section]:
        """Say in the texts of sections on what was kept to which evaluation they belong."""
        scores = ", ".join(f"{name} {value:.4g}" for name, value in self._results.items())
        of = f"Of the best evaluation by {self._metric} since the last start: {scores}."
        return [replace(section, text=f"{of} {section.text}".strip()) for section in sections]


class Validation:
    """Accuracy on validation samples during a run, each counted once.

    At most `run.max_bad_samples` that cannot be read are left out and named.

    Attributes:
        results: Names of the results.
        best: Counts of the best evaluation by `run.best_metric`, or else by `top1`, with the
            confusion of at most `MOST_CONFUSION` classes, and with examples.
    """

    def __init__(self, samples: ShownSamples, run: RunConfig, device: torch.device) -> None:
        self.results = ("loss", "top1", "top5")[: 2 if len(samples.classes) <= FIRST else 3]
        self._samples, self._run, self._device = samples, run, device
        self.best = BestEvaluation[Counted](run.best_metric or "top1")
        self._left_out = BadSamples(run.max_bad_samples, done=LEFT_OUT)

    def __call__(self, model: nn.Module, stop: StopSignal | None = None) -> dict[str, float]:
        """Compute `loss`, and `top1` and `top5` in percent; called on all processes."""
        counted = count(
            model,
            self._samples,
            {"val": OneLabel()},
            device=self._device,
            skip_unreadable=True,
            batch_size=self._run.batch_size,
            workers=self._run.workers,
            confusion=len(self._samples.classes) <= MOST_CONFUSION,
            examples=True,
            stop=stop,
        )
        self._left_out.add(dict.fromkeys(counted.left_out, ""))
        score = counted.scores["val"]
        results = {name: getattr(score, name) for name in self.results}
        self.best.offer(results, counted)
        return results

    def sections(self, unit: str) -> list[Section]:
        """Make the sections of a report on the best evaluation; none before one."""
        if self.best.kept is None:
            return []
        return self.best.named(class_sections(self._samples, self.best.kept, unit=unit))
