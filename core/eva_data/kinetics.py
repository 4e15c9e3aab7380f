"""The classes of Kinetics-400, 600 and 700, and of the two that merge them.

`kinetics_classes.csv` has a row for each class of Kinetics-722 (paper section A.2): its name, its
label in Kinetics-400, 600 and 700, where it is one of theirs, and in Kinetics-710.
Every dataset but Kinetics-710 numbers its classes by their sorted names.

Kinetics-722 takes names for classes, but for three that another spelling keeps apart (`ALIASES`).
Kinetics-710 (VideoMAE V2, `misc/` of its repository) also merges those of `MERGED_IN_K710`, and
numbers its classes by a list of its own. In one place that list and the table of merged classes
contradict each other: the list calls label 348 `throwing ball`, which the table merges into
`throwing ball (not baseball or American football)`, and lacks `chopping vegetables`. Here the
table holds, and `chopping vegetables` has the label that it leaves free.
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
TITLES: Mapping[str, str] = {name: f"Kinetics-{name[1:]}" for name in (*SOURCES, "k722", "k710")}
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
# Class of Kinetics-722 -> the one whose label it has in Kinetics-710.
MERGED_IN_K710: Mapping[str, str] = {
    "balloon blowing": "inflating balloons",
    "drinking": "sipping cup",
    "dying hair": "dyeing hair",
    "garbage collecting": "person collecting garbage",
    "hugging": "hugging (not baby)",
    "making bed": "making the bed",
    "opening bottle": "opening bottle (not wine)",
    "picking fruit": "picking apples",
    "skiing (not slalom or crosscountry)": "skiing mono",
    "sniffing": "smelling feet",
    "throwing ball": "throwing ball (not baseball or American football)",
    "tying tie": "tying necktie",
}


@functools.cache
def kinetics_classes(name: str) -> tuple[str, ...]:
    """Name the classes of a dataset, in the order of its labels.

    Args:
        name: `k400`, `k600`, `k700`, `k722` or `k710`.

    Raises:
        ValueError: If it is another name.
    """
    if name == "k722":
        return tuple(row["name"] for row in _rows())
    if name == "k710":
        kept = {int(r["k710"]): r["name"] for r in _rows() if r["name"] not in MERGED_IN_K710}
        return tuple(kept[label] for label in range(len(kept)))
    merged = kinetics_classes("k722")
    own = {here: there for there, here in ALIASES[_source(name)].items()}
    return tuple(own.get(merged[index], merged[index]) for index in mapping("k722", name))


def mapping(merged: str, name: str) -> NDArray[np.int64]:
    """Map the labels of a dataset to those of one that merges it.

    These are the official `k722_to_k400_mapping.npy` and so on: the rows of a head for the merged
    dataset that belong to the classes of the other. Those of `k722` increase.

    Args:
        merged: `k722` or `k710`.
        name: `k400`, `k600` or `k700`.

    Returns:
        The label in `merged` of each class of `name`, (number of classes,).

    Raises:
        ValueError: If one of them is another name.
    """
    _source(name)
    if merged not in ("k722", "k710"):
        raise ValueError(f"k722 and k710 are the datasets that merge others, got {merged!r}")
    pairs = {
        int(row[name]): index if merged == "k722" else int(row["k710"])
        for index, row in enumerate(_rows())
        if row[name]
    }
    return np.array([pairs[label] for label in range(len(pairs))], dtype=np.int64)


def k710_labels() -> NDArray[np.int64]:
    """Return the label in Kinetics-710 of each class of Kinetics-722, (722,)."""
    return np.array([int(row["k710"]) for row in _rows()], dtype=np.int64)


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


def _source(name: str) -> str:
    if name not in SOURCES:
        raise ValueError(
            f"{name!r} is not a dataset of Kinetics: {', '.join(SOURCES)}, and k722 and k710, "
            "which merge them"
        )
    return name


@functools.cache
def _rows() -> tuple[dict[str, str], ...]:
    text = TABLE.read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))
