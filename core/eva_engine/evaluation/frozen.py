"""Labels from frozen features: nearest neighbours and a linear classifier.

A quick check after pre-training, without a training loop: the features are computed once.

Shapes: N labelled features to learn from, M queries, C channels, K classes.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Subset

from eva_engine import distributed
from eva_engine.commands.options import L2
from eva_engine.data.loading import evaluation_loader
from eva_engine.distributed import choose_device
from eva_engine.evaluation.classification_report import (
    complain_of_left_out,
    say_end,
    table,
    write_results,
)
from eva_engine.evaluation.counting import (
    Indexed,
    LabelledSamples,
    OneLabel,
    Score,
    collate_readable,
    require_few,
)
from eva_engine.report import write_evaluation_report
from eva_report.content import Section

TEMPERATURE = 0.07  # of the neighbours' votes (DINO, arXiv 2104.14294)
MAX_STEPS = 300  # of L-BFGS
_QUERIES = 1024  # that are compared at once
_EXCHANGED = 256  # samples whose features are sent at once


class Kept(NamedTuple):
    """How one kind of features is kept: shape of a sample's, number format, device if another."""

    shape: Sequence[int]
    dtype: torch.dtype = torch.float32
    device: torch.device | None = None


def labelled_features(
    compute: Callable[[Tensor], Sequence[Tensor]],
    samples: LabelledSamples,
    *,
    kept: Sequence[Kept],
    device: torch.device,
    batch_size: int,
    workers: int,
    limit: int | None = None,
    title: str = "features",
    max_bad_samples: int = 0,
) -> tuple[list[Tensor], Tensor]:
    """Compute features and labels; each process computes its share, all get all of them.

    `compute` gives each kind of features of a batch, (B, *shape). With a `limit`, so many samples
    are taken at random, the same ones in every run. Those that cannot be read are named.

    Returns:
        Features (N, *shape) of each kind, and labels (N,), int64 on `device`, of the samples that
        could be read.

    Raises:
        FloatingPointError: If a feature is not finite in its number format.
    """
    chosen = list(range(len(samples)))
    if limit is not None and limit < len(samples):
        generator = torch.Generator().manual_seed(0)
        chosen = sorted(torch.randperm(len(samples), generator=generator)[:limit].tolist())
    own = distributed.own_share(len(chosen))
    results = [
        torch.zeros(len(chosen), *one.shape, dtype=one.dtype, device=one.device or device)
        for one in kept
    ]
    labels = torch.zeros(len(chosen), dtype=torch.int64, device=device)
    place_of = {chosen[place]: place for place in own}
    left_out: dict[int, str] = {}
    with evaluation_loader(
        Subset(Indexed(samples), list(place_of)), batch_size=batch_size, workers=workers,
        progress=title, collate=collate_readable,
    ) as batches:  # fmt: skip
        for inputs, found, indexes, unreadable in batches:
            left_out |= {place_of[index]: reason for index, reason in unreadable.items()}
            if not len(found):
                continue
            places = torch.tensor([place_of[index] for index in indexes.tolist()])
            for result, features in zip(results, compute(inputs), strict=True):
                result[places.to(result.device)] = features.to(result.device, result.dtype)
            labels[places.to(device)] = found.to(device)
    if distributed.world_size() > 1:
        _exchange([*results, labels], device)
    for result in results:
        if not all(part.isfinite().all() for part in result.split(_EXCHANGED)):
            raise FloatingPointError("features are not finite: use --precision fp32 or bf16")
    left = {k: why for part in distributed.gather(left_out) for k, why in part.items()}
    if not left:
        return results, labels
    reasons = [left[place] for place in sorted(left)]
    require_few(reasons, of=f"samples of {title}", total=len(chosen), most=max_bad_samples)
    if distributed.rank() == 0:
        complain_of_left_out(reasons, unit=f"samples of {title}")
    kept_places = torch.tensor([place for place in range(len(chosen)) if place not in left])
    return [one[kept_places.to(one.device)] for one in results], labels[kept_places.to(device)]


def _exchange(tensors: Sequence[Tensor], device: torch.device) -> None:
    """Add up what the processes have, which is zero where another one computes."""
    for tensor in tensors:
        for part in tensor.split(_EXCHANGED):
            sent = part.to(device)  # what the exchange of GPUs takes
            torch.distributed.all_reduce(sent)
            part.copy_(sent)


def nearest_neighbours(
    features: Tensor, labels: Tensor, queries: Tensor, *, k: int, classes: int
) -> Tensor:
    """Count the votes (M, K) of the k <= N nearest by cosine, weighted by exp(cosine / 0.07)."""
    known = F.normalize(features, dim=1)
    votes = []
    for part in F.normalize(queries, dim=1).split(_QUERIES):
        cosine, index = (part @ known.T).topk(k, dim=1)  # (m, k)
        weights = ((cosine - cosine[:, :1]) / TEMPERATURE).exp()
        empty = torch.zeros(len(part), classes, device=part.device)
        votes.append(empty.scatter_add_(1, labels[index], weights))
    return torch.cat(votes)


