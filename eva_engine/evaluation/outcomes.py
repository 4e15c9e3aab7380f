"""The samples of an evaluation that people look at: confident and wrong, confident and right.

Shapes: B samples, K classes.
"""

import heapq
from collections.abc import Mapping
from typing import NamedTuple

from eva_engine import distributed
from eva_engine.evaluation.counting import BatchResults
from eva_engine.evaluation.rules import first_five

MOST = 12  # of each kind


class Outcome(NamedTuple):
    """What became of a sample.

    Attributes:
        confidence: Probability of the prediction.
        sample: Index of the sample in its data set.
        label: Its label.
        prediction: The class that the model found most probable.
    """

    confidence: float
    sample: int
    label: int
    prediction: int


class Outcomes:
    """Keeps the samples of an evaluation that a report shows; `add` is `count`'s `receive`.

    Args:
        most: Number of wrong ones that are kept.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._wrong: list[Outcome] = []
        self._right: dict[int, Outcome] = {}  # the most confident one of each class

    def add(self, results: BatchResults) -> None:
        """Look at a batch of this process."""
        if not len(results.labels):
            return
        chosen = first_five(results.logits)[:, :1]  # (B, 1)
        shares = results.logits.softmax(dim=1).gather(1, chosen)
        columns = (shares[:, 0], results.indexes, results.labels, chosen[:, 0])
        for one in map(Outcome, *(column.tolist() for column in columns)):
            if one.label == one.prediction:
                self._right[one.label] = max(one, self._right.get(one.label, one))
            else:
                self._wrong.append(one)
        self._wrong = heapq.nlargest(self._most, self._wrong)

    def own(self) -> tuple[list[Outcome], list[Outcome]]:
        """Return those of this process, as `gathered` does those of all."""
        return self._wrong, heapq.nlargest(self._most, self._right.values())

    def gathered(self) -> tuple[list[Outcome], list[Outcome]]:
        """Collect those of all processes; the same call on all of them.

        Returns:
            Wrong ones and right ones of different classes, the most confident first.
        """
        wrong = [one for part in distributed.gather(self._wrong) for one in part]
        right: dict[int, Outcome] = {}
        parts: list[Mapping[int, Outcome]] = distributed.gather(self._right)
        for part in parts:
            for label, one in part.items():
                right[label] = max(one, right.get(label, one))
        most = self._most
        return heapq.nlargest(most, wrong), heapq.nlargest(most, right.values())
