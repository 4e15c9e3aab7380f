"""What a run has logged in all of its starts: losses, learning rates and scores."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eva_report.content import Curve, Curves

Entry = Mapping[str, Any]
STEP = "step"


def read_scalars(folder: Path) -> list[Entry]:
    """Read `*/vis_data/scalars.json` of a run (one JSON object a line), in order of iterations.

    A run that was stopped and continued has logged some iterations twice; the later start counts.

    Args:
        folder: Work folder of the run.

    Returns:
        Entries with their `step`; losses and scores of one iteration are two.
    """
    found: dict[tuple[int, bool], Entry] = {}
    for file in sorted(folder.glob("*/vis_data/scalars.json")):  # named by their time
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):  # the run was killed in the middle of this line
                continue
            if isinstance(entry, dict) and type(entry.get(STEP)) is int:
                found[entry[STEP], is_training(entry)] = entry
    return [found[place] for place in sorted(found)]


def is_training(entry: Entry) -> bool:
    """Return whether an entry has losses; else it has scores.

    Args:
        entry: An entry of `read_scalars`.
    """
    return "loss" in entry


def curve(entries: Iterable[Entry], key: str, name: str = "", *, factor: float = 1.0) -> Curve:
    """Make the curve of a value.

    Args:
        entries: Entries of `read_scalars`.
        key: Name of the value in the log.
        name: Name of the curve; that of the value by default.
        factor: Factor of the values, such as 100 for percent.
    """
    numbers = [
        (entry[STEP], factor * float(entry[key])) for entry in entries if _is_number(entry.get(key))
    ]
    return Curve(name=name or key, points=numbers)


def training_curves(entries: Sequence[Entry], *, without: str) -> list[Curves]:
    """Make the plots of the losses and the learning rate.

    Args:
        entries: Entries of `read_scalars`.
        without: Pattern of the names of losses that are not shown, such as those of single layers.

    Returns:
        Plots; those without points are left out by the page.
    """
    names = dict.fromkeys(name for entry in entries for name in entry if "loss" in name)
    shown = [name for name in names if not re.match(without, name)]
    losses = Curves(
        title="Losses",
        x_label="iteration",
        y_label="loss",
        curves=[curve(entries, name) for name in shown],
        logarithmic=True,
        text="The sum of all losses, and those of the last layer or stage.",
    )
    name = "base_lr" if any("base_lr" in entry for entry in entries) else "lr"
    rates = Curves(
        title="Learning rate",
        x_label="iteration",
        y_label="learning rate",
        curves=[curve(entries, name, "learning rate")],
        text="Without layer decay, which lowers it from the head to the patches.",
    )
    return [losses, rates]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
