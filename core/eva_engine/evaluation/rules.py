"""Rules that say which predictions are correct.

Shapes: B samples, K classes.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Judged(NamedTuple):
    """Judgement of a batch by a rule, each (B,).

    Attributes:
        top1: Whether the first prediction is correct.
        top5: Whether one of the first five predictions is correct.
        loss: Cross-entropy; zero where the sample does not count.
        counts: Whether the sample counts at all.
    """

    top1: Tensor
    top5: Tensor
    loss: Tensor
    counts: Tensor


class Rule(Protocol):
    """Judges logits (B, K), given labels (B,) and the samples' indexes in the data set (B,)."""

    def __call__(self, logits: Tensor, labels: Tensor, indexes: Tensor) -> Judged:
        """Judge a batch."""
        ...


class OneLabel:
    """A prediction is correct if it is the label.

    Args:
        columns: Columns of the logits that compete, in the order of the labels; None takes all.
    """

    def __init__(self, columns: Sequence[int] | None = None) -> None:
        self.columns = None if columns is None else torch.tensor(columns)

    def __call__(self, logits: Tensor, labels: Tensor, indexes: Tensor) -> Judged:
        """See `Rule`."""
        if self.columns is not None:
            logits = logits[:, self.columns.to(logits.device)]
        right = first_five(logits) == labels[:, None]
        loss = F.cross_entropy(logits, labels, reduction="none")
        return Judged(right[:, 0], right.any(1), loss, torch.ones_like(right[:, 0]))


class AnyLabel:
    """A prediction is correct if it is one of the sample's labels; without any it does not count.

    Args:
        labels: All labels of each sample of the data set.
    """

    def __init__(self, labels: Sequence[Sequence[int]]) -> None:
        width = max((len(entry) for entry in labels), default=0)
        padded = [[*entry, *[-1] * (width - len(entry))] for entry in labels]
        self.labels = torch.tensor(padded, dtype=torch.int64).reshape(len(labels), width)

    def __call__(self, logits: Tensor, labels: Tensor, indexes: Tensor) -> Judged:
        """See `Rule`; the loss takes the data set's own label."""
        accepted = self.labels[indexes.cpu()].to(logits.device)  # (B, width)
        right = (first_five(logits)[:, :, None] == accepted[:, None]).any(2)  # (B, 5)
        counts = (accepted >= 0).any(1)
        loss = F.cross_entropy(logits, labels, reduction="none") * counts
        return Judged(right[:, 0], right.any(1), loss, counts)


def first_five(logits: Tensor) -> Tensor:
    """Find the classes of the largest logits: (B, 5) of (B, K), or (B, K) of fewer classes."""
    return logits.topk(min(5, logits.shape[1]), dim=1).indices
