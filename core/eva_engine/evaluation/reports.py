"""Reports of an evaluation: a table, `results.json`, per-class results, a picture.

`unit` is the name of the samples in them, such as images or videos.
"""

import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from eva_data.files import make_folder, printable, replacing, write_text
from eva_engine.evaluation.counting import Counted, Score
from eva_report.content import Step
from eva_report.terminal import closing_lines
from eva_runs.commands import complain, say

Extra = Mapping[str, float]  # further numbers of a set by their names

NAMED = 40  # classes whose names fit beside a picture
NUMBERED = 20  # classes whose numbers fit into its cells
_LEFT_OUT = 10  # samples left out that the terminal names


def table(
    scores: Mapping[str, Score], *, unit: str = "images", extra: Mapping[str, Extra] | None = None
) -> str:
    """Write scores as a table.

    Args:
        scores: Set -> score.
        unit: Name of the samples.
        extra: Set -> title and number of each further column.

    Returns:
        Lines of text, the columns of which are 16 and 8 characters wide, or as wide as a title.
    """
    titles = list(dict.fromkeys(title for values in (extra or {}).values() for title in values))
    widths = [max(8, len(title)) for title in titles]
    heads = [f"{title:>{width}}" for title, width in zip(titles, widths, strict=True)]
    lines = [" ".join([f"{'set':16} {unit:>8} {'top-1':>8} {'top-5':>8} {'loss':>8}", *heads])]
    for name, score in scores.items():
        line = f"{name:16} {score.samples:8} {score.top1:8.3f} {score.top5:8.3f} {score.loss:8.3f}"
        values = (extra or {}).get(name, {})
        cells = [f"{values[title]:.3f}" if title in values else "" for title in titles]
        cells = [f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)]
        lines.append(" ".join([line, *cells]))
    return "\n".join(lines)


def average_and_gap(values: Mapping[str, float], sets: Sequence[str]) -> tuple[float, float] | None:
    """Average over sets, and how far the first of them lies above it.

    Args:
        values: Set -> accuracy; others than `sets` are left out.
        sets: The sets of the average.

    Returns:
        Both, or None if one of them is missing.
    """
    if not set(sets) <= values.keys():
        return None
    average = sum(values[name] for name in sets) / len(sets)
    return average, values[sets[0]] - average


def say_end(
    scores: str, *, began: float, report: Path | None, next_steps: Sequence[Step] = ()
) -> None:
    """Say on the standard output what came out of an evaluation, in the lines of every run.

    Args:
        scores: The scores, in a few lines.
        began: Time of `time.monotonic` at its start.
        report: `report.html`; None without one.
        next_steps: Commands to run next, of which the first one is named.
    """
    for line in closing_lines(
        scores=scores,
        duration=time.monotonic() - began,
        report=report,
        next_command=next_steps[0].command if next_steps else None,
    ):
        say(line)


def complain_of_left_out(left_out: Sequence[str], *, unit: str = "images") -> None:
    """Name the samples that were left out in the terminal, a sentence for each of the first ones.

    Args:
        left_out: The sentences.
        unit: Name of the samples.
    """
    if not left_out:
        return
    named = "".join(f"\n  {reason}" for reason in left_out[:_LEFT_OUT])
    rest = len(left_out) - _LEFT_OUT
    complain(
        f"{len(left_out)} {unit} could not be read and were left out:"
        + printable(named)
        + (f"\n  and {rest} more" if rest > 0 else "")
    )


def write_results(
    folder: Path,
    settings: Mapping[str, Any],
    scores: Mapping[str, Score],
    *,
    more: Mapping[str, Any] | None = None,
    extra: Mapping[str, Extra] | None = None,
    unit: str = "images",
) -> Path:
    """Write `results.json`.

    Args:
        folder: Folder of the file; it is made if it is not there.
        settings: Settings of the evaluation.
        scores: Set -> score.
        more: Further entries, such as an average over sets.
        extra: Set -> name and number of each further entry of the set, such as `mean_per_class`.
        unit: Name of the samples.

    Returns:
        The file.
    """
    sets = {
        name: {unit: score.samples, "top1": score.top1, "top5": score.top5, "loss": score.loss,
               "right1": score.right1, "right5": score.right5, **(extra or {}).get(name, {})}
        for name, score in scores.items()
    }  # fmt: skip
    content = {"settings": dict(settings), "sets": sets, **(more or {})}
    make_folder(folder)
    write_text(folder / "results.json", json.dumps(content, indent=2) + "\n")
    return folder / "results.json"


def write_per_class(
    folder: Path, counted: Counted, classes: Sequence[str], *, unit: str = "images"
) -> Path:
    """Write `per_class.csv`: accuracies of each class, and its most frequent confusion.

    Args:
        folder: Folder of the file; it is made if it is not there.
        counted: Counts with the confusion.
        classes: Names of the labels.
        unit: Name of the samples.

    Returns:
        The file.
    """
    assert counted.confusion is not None
    assert counted.right5 is not None
    heads = ("class", unit, "top1", "top5", "most_often_taken_for", "times")
    rows: list[tuple[Any, ...]] = [heads]
    names = [printable(name) for name in classes]
    for label, name in enumerate(names):
        row = counted.confusion[label].clone()
        samples, right = int(row.sum()), int(row[label])
        row[label] = 0
        wrong, times = int(row.argmax()), int(row.max())
        shares = [
            f"{100 * number / samples:.3f}" if samples else ""
            for number in (right, int(counted.right5[label]))
        ]
        rows.append((name, samples, *shares, names[wrong] if times else "", times))

    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    make_folder(folder)
    write_text(folder / "per_class.csv", text.getvalue())
    return folder / "per_class.csv"


def draw_confusion(
    folder: Path, confusion: Tensor, classes: Sequence[str], *, unit: str = "images"
) -> Path:
    """Draw `confusion.png`: rows are labels, columns predictions, shades the row's shares.

    Args:
        folder: Folder of the file; it is made if it is not there.
        confusion: (K, K), samples of each label (row) that went to each class.
        classes: Names of the labels; written for at most `NAMED`.
        unit: Name of the samples.

    Returns:
        The file.
    """
    from matplotlib.figure import Figure

    number = len(classes)
    shares = confusion.double() / confusion.sum(1, keepdim=True).clamp(min=1)
    side = min(14.0, 3.5 + 0.32 * number)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, label=f"share of the class's {unit}", shrink=0.8)
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    top1 = 100 * float(confusion.trace() / confusion.sum().clamp(min=1))
    axes.set_title(f"top-1 {top1:.2f} % of {int(confusion.sum())} {unit}")
    if number <= NAMED:
        # a name with dollars is not a formula
        names = [printable(name) for name in classes]
        axes.set_xticks(range(number), names, rotation=90, parse_math=False)
        axes.set_yticks(range(number), names, parse_math=False)
    if number <= NUMBERED:
        for row, column in confusion.nonzero().tolist():
            dark = shares[row, column] > 0.5
            axes.text(column, row, str(int(confusion[row, column])), ha="center", va="center",
                      fontsize=8, color="white" if dark else "black")  # fmt: skip
    make_folder(folder)
    with replacing(folder / "confusion.png") as file:
        figure.savefig(file, dpi=120, format="png")
    return folder / "confusion.png"
