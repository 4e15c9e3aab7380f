"""The average over the paper's six ImageNet sets (Table 5)."""

from collections.abc import Mapping
from typing import Any

from eva_engine.evaluation.classification_report import average_and_gap, table
from eva_engine.evaluation.counting import Score

PAPER_SETS = (  # in the order of Table 5; the gap is between the first and the average
    "ImageNet-1K",
    "ImageNet-V2",
    "ImageNet-ReaL",
    "ImageNet-A",
    "ImageNet-R",
    "ImageNet-Sketch",
)


def table_with_average(scores: Mapping[str, Score]) -> str:
    """Write scores as a table, with average and gap below it where all six sets are there.

    Args:
        scores: Set -> score.

    Returns:
        Lines of text.
    """
    lines = [table(scores)]
    both = average_and_gap({name: score.top1 for name, score in scores.items()}, PAPER_SETS)
    if both is not None:
        lines.append(f"{'average of six':16} {'':8} {both[0]:8.3f}")
        lines.append(f"{'gap to 1K':16} {'':8} {both[1]:8.3f}")
    elif PAPER_SETS[0] in scores and len(scores) > 1:
        missing = [name for name in PAPER_SETS if name not in scores]
        lines.append(f"no average and gap of the paper's six sets without {', '.join(missing)}")
    return "\n".join(lines)


def average_entries(scores: Mapping[str, Score]) -> dict[str, Any]:
    """Make the entries `average` and `gap` of `results.json`; None where one of the six is missing.

    Args:
        scores: Set -> score.

    Returns:
        Name -> value.
    """
    both = average_and_gap({name: score.top1 for name, score in scores.items()}, PAPER_SETS)
    average, gap = both if both is not None else (None, None)
    return {"average": average, "gap": gap}
