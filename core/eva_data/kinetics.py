"""The classes of Kinetics-400, 600 and 700, and of Kinetics-722, which merges them.

`kinetics_classes.csv` has a row for each class of Kinetics-722 (paper section A.2): its name, and
its label in Kinetics-400, 600 and 700, where it is one of theirs. Every dataset numbers its classes
by their sorted names. Kinetics-722 takes names for classes, but for three that another spelling
keeps apart (`ALIASES`).
"""

import csv
import difflib
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TABLE = Path(__file__).with_name("kinetics_classes.csv")
SOURCES = ("k400", "k600", "k700")
TITLES: Mapping[str, str] = {name: f"Kinetics-{name[1:]}" for name in (*SOURCES, "k722")}
# Data set -> its own name of a class -> the name in Kinetics-722.
ALIASES: Mapping[str, Mapping[str, str]] = {
    "k400": {
        "changing wheel": "changing wheel (not on bike)",
        "cooking sausages": "cooking sausages (not on barbeque)",
    },
    "k600": {
        "passing american football (not in game)": "passing American football (not in game)",
    },
    "k700": {},
}


@functools.cache
def kinetics_classes(name: str) -> tuple[str, ...]:
    """Name the classes of a dataset, in the order of its labels.

    Args:
        name: `k400`, `k600`, `k700` or `k722`.

    Raises:
        ValueError: If it is another name.
    """
    if name == "k722":
        return tuple(row["name"] for row in _rows())
    merged = kinetics_classes("k722")
    own = {here: there for there, here in ALIASES.get(name, {}).items()}
    return tuple(own.get(merged[index], merged[index]) for index in mapping("k722", name))


def mapping(merged: str, name: str) -> NDArray[np.int64]:
    """Map the labels of a dataset to those of Kinetics-722, which merges it.

    These are the official `k722_to_k400_mapping.npy` and so on: the rows of a head for the merged
    dataset that belong to the classes of the other. They increase.

    Args:
        merged: `k722`.
        name: `k400`, `k600` or `k700`.

    Returns:
        The label in `merged` of each class of `name`, (number of classes,).

    Raises:
        ValueError: If one of them is another name.
    """
    if merged != "k722" or name not in SOURCES:
        raise ValueError(
            f"{name!r} is not a dataset of Kinetics ({', '.join(SOURCES)}) in {merged!r}"
        )
    pairs = {int(row[name]): index for index, row in enumerate(_rows()) if row[name]}
    return np.array([pairs[label] for label in range(len(pairs))], dtype=np.int64)


def official_classes(num_classes: int) -> tuple[str, ...] | None:
    """Name the classes of official weights, which carry none, by the rows of their head.

    Args:
        num_classes: Rows of the head.

    Returns:
        The names for 400, 600, 700 and 722 rows; None for other numbers.
    """
    name = f"k{num_classes}"
    return kinetics_classes(name) if name in (*SOURCES, "k722") else None


def find_classes(names: Sequence[str], name: str) -> NDArray[np.int64]:
    """Find classes of a dataset by their names, as people write them on folders.

    Only letters and digits count, in either case: `passing_American_football_(not_in_game)`.

    Args:
        names: Names of classes.
        name: `k400`, `k600` or `k700`.

    Returns:
        The label in Kinetics-722 of each, (number of names,).

    Raises:
        ValueError: If one is not a class of the dataset; it names the classes that are close.
    """
    labels = _labels_by_key(name)
    if strange := [text for text in names if _key(text) not in labels]:
        explained = "; ".join(_explain(text, name) for text in strange[:5])
        more = f"; and {len(strange) - 5} more" if len(strange) > 5 else ""
        raise ValueError(
            f"{len(strange)} of {len(names)} classes are not among those of {TITLES[name]}: "
            f"{explained}{more}"
        )
    return np.array([labels[_key(text)] for text in names], dtype=np.int64)


def _explain(text: str, name: str) -> str:
    """Say what a name that is not a class of a dataset may be."""
    for other in SOURCES:
        if _key(text) in _labels_by_key(other):
            return f"{text!r} (a class of {TITLES[other]})"
    lower = {own.lower(): own for own in kinetics_classes(name)}
    near = difflib.get_close_matches(text.replace("_", " ").lower(), lower, n=2)
    return f"{text!r} (close: {', '.join(lower[own] for own in near)})" if near else repr(text)


@functools.cache
def _labels_by_key(name: str) -> dict[str, int]:
    merged = kinetics_classes("k722")
    pairs = {_key(merged[index]): int(index) for index in mapping("k722", name)}
    own = dict(zip(kinetics_classes(name), mapping("k722", name), strict=True))
    return pairs | {_key(alias): int(own[alias]) for alias in ALIASES[name]}


def _key(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


@functools.cache
def _rows() -> tuple[dict[str, str], ...]:
    text = TABLE.read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))
