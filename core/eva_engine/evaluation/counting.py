"""Count correct predictions: each sample once, whatever the number of processes.

Shapes: B samples, V views, K classes.
"""

import heapq
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, Subset, default_collate

from eva_data.files import printable
from eva_engine import distributed
from eva_engine.data.loading import evaluation_loader
from eva_runs.interruption import StopSignal
from eva_runs.precision import require_finite

MAX_CONFUSION = 2000  # classes; more would fill the memory with zeros
FIRST = 5  # classes among which top5 looks for the label
MOST = 12  # examples of each kind
_COLUMNS = 5  # of a sample's outcome: confidence, index, label, prediction, whether top5 has it
LEFT_OUT = "left a sample out of the validation"


class Judgement(NamedTuple):
    """Judgement of a batch by a rule, each (B,)."""

    top1: Tensor  # whether the first prediction is correct
    top5: Tensor  # whether one of the first five is
    loss: Tensor  # cross-entropy; zero where the sample does not count
    counts: Tensor  # whether the sample counts at all


# of logits (B, K), labels (B,) and the samples' indexes in the dataset (B,)
Rule = Callable[[Tensor, Tensor, Tensor], Judgement]


class OneLabel:
    """A prediction is correct if it is the label; some columns of the logits compete, or all."""

    def __init__(self, columns: Sequence[int] | None = None) -> None:
        self.columns = None if columns is None else torch.tensor(columns)

    def __call__(self, logits: Tensor, labels: Tensor, indexes: Tensor) -> Judgement:
        """Judge a batch."""
        if self.columns is not None:
            logits = logits[:, self.columns.to(logits.device)]
        right = largest_five(logits) == labels[:, None]
        loss = F.cross_entropy(logits, labels, reduction="none")
        return Judgement(right[:, 0], right.any(1), loss, torch.ones_like(right[:, 0]))


class AnyLabel:
    """A prediction is correct if it is one of the sample's labels; without any none counts."""

    def __init__(self, labels: Sequence[Sequence[int]]) -> None:
        each = [torch.tensor(entry, dtype=torch.int64) for entry in labels]
        self.labels = pad_sequence(each, batch_first=True, padding_value=-1)  # (N, width)

    def __call__(self, logits: Tensor, labels: Tensor, indexes: Tensor) -> Judgement:
        """Judge a batch; the loss takes the dataset's own label."""
        accepted = self.labels[indexes.cpu()].to(logits.device)  # (B, width)
        right = (largest_five(logits)[:, :, None] == accepted[:, None]).any(2)  # (B, 5)
        counts = (accepted >= 0).any(1)
        loss = F.cross_entropy(logits, labels, reduction="none") * counts
        return Judgement(right[:, 0], right.any(1), loss, counts)


def largest_five(logits: Tensor) -> Tensor:
    """Find the classes of the largest logits: (B, 5) of (B, K), or (B, K) of fewer classes."""
    return logits.topk(min(FIRST, logits.shape[1]), dim=1).indices


class MultiView(nn.Module):
    """Gives the mean over views of a model's probabilities, as their logarithm.

    The official evaluations of videos sum the probabilities of the views. The logarithm of their
    mean has the same order, and as logits it has that mean as its softmax. Of the model's logits
    `columns` compete, in the order of the labels; `views_per_forward` go through it at once.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        columns: Sequence[int] | None = None,
        views_per_forward: int | None = None,
    ) -> None:
        super().__init__()
        self.model, self.views_per_forward = model, views_per_forward
        self.columns = None if columns is None else list(columns)

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logarithms of the mean probabilities (B, K) and of each view's (B, V, K).

        They are float32, of views (B, V, ...).
        """
        size = views.shape[:2]
        flat = views.flatten(0, 1)  # (B * V, ...)
        parts = flat.split(self.views_per_forward or len(flat))
        logits = torch.cat([self.model(part) for part in parts]).float()
        if self.columns is not None:
            logits = logits[:, self.columns]
        each = logits.log_softmax(dim=1).unflatten(0, size)  # (B, V, K)
        return each.logsumexp(dim=1) - math.log(size[1]), each


class LabelledSamples(Protocol):
    """A map-style dataset of inputs and labels, such as those of `eva_data.labelled_images`.

    `classes` are the names of the labels 0, 1, ...; `sample_id` names a sample in messages.
    """

    @property
    def classes(self) -> Sequence[str]: ...  # noqa: D102

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Any, int]: ...

    def sample_id(self, index: int) -> str: ...  # noqa: D102


class ShownSamples(LabelledSamples, Protocol):
    """Samples that a report can show: an image itself, frames of a video side by side."""

    def image(self, index: int) -> Image.Image: ...  # noqa: D102


