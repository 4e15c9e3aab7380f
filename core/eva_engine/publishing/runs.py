"""A run of any trainer, as far as it is published; the three kinds are in `KINDS`."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is known of a finished or stopped run.

    Attributes:
        folder: Output folder.
        task: `pretrain`, `classification`, `clip`, `detection`, `mmdetection`, `segmentation` or
            `video`.
        trainer: Program that trained, for the card.
        weights: File of the weights.
        read: Reads it: name -> tensor.
        metadata: Texts that the published `.safetensors` holds beside the tensors.
        recipe: Resolved settings as text.
        recipe_name: File name of the published settings.
        step: Optimizer steps, or epochs, behind the weights.
        steps: Steps, or epochs, of the complete run; None if that is not recorded.
        unit: What `step` and `steps` count: `step` or `epoch`.
        scores: Name of a metric -> value, of these weights.
        data: Use (`train`, `val`) -> names or places of the data.
        own_data: The data was given on the command line, in COCO format.
        facts: Further sentences about the training, for the card.
        begun_from: Weights that the run began with, by name or path; "" for none.
        hours: Hours of its steps by the log; None if the log does not say.
        processes: Processes of the training; None if that is not recorded.
    """

    folder: Path
    task: str
    trainer: str
    weights: Path
    read: Callable[[Path], Mapping[str, Tensor]]
    metadata: Mapping[str, str] = field(default_factory=dict)
    recipe: str
    recipe_name: str
    step: int
    steps: int | None = None
    unit: str = "step"
    scores: Mapping[str, float] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    own_data: bool = False
    facts: Sequence[str] = ()
    begun_from: str = ""
    hours: float | None = None
    processes: int | None = None


def lines_of(file: Path) -> Iterator[dict[str, Any]]:
    """Read a log of JSON lines; lines that are cut off or not tables are left out.

    Args:
        file: The log; it need not be there.

    Yields:
        Each line.
    """
    if not file.is_file():
        return
    with file.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            try:
                content = json.loads(line)
            except ValueError:
                continue
            if isinstance(content, dict):
                yield content


def finite(values: Mapping[str, Any]) -> dict[str, float]:
    """Keep what is a finite number."""
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