@dataclass(frozen=True, kw_only=True)
class LinearClassifier:
    """A fitted linear classifier; call it on features."""

    weight: Tensor  # (K, C), for standardised features
    bias: Tensor  # (K,)
    mean: Tensor  # (C,) of the features that it was fitted on
    deviation: Tensor  # (C,)
    l2: float  # strength of the penalty

    def __call__(self, features: Tensor) -> Tensor:
        """Compute the logits (M, K) of features (M, C)."""
        return F.linear((features - self.mean) / self.deviation, self.weight, self.bias)


def fit_linear(features: Tensor, labels: Tensor, *, classes: int, l2: float) -> LinearClassifier:
    """Fit a multinomial logistic regression on standardised features (N, C), by L-BFGS.

    Minimises the mean cross-entropy + l2 / 2 * |weight|^2; scikit-learn's `C` is 1 / (l2 * N).
    """
    mean = features.mean(0)
    deviation = features.std(0, unbiased=False).clamp(min=1e-6)
    standard = (features - mean) / deviation
    weight = torch.zeros(classes, features.shape[1], device=features.device, requires_grad=True)
    bias = torch.zeros(classes, device=features.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=MAX_STEPS, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(F.linear(standard, weight, bias), labels)
        value = value + 0.5 * l2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return LinearClassifier(
        weight=weight.detach(), bias=bias.detach(), mean=mean, deviation=deviation, l2=l2
    )


def fit_best_linear(
    features: Tensor, labels: Tensor, *, classes: int, candidates: Sequence[float] = L2
) -> LinearClassifier:
    """Fit on all of the data, with the penalty of the candidates that is best on a fifth held out.

    Raises:
        ValueError: If there is too little data to hold any out.
    """
    if len(candidates) == 1:
        return fit_linear(features, labels, classes=classes, l2=candidates[0])
    if len(features) < 5:
        raise ValueError(f"{len(features)} samples are too few to choose l2: give a single one")
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
    held, rest = order.to(features.device).tensor_split([len(features) // 5])
    rights = []
    for l2 in candidates:
        fitted = fit_linear(features[rest], labels[rest], classes=classes, l2=l2)
        rights.append(int((fitted(features[held]).argmax(1) == labels[held]).sum()))
    best = max(range(len(candidates)), key=rights.__getitem__)
    return fit_linear(features, labels, classes=classes, l2=candidates[best])


def score_frozen(
    options: argparse.Namespace,
    features: Tensor,
    labels: Tensor,
    queries: Tensor,
    truth: Tensor,
    *,
    classes: int,
    receive: Callable[[Tensor], None] | None = None,
) -> tuple[dict[str, Score], dict[str, Any]]:
    """Score nearest neighbours and the linear classifier by the options of `add_frozen`.

    `receive` is given the logits (M, K) of each method, the best one last.

    Returns:
        Method -> score, and the settings that were chosen.
    """
    found, chosen = {}, {}
    for k in options.neighbours:
        votes = nearest_neighbours(features, labels, queries, k=k, classes=classes)
        found[f"{k} neighbours"] = (votes + 1e-12).log()
    if options.l2:
        linear = fit_best_linear(features, labels, classes=classes, candidates=options.l2)
        found["linear"] = linear(queries)
        chosen["l2"] = linear.l2
    if receive is not None:
        for logits in found.values():
            receive(logits)
    return {name: score_of(logits, truth) for name, logits in found.items()}, chosen


def score_of(logits: Tensor, labels: Tensor) -> Score:
    """Score logits (M, K) against labels (M,)."""
    judged = OneLabel()(logits, labels, labels)
    return Score(
        samples=len(labels),
        right1=int(judged.top1.sum()),
        right5=int(judged.top5.sum()),
        loss=float(judged.loss.mean()),
    )


def report_frozen(
    options: argparse.Namespace,
    title: str,
    settings: Mapping[str, Any],
    scores: Mapping[str, Score],
    *,
    began: float,
    unit: str = "images",
    sections: Sequence[Section] = (),
) -> None:
    """Print a table, and write `results.json` and `report.html` to the output, if there is one."""
    given = {name: str(getattr(options, name)) for name in ("weights", "train", "val")}
    page = None
    if options.output is not None:
        device = choose_device(options.device)
        write_results(options.output, given | dict(settings), scores, unit=unit)
        page = write_evaluation_report(
            options.output, scores, task="Frozen features", weights=options.weights,
            data=[(use, str(getattr(options, use))) for use in ("train", "val")],
            settings=settings, unit=unit, sections=lambda: sections, device=device.type,
        )  # fmt: skip
    say_end(f"{title}\n{table(scores, unit=unit)}", began=began, report=page)