class Mapped(Dataset[tuple[Any, int]]):
    """What a function makes of each item, without a label (0), in the processes of a loader."""

    def __init__(self, function: Callable[[Any], Any], items: Sequence[Any]) -> None:
        self._function, self._items = function, items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self._function(self._items[index]), 0


class IndexedSamples(Dataset[tuple[Any, int, int, str]]):
    """Samples: input, label, index, and "" or why it cannot be read."""

    def __init__(self, samples: LabelledSamples | Dataset[tuple[Any, int]]) -> None:
        self.samples = samples

    def __getitem__(self, index: int) -> tuple[Any, int, int, str]:
        try:
            return *self.samples[index], index, ""
        except OSError as error:
            return None, 0, index, str(error)


def collate_readable(
    loaded: list[tuple[Any, int, int, str]],
) -> tuple[Any, Tensor, Tensor, dict[int, str]]:
    """Make a batch of those `IndexedSamples` that could be read, and reasons for the others.

    Returns:
        Inputs (None if there are none), labels and indexes, (B,), and index -> reason.
    """
    good = [sample[:3] for sample in loaded if not sample[3]]
    reasons = {index: reason for _, _, index, reason in loaded if reason}
    nothing = torch.zeros(0, dtype=torch.int64)
    return *(default_collate(good) if good else (None, nothing, nothing)), reasons


def require_few(left_out: Sequence[str], *, total: int, most: int) -> None:
    """Refuse to leave out more samples than are allowed, or all."""
    if left_out and (len(left_out) > most or len(left_out) == total):
        raise ValueError(
            f"{len(left_out)} of {total} samples cannot be read, and --max-bad-samples is {most}: "
            f"{printable(left_out[0])}"
        )


@dataclass(frozen=True, kw_only=True)
class Score:
    """Result of one rule."""

    samples: int  # that count
    right1: int  # of those, with a correct first prediction
    right5: int  # with a correct one among the first five
    loss: float  # mean cross-entropy

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


