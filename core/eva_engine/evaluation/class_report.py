"""Results of a classifier by class: files, sections of a page, examples."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from eva_data.files import printable
from eva_data.saving import replace_file
from eva_engine.checkpoints.files import rank_results
from eva_engine.evaluation.counting import Counted, LabelledSamples, Outcome, ShownSamples
from eva_report.comparison import write_predictions
from eva_report.content import (
    Confusion,
    Example,
    Gallery,
    Note,
    Section,
    Table,
    TitledImage,
    score_name,
    warn_of_few,
)
from eva_report.drawing import score_text
from eva_report.page import write_csv

_NAMED = 40  # classes whose names fit beside an image


def write_per_class(
    folder: Path, counted: Counted, classes: Sequence[str], *, unit: str = "images"
) -> Path:
    """Write `per_class.csv`: accuracies of each class, and its most frequent confusion."""
    heads = ["class", unit, "top1", "top5", "most_often_taken_for", "times"]
    rows = _per_class(counted, [printable(name) for name in classes])
    for row in rows:
        row[2:4] = ["" if share is None else f"{share:.3f}" for share in row[2:4]]
    write_csv(folder / "per_class.csv", heads, rows)
    return folder / "per_class.csv"


def write_outcomes(folder: Path, counted: Counted, samples: LabelledSamples) -> None:
    """Write `predictions.csv`: label, prediction and probability of every sample."""
    names = [printable(name) for name in samples.classes]
    rows = [
        (
            printable(samples.sample_id(outcome.sample)),
            names[outcome.label],
            names[outcome.prediction],
            outcome.confidence,
        )
        for outcome in counted.outcomes
    ]
    write_predictions(folder, rows)


def _per_class(counted: Counted, names: Sequence[str]) -> list[list[Any]]:
    """List name, samples, top1 and top5 (percent, or None), what it was taken for, how often."""
    assert counted.confusion is not None
    assert counted.right5 is not None
    wrong = counted.confusion.clone()
    times, taken_for = wrong.fill_diagonal_(0).max(1)
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
    shares = confusion.double() / confusion.sum(1, keepdim=True).clamp(min=1)
    side = min(14.0, 3.5 + 0.32 * len(classes))
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot(xlabel="prediction", ylabel="label")
    image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, label=f"share of the class's {unit}", shrink=0.8)
    if len(classes) <= _NAMED:
        # a name with dollars is not a formula
        names = [printable(name) for name in classes]
        axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
    with replace_file(folder / "confusion.png") as file:
        figure.savefig(file, dpi=120, format="png")
    return folder / "confusion.png"


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
        rows = _per_class(counted, names)
        numbers = dict(zip(names, counted.confusion.sum(1).tolist(), strict=True))
        sections += warn_of_few(sum(numbers.values()), numbers, unit)
        alike = describe_constant_prediction(counted, names, unit)
        left_out = f" {len(counted.left_out):,} could not be read." if counted.left_out else ""
        sections += [
            Table(
                title="Classes",
                heads=["class", unit, "top-1 (%)", "top-5 (%)", "most often mistaken for", "times"],
                rows=sorted(rows, key=lambda row: (row[2] is None, row[2])),
                text=f"{alike}Worst class first. Mean of classes: {counted.mean_per_class:.1f} %."
                f"{left_out}",
                complete_in=complete_in,
            ),
            Confusion(
                title="Confusion",
                classes=names,
                counts=counted.confusion.numpy(),
                unit=unit,
            ),
        ]
    for title, outcomes, description in (
        (
            "Worst: confident and wrong",
            counted.wrong,
            "The most confident wrong predictions; some of the labels may be wrong.",
        ),
        (
            "Best: confident and right",
            counted.right,
            "The most confident right predictions of different classes.",
        ),
    ):
        if examples:
            shown = [_example(outcome, names, samples) for outcome in outcomes]
            sections.append(Gallery(title=title, examples=shown, text=description))
    return [replace(section, title=section.title + of) for section in sections]


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


class BestSections:
    """Sections of a report on the best evaluation of a start by a metric.

    A run is evaluated several times, at last with the moving average, which may be the worst.
    """

    def __init__(self, metric: str) -> None:
        self._metric, self._rank, self._text = metric, (-math.inf, -math.inf), ""
        self._make: Callable[[], list[Section]] | None = None

    def offer(self, results: Mapping[str, float], make: Callable[[], list[Section]]) -> None:
        """Keep the function that makes the sections, if the results are the best so far."""
        value = rank_results(results, self._metric)
        if self._make is None or value >= self._rank:
            self._rank, self._make = value, make
            score = f"{score_name(self._metric)} {results[self._metric]:.4g}"
            self._text = f"From the evaluation with {score}."

    def __call__(self) -> list[Section]:
        """Make the sections, of which the first names their evaluation; none before the first."""
        sections = self._make() if self._make else []
        for at, section in enumerate(sections):
            if not isinstance(section, Note):
                sections[at] = replace(section, text=f"{self._text} {section.text}".strip())
                break
        return sections
