"""Results of an evaluation: terminal, `results.json`, page."""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eva_backbone.checkpoints.run_folders import describe_weights
from eva_data.files import printable
from eva_data.saving import write_text
from eva_engine import distributed
from eva_engine.evaluation.counting import Score
from eva_report.comparison import PREDICTIONS
from eva_report.content import (
    Link,
    NextStep,
    Report,
    ScoreRow,
    ScoreTable,
    Section,
    score_name,
)
from eva_report.page import report_name, try_report
from eva_report.terminal import align_columns, closing_lines, show
from eva_runs.commands import echo
from eva_runs.errors import print_error
from eva_runs.record import run_facts

Extra = Mapping[str, float]  # further numbers of a set, by the keys of `MEANINGS`

_LEFT_OUT = 10  # samples left out that the terminal names
_FILES = (
    *("results.json", "table.md", "per_class.csv", "confusion.png", PREDICTIONS),
    "videos.jsonl",
)
_NOT_SHOWN = ("output", "device", "processes", "workers", "weights", "train", "val", "data")
MEANINGS = {
    "top1": "Percent of {unit} whose most probable class is the label.",
    "top5": "Percent of {unit} whose label is among the five most probable classes.",
    "loss": "Mean cross-entropy; lower is better, confident mistakes cost most.",
    "mean_top1_top5": "Mean of top-1 and top-5, the main score of Kinetics' challenges.",
    "mean_per_class": "Mean top-1 of the classes, each with the same weight.",
}
TITLES = {"mean_top1_top5": "(1+5)/2", "mean_per_class": "class mean"}


def announce(task: str, *, weights: str, data: Sequence[tuple[str, str]]) -> None:
    """Say on the main process's terminal what an evaluation is about to do, on which data."""
    if distributed.rank() == 0:
        lines = (
            description if use == "data" else f"{use}: {description}" for use, description in data
        )
        show(task, f"weights  {describe_weights(weights)}", *(f"data     {line}" for line in lines))


def describe_scores(unit: str = "images") -> dict[str, str]:
    """Say what the results of a classifier mean; the main one first."""
    return {name: MEANINGS[name].format(unit=unit) for name in ("top1", "top5", "loss")}


def score_table(
    scores: Mapping[str, Score], unit: str = "images", extra: Mapping[str, Extra] | None = None
) -> ScoreTable:
    """Make the table of scores (set, or method, -> score) and further numbers in percent."""
    names = ["top1", "top5", "loss"]
    values = {name: [getattr(score, name) for score in scores.values()] for name in names}
    for name in dict.fromkeys(name for numbers in (extra or {}).values() for name in numbers):
        values[name] = [(extra or {}).get(set_name, {}).get(name) for set_name in scores]
    rows = [
        ScoreRow(
            name=TITLES.get(name, score_name(name)),
            values=row,
            meaning=MEANINGS[name].format(unit=unit),
        )
        for name, row in values.items()
    ]
    rows.append(ScoreRow(name=unit, values=[s.samples for s in scores.values()], meaning=""))
    return ScoreTable(title="Scores", columns=list(scores), rows=rows, digits=2)


def table(scores: ScoreTable) -> str:
    """Write scores for the terminal, a set in each line."""
    lines = [["set", *(row.name for row in scores.rows)]]
    for name, *values in zip(scores.columns, *(row.values for row in scores.rows), strict=True):
        cells = (f"{value:.3f}" if isinstance(value, float) else value for value in values)
        lines.append([name, *("" if cell is None else str(cell) for cell in cells)])
    return align_columns(lines)


def average_and_gap(values: Mapping[str, float], sets: Sequence[str]) -> tuple[float, float] | None:
    """Average accuracies over sets, and how far the first lies above it; None if one is missing."""
    if not set(sets) <= values.keys():
        return None
    average = sum(values[name] for name in sets) / len(sets)
    return average, values[sets[0]] - average


def report_scores(
    options: argparse.Namespace,
    scores: Mapping[str, Score],
    *,
    settings: Mapping[str, Any],
    unit: str = "images",
    description: str = "{table}",
    extra: Mapping[str, Extra] | None = None,
    more: Mapping[str, Any] | None = None,
    left_out: Sequence[str] = (),
    sections: Callable[[], Sequence[Section]] = tuple,
    **page: Any,
) -> None:
    """Write and say the results of a classifier, set or method -> score; on the main process.

    The `settings` are for `results.json` and the page, `description` is for the terminal, `extra`
    has further numbers of sets, and `more` further entries of `results.json`. For the rest see
    `report_evaluation`.
    """
    scored = score_table(scores, unit, extra)
    if options.output is not None:
        more = {**(more or {}), "left_out": list(left_out)}
        written = write_results(options.output, settings, scores, unit=unit, extra=extra, more=more)
        echo(f"wrote {written}")
    first, score = next(iter(scores.items()))
    report_evaluation(
        options,
        settings={k: v for k, v in settings.items() if k not in _NOT_SHOWN},
        unit=unit,
        summary=f"top-1 {score.top1:.2f} % of {score.samples:,} {unit} ({first}).",
        description=description.format(table=table(scored)),
        sections=lambda: [scored, *sections()],
        left_out=left_out,
        **page,
    )


def report_evaluation(
    options: argparse.Namespace,
    *,
    began: float,
    task: str,
    data: Sequence[tuple[str, str]],
    settings: Mapping[str, Any],
    device: str,
    summary: str,
    description: str,
    sections: Callable[[], Sequence[Section]],
    left_out: Sequence[str],
    unit: str,
    next_steps: Sequence[NextStep] = (),
) -> None:
    """Write the page of an evaluation whose results are safe, and say what came out.

    Args:
        options: They have `weights`, and the folder of the results as `output`, or None.
        began: When the evaluation began, by `time.monotonic`.
        task: Title of the page.
        data: Uses and descriptions of the datasets.
        settings: Those that the page shows.
        device: Kind of the device.
        summary: The score that counts.
        description: What came out, for the terminal.
        sections: Makes the sections of the page.
        left_out: Why samples could not be read.
        unit: What the samples are.
        next_steps: Commands to run next.
    """

    def make() -> Report:
        processes = distributed.world_size()
        how = run_facts(options.output, "evaluation", seed=None, device=device, processes=processes)
        return Report(
            title=f"{task}: evaluation of {Path(options.weights).name}",
            summary=summary,
            facts=[
                *how,
                ("weights", describe_weights(options.weights)),
                *data,
                *((name.replace("_", " "), str(value)) for name, value in settings.items()),
            ],
            sections=sections(),
            links=[Link(title=name, path=Path(name)) for name in _FILES],
            next_steps=next_steps,
        )

    page = None
    if options.output is not None:
        page = try_report(options.output, make, name=report_name(options.output, "evaluation"))
    lines = closing_lines(
        scores=description,
        duration=time.monotonic() - began,
        report=page,
        next_command=next_steps[0].command if next_steps else None,
    )
    echo("\n".join(lines))
    warn_of_left_out(left_out, unit=unit)


def warn_of_left_out(left_out: Sequence[str], *, unit: str = "images") -> None:
    """Name the samples that were left out in the terminal, the first ones with their reasons."""
    if not left_out:
        return
    lines = [f"{len(left_out)} {unit} could not be read and were left out:"]
    lines += [printable(reason) for reason in left_out[:_LEFT_OUT]]
    lines += ["..."] if len(left_out) > _LEFT_OUT else []
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
