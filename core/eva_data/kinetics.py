"""The classes of Kinetics-400, 600 and 700, and of Kinetics-722, which merges them (section A.2).

`kinetics_classes.csv` has a row for each class of Kinetics-722 with its labels in the others.
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
    "k600": {"passing american football (not in game)": "passing American football (not in game)"},
    "k700": {},
}


@functools.cache
def kinetics_classes(name: str) -> tuple[str, ...]:
    """Name the classes of `k400`, `k600`, `k700` or `k722`, in the order of its labels."""
    if name == "k722":
        return tuple(row["name"] for row in _rows())
    merged, labels = kinetics_classes("k722"), mapping(name)
    own = {here: theirs for theirs, here in ALIASES[name].items()}
    return tuple(own.get(merged[label], merged[label]) for label in labels)


def mapping(name: str) -> NDArray[np.int64]:
    """Map the labels of `k400`, `k600` or `k700` to those of `k722`, which merges them.

    These are the official `k722_to_k400_mapping.npy` and so on: the rows of a head for the merged
    dataset that belong to the classes of the other, (number of classes,). They increase.
    """
    pairs = {int(row[name]): index for index, row in enumerate(_rows()) if row[name]}
    return np.array([pairs[label] for label in range(len(pairs))], dtype=np.int64)


def official_classes(num_classes: int) -> tuple[str, ...] | None:
    """Name the classes of official weights by the rows of their head; None for other numbers."""
    name = f"k{num_classes}"
    return kinetics_classes(name) if name in TITLES else None


def find_classes(names: Sequence[str], name: str) -> NDArray[np.int64]:
    """Find the labels in Kinetics-722 of classes of a dataset, (number of names,).

    Only letters and digits of names count, in either case, as people write them on folders:
    `passing_American_football_(not_in_game)`. One that is no class is an error with close ones.
    """
    labels = _labels_by_key(name)
    strange = [name for name in names if _key(name) not in labels]
    if strange:
        keys = {_key(own): own for own in kinetics_classes(name)}
        close = [keys[key] for key in difflib.get_close_matches(_key(strange[0]), keys, n=2)]
        raise ValueError(
            f"{len(strange)} of {len(names)} classes are not among those of {TITLES[name]}: "
            f"{', '.join(strange[:5])}; close to the first: {', '.join(close) or 'none'}"
        )
    return np.array([labels[_key(name)] for name in names], dtype=np.int64)


@functools.cache
def _labels_by_key(name: str) -> dict[str, int]:
    merged = kinetics_classes("k722")
    pairs = {_key(merged[index]): int(index) for index in mapping(name)}
    own = dict(zip(kinetics_classes(name), mapping(name), strict=True))
    return pairs | {_key(alias): int(own[alias]) for alias in ALIASES[name]}


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


@functools.cache
def _rows() -> tuple[dict[str, str], ...]:
    return tuple(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()))
