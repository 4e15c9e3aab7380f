"""What a report shows of a classifier, of pictures or videos: classes, mistakes, examples."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from eva_data.files import printable
from eva_engine.evaluation.counting import Counted, Score
from eva_engine.evaluation.outcomes import Outcome
from eva_report.content import (
    Cell,
    Confusion,
    Example,
    Gallery,
    Picture,
    ScoreRow,
    ScoreTable,
    Section,
    Table,
)
from eva_report.drawing.style import score_text

MOST_CONFUSION = 1000  # classes of a training whose confusion is counted for the report

MEANINGS = {
    "top1": "Percent of the {unit} whose most probable class is the label; higher is better.",
    "top5": "Percent of the {unit} whose label is among the five most probable classes.",
    "loss": "Mean cross-entropy of the label; lower is better, confident mistakes cost most.",
}
EXTRA_MEANINGS = {
    "(1+5)/2": "Mean of top1 and top5, the main score of Kinetics' challenges.",
    "class mean": "Mean over the classes of their top1: each class counts as much as any other.",
}


def meanings(unit: str = "images") -> dict[str, str]:
    """Say what the results of a classifier mean; the main one first.

    Args:
        unit: Name of the samples.
    """
    return {name: text.format(unit=unit) for name, text in MEANINGS.items()}


def score_table(
    scores: Mapping[str, Score], unit: str, extra: Mapping[str, Mapping[str, float]]
) -> ScoreTable:
    """Make the table of scores, with what each means.

    Args:
        scores: Set, or method, -> score.
        unit: Name of the samples.
        extra: Set -> further numbers, in percent, by their titles.
    """
    more = list(dict.fromkeys(name for values in extra.values() for name in values))
    rows = [
        ScoreRow(
            name=name,
            values=[getattr(score, name) for score in scores.values()],
            meaning=meaning,
        )
        for name, meaning in meanings(unit).items()
    ]
    rows += [
        ScoreRow(
            name=name,
            values=[extra.get(one, {}).get(name) for one in scores],
            meaning=EXTRA_MEANINGS.get(name, ""),
        )
        for name in more
    ]
    counts = ", ".join(f"{name}: {score.samples:,} {unit}" for name, score in scores.items())
    return ScoreTable(title="Scores", columns=list(scores), rows=rows, text=counts, digits=2)


def classification_sections(
    counted: Counted,
    classes: Sequence[str],
    *,
    examples: tuple[Sequence[Outcome], Sequence[Outcome]] = ((), ()),
    picture: Callable[[int], Image.Image] | None = None,
    name: Callable[[int], str] = str,
    unit: str = "images",
    complete_in: str = "",
) -> list[Section]:
    """Make the sections of a classifier's evaluation.

    Args:
        counted: Counts of the evaluation; without a confusion there are examples only.
        classes: Names of the labels.
        examples: Wrong and right samples, see `eva_engine.evaluation.outcomes.Outcomes.gathered`.
        picture: Function of a sample's index that gives what is shown of it, such as the picture,
            or frames of a video side by side; None shows no examples.
        name: Function of a sample's index that gives its name.
        unit: Name of the samples.
        complete_in: File beside the report with the results of all classes.

    Returns:
        Classes, confusion with the top mistakes, worst and best examples; what there is of them.
    """
    names = [printable(one) for one in classes]
    sections: list[Section] = []
    if counted.confusion is not None:
        sections += [
            _classes(counted, names, unit, complete_in),
            _confusion(counted.confusion, names, unit),
        ]
    if picture is not None:
        wrong, right = examples
        sections += [
            Gallery(
                title="Worst: confident and wrong",
                examples=[_example(one, names, picture, name) for one in wrong],
                text=f"The {unit} with the most probable wrong predictions, behind them their "
                "probability. Some of the labels may be wrong.",
            ),
            Gallery(
                title="Best: confident and right",
                examples=[_example(one, names, picture, name) for one in right],
                text=f"The {unit} of different classes whose label was found most probable.",
            ),
        ]
    return sections


def _classes(counted: Counted, names: Sequence[str], unit: str, complete_in: str) -> Table:
    assert counted.confusion is not None
    assert counted.right5 is not None
    rows: list[list[Cell]] = []
    samples = counted.confusion.sum(1).tolist()
    right = counted.confusion.diagonal().tolist()
    wrong = counted.confusion.clone()
    wrong.fill_diagonal_(0)
    most, taken_for = (values.tolist() for values in wrong.max(1))
    for label, number in enumerate(samples):
        shares: list[Cell] = [
            100 * count / number if number else None
            for count in (right[label], int(counted.right5[label]))
        ]
        times = f"{most[label]} {'times' if most[label] > 1 else 'time'}"
        mistake = f"{names[taken_for[label]]} ({times})" if most[label] else None
        rows.append([names[label], number, *shares, mistake])
    rows.sort(key=lambda row: (row[2] is None, row[2]))
    left = len(counted.left_out)
    return Table(
        title="Classes",
        heads=["class", unit, "top1 (%)", "top5 (%)", "most often taken for"],
        rows=rows,
        text="The worst class comes first. "
        f"Mean over the classes that have {unit}: {counted.mean_per_class:.1f} %."
        + (f" Left out because they could not be read: {left:,} {unit}." if left else ""),
        complete_in=complete_in,
    )


def _confusion(counts: Tensor, names: Sequence[str], unit: str) -> Confusion:
    return Confusion(
        title="Confusion",
        classes=names,
        counts=counts.numpy(),
        unit=unit,
        text="Each row is a label, each column the class that was found most probable.",
    )


def _example(
    one: Outcome,
    names: Sequence[str],
    picture: Callable[[int], Image.Image],
    name: Callable[[int], str],
) -> Example:
    truth, prediction = names[one.label], names[one.prediction]
    score = score_text(one.confidence)
    said = f"truth {truth}, predicted {prediction} ({score})"
    place = Path(name(one.sample))
    title = printable("/".join(place.parts[-2:]))  # folder of a class, and file
    return Example(caption=said, pictures=[Picture(title=title, image=picture(one.sample))])