class Outcome(NamedTuple):
    """What became of a sample."""

    confidence: float  # probability of the prediction
    sample: int  # index in its dataset
    label: int
    prediction: int


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Result of a dataset."""

    scores: Mapping[str, Score]  # by rule
    confusion: Tensor | None = None  # (K, K), samples of each label (row) that went to each class
    right5: Tensor | None = None  # (K,), samples of each label with a correct one among five
    left_out: Sequence[str] = ()  # why samples could not be read, in the order of the dataset
    # for a report, the most confident first: at most `MOST`, the right ones of different classes
    wrong: Sequence[Outcome] = ()
    right: Sequence[Outcome] = ()
    outcomes: Sequence[Outcome] = ()  # of all samples that were read, in the dataset's order

    @property
    def mean_per_class(self) -> float:
        """Mean over the classes that have samples of their accuracies in percent."""
        assert self.confusion is not None
        samples = self.confusion.sum(1)
        shares = self.confusion.diagonal()[samples > 0].double() / samples[samples > 0]
        return 100 * shares.mean().item()


class BatchResults(NamedTuple):
    """What a batch of this process gave."""

    indexes: Tensor  # (B,), in the dataset, on the CPU, in increasing order
    labels: Tensor  # (B,)
    logits: Tensor  # (B, K)
    views: Tensor | None  # logits of each view (B, V, K), if the model gives them
    unreadable: Mapping[int, str]  # index -> reason for the samples that were left out


def count(
    model: nn.Module,
    samples: LabelledSamples,
    rules: Mapping[str, Rule],
    *,
    device: torch.device,
    batch_size: int = 64,
    workers: int = 0,
    details: bool = False,
    progress: str | None = None,
    max_bad_samples: int = 0,
    receive: Callable[[BatchResults], None] | None = None,
    stop: StopSignal | None = None,
) -> Counted:
    """Count correct predictions; called on all processes, each of which takes its share.

    Args:
        model: Model with logits (B, K), in evaluation mode on the device; or with those and the
            logits of each view (B, V, K), as a pair.
        samples: Inputs and labels.
        rules: Name -> rule.
        device: Device of the model.
        batch_size: Samples of a forward pass.
        workers: Processes that load.
        details: Keep what became of all samples, and the confusion of at most `MAX_CONFUSION`
            classes; all columns of the logits are labels.
        progress: Title of a progress bar in the first process; None shows none.
        max_bad_samples: Samples that may be left out because they cannot be read.
        receive: Function that is given the results of each batch of this process, in order.
        stop: Signal of a run, which ends the evaluation.

    Raises:
        FloatingPointError: If the logits are not finite.
        ValueError: If more samples than allowed cannot be read, or no sample counts.
    """
    classes, left_out = len(samples.classes), dict[int, str]()
    judged = [torch.zeros(0, _COLUMNS + 4 * len(rules), dtype=torch.float64)]
    dtype = next(parameter.dtype for parameter in model.parameters())
    with evaluation_loader(
        Subset(IndexedSamples(samples), distributed.rank_indices(len(samples))),
        batch_size=batch_size,
        workers=workers,
        pin_memory=device.type == "cuda",
        progress=progress,
        collate=collate_readable,
        stop=stop,
    ) as batches:
        for inputs, labels, indexes, unreadable in batches:
            labels = labels.to(device, non_blocking=True)
            logits, views = torch.zeros(0, classes, device=device), None
            if len(labels):
                with torch.inference_mode():
                    output = model(inputs.to(device, dtype, non_blocking=True))
                logits, views = output if isinstance(output, tuple) else (output, None)
                logits = logits.float()  # (B, K)
                finite = logits.isfinite().all(1).cpu()
                if not finite.all():
                    name = samples.sample_id(int(indexes[~finite][0]))
                    require_finite(logits, f"logits of {name}")
                judged.append(_judge(logits, labels, indexes, rules))
            left_out |= unreadable
            require_few([*left_out.values()], total=len(samples), most=max_bad_samples)
            if receive is not None:
                receive(BatchResults(indexes, labels, logits, views, unreadable))
    parts = distributed.gather((torch.cat(judged), left_out))
    left_out = {index: reason for _, part in parts for index, reason in part.items()}
    rows = torch.cat([part for part, _ in parts])
    counted = _sum_up(rows, rules, left_out, classes=classes if details else 0)
    require_few(counted.left_out, total=len(samples), most=max_bad_samples)
    return counted


def _judge(logits: Tensor, labels: Tensor, indexes: Tensor, rules: Mapping[str, Rule]) -> Tensor:
    """Make a row of each sample: `_COLUMNS` of its outcome, and four of each rule, on the CPU."""
    five = largest_five(logits)  # not argmax, which breaks ties in another way than `OneLabel`
    shares = logits.softmax(dim=1).gather(1, five[:, :1])[:, 0]
    columns = [shares, indexes, labels, five[:, 0], (five == labels[:, None]).any(1)]
    for rule in rules.values():
        verdict = rule(logits, labels, indexes)
        columns += [verdict.counts, verdict.top1, verdict.top5, verdict.loss]
    return torch.stack([column.cpu().double() for column in columns], dim=1)


def _sum_up(
    rows: Tensor, rules: Collection[str], left_out: Mapping[int, str], *, classes: int
) -> Counted:
    """Sum up the rows of all samples, in any order; with their outcomes, if there are `classes`."""
    rows = rows[rows[:, 1].argsort()]
    scores = {}
    totals = rows[:, _COLUMNS:].sum(0).reshape(-1, 4).tolist()
    for name, (counts, right1, right5, loss) in zip(rules, totals, strict=True):
        if not counts:
            why = f": {printable(left_out[min(left_out)])}" if left_out else ""
            raise ValueError(f"no sample counts in {name}, {len(left_out)} cannot be read{why}")
        scores[name] = Score(
            samples=int(counts), right1=int(right1), right5=int(right5), loss=loss / counts
        )
    reasons = [left_out[index] for index in sorted(left_out)]
    if not classes:
        return Counted(scores=scores, left_out=reasons)
    indexes, labels, predictions = rows[:, 1:4].long().T
    columns = (rows[:, 0], indexes, labels, predictions)
    outcomes = list(map(Outcome, *(column.tolist() for column in columns)))
    best: dict[int, Outcome] = {}  # the most confident right one of each class
    for outcome in outcomes:
        if outcome.label == outcome.prediction:
            best[outcome.label] = max(outcome, best.get(outcome.label, outcome))
    wrong = (outcome for outcome in outcomes if outcome.label != outcome.prediction)
    confusion = right5 = None
    if classes <= MAX_CONFUSION:
        cells = torch.bincount(labels * classes + predictions, minlength=classes**2)
        confusion = cells.reshape(classes, classes)
        right5 = torch.bincount(labels[rows[:, 4] > 0], minlength=classes)
    return Counted(
        scores=scores,
        confusion=confusion,
        right5=right5,
        left_out=reasons,
        wrong=heapq.nlargest(MOST, wrong),
        right=heapq.nlargest(MOST, best.values()),
        outcomes=outcomes,
    )


def counted_of(logits: Tensor, labels: Tensor) -> Counted:
    """Count what a cheap classifier said, logits (M, K) and labels (M,), on one process.

    The only score has the name "".
    """
    rules = {"": OneLabel()}
    rows = _judge(logits, labels, torch.arange(len(labels)), rules)
    return _sum_up(rows, rules, {}, classes=logits.shape[1])
