"""Names of the classes that a classifier of videos knows."""

import os
from collections.abc import Sequence

from eva_data.classes import names_of_head
from eva_data.kinetics import SOURCES, TITLES, kinetics_classes, mapping, official_classes

MERGED = ("k722", "k710")


def class_names(
    num_classes: int,
    *,
    given: Sequence[str] | str | os.PathLike[str] | None = None,
    source: str = "the weights",
) -> tuple[str, ...] | None:
    """Name the classes of a head.

    Args:
        num_classes: Rows of the head.
        given: Names, or a file of them; such as those that the weights note of their training.
        source: Name of the weights, for messages.

    Returns:
        The names; without `given` those of Kinetics-400, 600, 700 or 722 by the number of rows, or
        None for other numbers.

    Raises:
        ValueError: If there are more or fewer names than rows, or the file cannot be read.
    """
    if given is None:
        return official_classes(num_classes)
    return names_of_head(given, num_classes, source=source)


def subset_of(num_classes: int, subset: str) -> tuple[tuple[str, ...], list[int]]:
    """Find the classes of a data set in a head for one that merges it.

    Args:
        num_classes: Rows of the head.
        subset: `k400`, `k600` or `k700`.

    Returns:
        Names of the classes, and the row of each.

    Raises:
        ValueError: If the head is not for Kinetics-722 or Kinetics-710.
    """
    sizes = {len(kinetics_classes(name)): name for name in MERGED}
    if num_classes not in sizes:
        raise ValueError(
            f"--subset {subset} picks classes out of {' or '.join(TITLES[name] for name in MERGED)}"
            f", and the weights have {num_classes} classes: leave it out"
        )
    assert subset in SOURCES
    return kinetics_classes(subset), mapping(sizes[num_classes], subset).tolist()
