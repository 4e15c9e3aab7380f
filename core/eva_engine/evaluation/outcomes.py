"""The samples of an evaluation that people look at: confident and wrong, confident and right.

Shapes: B samples, K classes.
"""

import heapq
from typing import NamedTuple

import torch
from torch import Tensor

from eva_engine import distributed
from eva_engine.evaluation.counting import MAX_CONFUSION, BatchResults, Counted
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

    def gathered(self) -> tuple[list[Outcome], list[Outcome]]:
        """Collect those of all processes; the same call on all of them.

        Returns:
            Wrong ones and right ones of different classes, the most confident first.
        """
        everyone = Outcomes(self._most)
        parts: list[tuple[list[Outcome], dict[int, Outcome]]] = distributed.gather(
            (self._wrong, self._right)
        )
        for wrong, right in parts:
            everyone._wrong += wrong
            for label, one in right.items():
                everyone._right[label] = max(one, everyone._right.get(label, one))
        return everyone.kept()

    def kept(self) -> tuple[list[Outcome], list[Outcome]]:
        """Return those of this process, as `gathered` does those of all."""
        most = self._most
        return heapq.nlargest(most, self._wrong), heapq.nlargest(most, self._right.values())


def counted_of(
    logits: Tensor, labels: Tensor
) -> tuple[Counted, tuple[list[Outcome], list[Outcome]]]:
    """Count what a cheap classifier said, on the process that has all of it.

    Args:
        logits: (M, K).
        labels: (M,).

    Returns:
        Counts with the confusion of at most `MAX_CONFUSION` classes, and wrong and right samples.
    """
    classes, five = logits.shape[1], first_five(logits)
    outcomes = Outcomes()
    outcomes.add(BatchResults(torch.arange(len(labels)), labels, logits, None, {}))
    if classes > MAX_CONFUSION:
        return Counted(scores={}), outcomes.kept()
    cells = labels * classes + five[:, 0]
    right = (five == labels[:, None]).any(1)
    counted = Counted(
        scores={},
        confusion=torch.bincount(cells, minlength=classes**2).reshape(classes, classes).cpu(),
        right5=torch.bincount(labels[right], minlength=classes).cpu(),
    )
    return counted, outcomes.kept()
