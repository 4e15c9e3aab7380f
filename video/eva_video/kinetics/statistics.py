"""Numbers of the lists of Kinetics, beside those that were published."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eva_data.kinetics import SOURCES, TITLES, kinetics_classes, mapping
from eva_video.kinetics.merging import Kept

# Videos that the authors of EVA could still find on YouTube, without damaged files: the training
# lists of paper Table 14, and the validation lists of their logs.
PUBLISHED: Mapping[str, int] = {
    "k400_train": 234_584,
    "k600_train": 412_688,
    "k700_train": 534_063,
    "k722_train": 629_395,
    "k400_val": 19_760,
    "k600_val": 29_779,
    "k700_val": 33_914,
    "k722_val": 69_692,
}
_COLUMNS = ("list", "read", "repeated", "leaked", "kept", "published", "relabelled", "classes")
_MOST_NAMED = 8


def describe(name: str, kept: Kept, labels: NDArray[np.int64]) -> dict[str, Any]:
    """Describe a list for the file of statistics.

    Args:
        name: Name of the list, such as `k600_val`.
        kept: What stays of it.
        labels: Labels in Kinetics-722 of what was read, (`kept.read`,).

    Returns:
        Counts, the published count, and the classes without a video.
    """
    there = set(labels[kept.indices].tolist())
    return {
        "read": kept.read,
        "repeated": kept.repeated,
        "leaked": dict(kept.leaked),
        "kept": len(kept.indices),
        "relabelled": kept.relabelled,
        "published": PUBLISHED[name],
        "classes": len(there),
        "classes_without_videos": [
            kinetics_classes("k722")[label] for label in _labels(name) if label not in there
        ],
    }


def _labels(name: str) -> Sequence[int]:
    source = name.partition("_")[0]
    merged: list[int] = mapping("k722", source).tolist() if source in SOURCES else [*range(722)]
    return merged


def table(lists: Mapping[str, Mapping[str, Any]]) -> str:
    """Write the counts of all lists as a table.

    Args:
        lists: Results of `describe` by the name of the list.

    Returns:
        A line for each list, under one of titles.
    """
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for name, one in lists.items():
        leaked = sum(one["leaked"].values())
        numbers = {**one, "leaked": leaked}
        rows.append((name, *(f"{numbers[column]:,}" for column in _COLUMNS[1:])))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def remarks(statistics: Mapping[str, Any]) -> list[str]:
    """Say in sentences what a reader of the table has to know.

    Args:
        statistics: Content of the file of statistics.

    Returns:
        The sentences.
    """
    lists, given = statistics["lists"], statistics["data_sets"]
    merged = lists["k722_train"]
    said = []
    if missing := [TITLES[name] for name in SOURCES if name not in given]:
        said.append(
            f"this is not Kinetics-722: it lacks the videos of {' and '.join(missing)}, and those "
            "of their validation lists may be in k722_train"
        )
    if merged["relabelled"]:
        said.append(
            f"{merged['relabelled']:,} videos of k722_train have another class where they are met "
            "again; as in the official lists they keep the first one (K-400, K-600, K-700)"
        )
    if statistics["keep_k400_leaks"] and "k400" in given:
        said.append("k400_train may hold videos of k400_val, as the official list does")
    for name, one in lists.items():
        own = one["classes_without_videos"]
        if own and (name.partition("_")[0] in given or not missing):
            shown = ", ".join(own[:_MOST_NAMED])
            more = f" and {len(own) - _MOST_NAMED} more" if len(own) > _MOST_NAMED else ""
            said.append(f"{name} has no video of {len(own)} classes: {shown}{more}")
    return said
