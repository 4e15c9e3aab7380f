"""Count correct predictions: each sample once, whatever the number of processes.

A sample is an input with a label. The model turns a batch of inputs into logits, whether they are
images (B, 3, H, W), clips (B, T, 3, H, W) or several views of each (B, V, ...), over which it takes
the mean itself.

Shapes: B samples, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from eva_engine import distributed
from eva_engine.config import RunConfig
from eva_engine.data.loading import evaluation_loader

MAX_CONFUSION = 2000  # classes; more would fill the memory with zeros


class LabelledSamples(Protocol):
    """A map-style data set of inputs and labels, such as those of `eva_data.labelled`."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the labels 0, 1, ..."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Any, int]: ...

    def sample_id(self, index: int) -> str:
        """Return the name of a sample, for messages."""
        ...


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
        right = _first_five(logits) == labels[:, None]
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
        right = (_first_five(logits)[:, :, None] == accepted[:, None]).any(2)  # (B, 5)
        counts = (accepted >= 0).any(1)
        loss = F.cross_entropy(logits, labels, reduction="none") * counts
        return Judged(right[:, 0], right.any(1), loss, counts)


def _first_five(logits: Tensor) -> Tensor:
    return logits.topk(min(5, logits.shape[1]), dim=1).indices


@dataclass(frozen=True, kw_only=True)
class Score:
    """Result of one rule.

    Attributes:
        samples: Number of samples that count.
        right1: Number of those whose first prediction is correct.
        right5: Number of those with a correct prediction among the first five.
        loss: Mean cross-entropy over the samples that count.
    """

    samples: int
    right1: int
    right5: int
    loss: float

    @property
    def top1(self) -> float:
        """Accuracy in percent."""
        return 100 * self.right1 / self.samples

    @property
    def top5(self) -> float:
        """Accuracy of the first five predictions in percent."""
        return 100 * self.right5 / self.samples

    @property
    def mean_top1_top5(self) -> float:
        """Mean of both accuracies in percent, the main score of Kinetics' challenges."""
        return (self.top1 + self.top5) / 2


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Result of a data set.

    Attributes:
        scores: Rule -> score.
        confusion: (K, K), samples of each label (row) that went to each class; None if not wanted.
        right5: (K,), samples of each label with a correct prediction among the first five.
    """

    scores: Mapping[str, Score]
    confusion: Tensor | None = None
    right5: Tensor | None = None

    @property
    def mean_per_class(self) -> float:
        """Mean over the classes that have samples of their accuracies in percent."""
        assert self.confusion is not None
        samples = self.confusion.sum(1)
        shares = self.confusion.diagonal()[samples > 0].double() / samples[samples > 0]
        return 100 * shares.mean().item()


class _Indexed(Dataset[tuple[Any, int, int]]):
    def __init__(self, samples: LabelledSamples) -> None:
        self.samples = samples

    def __getitem__(self, index: int) -> tuple[Any, int, int]:
        return *self.samples[index], index


def count(
    model: nn.Module,
    samples: LabelledSamples,
    rules: Mapping[str, Rule],
    *,
    device: torch.device,
    batch_size: int = 64,
    workers: int = 0,
    confusion: bool = False,
    progress: str | None = None,
) -> Counted:
    """Count correct predictions; called on all processes, each of which takes its share.

    Args:
        model: Model with logits (B, K), in evaluation mode on the device.
        samples: Inputs and labels.
        rules: Name -> rule.
        device: Device of the model.
        batch_size: Samples of a forward pass.
        workers: Processes that load.
        confusion: Count the classes of the predictions too.
        progress: Title of a progress bar in the first process; None shows none.

    Returns:
        The counts of all processes, the same on each.

    Raises:
        FloatingPointError: If the logits are not finite.
        OSError: If a sample cannot be read.
        ValueError: If the confusion of too many classes is wanted.
    """
    classes = len(samples.classes)
    if confusion and classes > MAX_CONFUSION:
        raise ValueError(f"confusion of {classes} classes: at most {MAX_CONFUSION} are counted")
    own = distributed.own_share(len(samples))
    sums = {name: torch.zeros(4, dtype=torch.float64, device=device) for name in rules}
    pairs = torch.zeros(classes * classes if confusion else 0, dtype=torch.float64, device=device)
    fives = torch.zeros(classes if confusion else 0, dtype=torch.float64, device=device)
    dtype = next(parameter.dtype for parameter in model.parameters())
    with evaluation_loader(
        Subset(_Indexed(samples), own), batch_size=batch_size, workers=workers,
        pin_memory=device.type == "cuda", progress=progress,
    ) as batches:  # fmt: skip
        for inputs, labels, indexes in batches:
            labels = labels.to(device, non_blocking=True)
            with torch.inference_mode():
                logits = model(inputs.to(device, dtype, non_blocking=True)).float()  # (B, K)
            finite = logits.isfinite().all(1).cpu()
            if not finite.all():
                name = samples.sample_id(int(indexes[~finite][0]))
                raise FloatingPointError(f"logits of {name} are not finite: use fp32 or bf16")
            for name, rule in rules.items():
                judged = rule(logits, labels, indexes)
                columns = (judged.counts, judged.top1, judged.top5, judged.loss)
                sums[name] += torch.stack([column.double().sum() for column in columns])
            if confusion:
                # not argmax, which breaks ties in another way than `OneLabel`
                cells = labels * classes + _first_five(logits)[:, 0]
                pairs += torch.bincount(cells, minlength=len(pairs))
                fives += torch.bincount(labels[OneLabel()(logits, labels, indexes).top5],
                                        minlength=classes)  # fmt: skip
    flat = torch.cat([*sums.values(), pairs, fives]).tolist()
    total = torch.tensor(distributed.sum_over_ranks(flat, device), dtype=torch.float64)
    head = total[: 4 * len(rules)].reshape(-1, 4).tolist()
    scores = {name: _score(name, row) for name, row in zip(rules, head, strict=True)}
    if not confusion:
        return Counted(scores=scores)
    rest = total[4 * len(rules) :].long()
    return Counted(
        scores=scores,
        confusion=rest[:-classes].reshape(classes, classes),
        right5=rest[-classes:],
    )


def _score(name: str, row: list[float]) -> Score:
    if not row[0]:
        raise ValueError(f"no sample counts in {name}")
    return Score(samples=int(row[0]), right1=int(row[1]), right5=int(row[2]), loss=row[3] / row[0])


class Validation:
    """Accuracy on validation samples during a run, each counted once.

    Args:
        samples: Inputs and labels.
        run: Batch size and workers.
        device: Device of the model.

    Attributes:
        results: Names of the results.
    """

    results = ("loss", "top1", "top5")

    def __init__(self, samples: LabelledSamples, run: RunConfig, device: torch.device) -> None:
        self._samples, self._run, self._device = samples, run, device

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Compute loss, and accuracies in percent; called on all processes.

        Args:
            model: The model in evaluation mode.

        Returns:
            `loss`, `top1` and `top5`.
        """
        counted = count(
            model,
            self._samples,
            {"val": OneLabel()},
            device=self._device,
            batch_size=self._run.batch_size,
            workers=self._run.workers,
        )
        score = counted.scores["val"]
        return {name: getattr(score, name) for name in self.results}
