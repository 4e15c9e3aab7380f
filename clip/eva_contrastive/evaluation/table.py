"""The tables of a zero-shot evaluation: as Table 10b of the paper, and one of retrieval.

Published numbers, in percent, are those of the official README of EVA-CLIP-g and of Table 10b.
Which videos of Kinetics were evaluated is not published; their numbers are those of the official
lists.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from eva_contrastive.evaluation.retrieval import RANKS, Retrieval
from eva_engine.evaluation.classification_report import average_and_gap
from eva_engine.evaluation.counting import Score
from eva_report.terminal import align_columns

PAPER = "EVA-CLIP-g"
HEADS = ("set", "samples", "top-1", "top-5", "(1+5)/2", "class mean", PAPER)
RETRIEVAL_HEADS = (
    *("set", "images", "captions"),
    *(f"{way} R@{rank}" for way in ("I->T", "T->I") for rank in RANKS),
)
Row = Sequence[Any]  # of text, numbers and None


class Published(NamedTuple):
    """Published accuracy of a set, top-1 or Kinetics' mean of top-1 and top-5, and its samples."""

    accuracy: float
    samples: int


SETS: Mapping[str, Published] = {
    "ImageNet-1K": Published(78.53, 50_000),
    "ImageNet-V2": Published(71.52, 10_000),
    "ImageNet-A": Published(73.59, 7_500),
    "ImageNet-R": Published(92.50, 30_000),
    "ImageNet-Sketch": Published(67.31, 50_889),
    "ObjectNet": Published(72.33, 18_574),
    "CIFAR-10": Published(98.31, 10_000),
    "CIFAR-100": Published(88.66, 10_000),
    "UCF-101": Published(76.05, 3_783),
    "Kinetics-400": Published((54.04 + 76.42) / 2, 19_760),
    "Kinetics-600": Published((52.76 + 75.99) / 2, 29_779),
    "Kinetics-700": Published((46.65 + 70.16) / 2, 33_914),
}
SHIFTS = tuple(SETS)[:6]  # the gap is that of the first to the mean of all six
RETRIEVAL = {  # images of the complete set, and published recalls as in `RETRIEVAL_HEADS`
    "Flickr30k": (1_000, (88.3, 98.3, 99.3, 72.64, 91.6, 95.12)),
    "COCO": (5_000, (61.76, 83.28, 89.96, 44.07, 68.5, 77.33)),
}


@dataclass
class Results:
    """What an evaluation has found so far, by the names of its sets."""

    scores: dict[str, Score] = field(default_factory=dict)
    class_means: dict[str, float] = field(default_factory=dict)  # of accuracies
    retrieval: dict[str, Retrieval] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)  # reasons


def main_score(name: str, score: Score) -> float:
    """Give the accuracy that counts: of Kinetics the mean of top-1 and top-5, else top-1."""
    return score.mean_top1_top5 if name.startswith("Kinetics") else score.top1


def published_score(name: str, score: Score) -> float | None:
    """Give the `main_score` of EVA-CLIP-g; None for other sets, and for parts of a set."""
    published = SETS.get(name)
    return (
        published.accuracy if published is not None and score.samples >= published.samples else None
    )


def expected_retrieval(name: str, retrieval: Retrieval) -> Sequence[float]:
    """Give the recalls of EVA-CLIP-g; none for other sets, and for parts of a set."""
    images, recalls = RETRIEVAL.get(name, (0, ()))
    return recalls if retrieval["images"] == images else ()


def summary(scores: Mapping[str, Score]) -> dict[str, float | None]:
    """Compute the `average` of the twelve sets and the `gap` of robustness; None where sets lack.

    The gap is that of ImageNet-1K's top-1 to the mean of it and its five variants, as in the
    paper. Kinetics counts with the mean of top-1 and top-5.
    """
    values = {name: main_score(name, score) for name, score in scores.items()}
    complete, shifts = average_and_gap(values, tuple(SETS)), average_and_gap(values, SHIFTS)
    return {"average": complete and complete[0], "gap": shifts and shifts[1]}


def accuracy_rows(results: Results) -> list[Row]:
    """Make the rows below `HEADS`, with the average and the gap."""
    rows: list[Row] = []
    for name, score in results.scores.items():
        mean = score.mean_top1_top5 if name.startswith("Kinetics") else None
        more = (mean, results.class_means.get(name), published_score(name, score))
        rows.append((name, score.samples, score.top1, score.top5, *more))
    mean_scores = summary(results.scores)
    for title, value in (
        ("average of 12", mean_scores["average"]),
        ("robustness gap", mean_scores["gap"]),
    ):
        if value is not None:
            rows.append((title, None, value, None, None, None, None))
    return rows


def retrieval_rows(results: Results) -> list[Row]:
    """Make the rows below `RETRIEVAL_HEADS`, with those of the paper."""
    rows: list[Row] = []
    for name, retrieval in results.retrieval.items():
        rows.append((name, *retrieval.values()))
        paper = expected_retrieval(name, retrieval)
        if paper:
            rows.append((f"  {PAPER}", None, None, *paper))
    return rows


def aligned(results: Results) -> str:
    """Format the tables that have rows for the terminal."""

    def write(cell: str | float | None) -> str:
        return f"{cell:.2f}" if isinstance(cell, float) else "" if cell is None else str(cell)

    tables = [[HEADS, *accuracy_rows(results)], [RETRIEVAL_HEADS, *retrieval_rows(results)]]
    return "\n".join(
        align_columns([[write(cell) for cell in row] for row in rows])
        for rows in tables
        if len(rows) > 1
    )


def further_entries(results: Results) -> dict[str, dict[str, float]]:
    """Make further entries of the sets of classes for `results.json`."""
    entries = {
        name: {"mean_top1_top5": score.mean_top1_top5} for name, score in results.scores.items()
    }
    for name, value in results.class_means.items():
        entries[name]["mean_per_class"] = value
    return entries
