"""Labels from frozen features: nearest neighbours and a linear classifier.

A quick check after pre-training, without a training loop: the features are computed once.

Shapes: N labelled features to learn from, M queries, C channels, K classes.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Subset

from eva_backbone.checkpoints.from_weights import PooledVit
from eva_engine import distributed
from eva_engine.commands.classifiers import ClassifierProject
from eva_engine.commands.options import L2
from eva_engine.data.loading import evaluation_loader
from eva_engine.evaluation.attentive import FittedProbe, fit_probe
from eva_engine.evaluation.class_report import class_sections
from eva_engine.evaluation.classification_report import announce, report_scores, warn_of_left_out
from eva_engine.evaluation.counting import (
    IndexedSamples,
    LabelledSamples,
    Score,
    ShownSamples,
    collate_readable,
    counted_of,
    require_few,
)
from eva_report.content import NextStep
from eva_runs.interruption import StopSignal
from eva_runs.precision import require_finite, resolve

TEMPERATURE = 0.07  # of the neighbours' votes (DINO, arXiv 2104.14294)
MAX_STEPS = 300  # of L-BFGS
ROUNDING = 1e-4  # of the size of all features: a channel that varies less is taken as constant
_QUERIES = 1024  # that are compared at once
_EXCHANGED = 256  # samples whose features are sent at once


class Kept(NamedTuple):
    """How one kind of features is kept: shape of a sample's, number format, device if another."""

    shape: Sequence[int]
    dtype: torch.dtype = torch.float32
    device: torch.device | None = None


def compute_features(
    compute: Callable[[Any], Sequence[Tensor]],
    samples: Any,
    *,
    kinds: Sequence[Kept],
    device: torch.device,
    batch_size: int,
    workers: int = 0,
    progress: str | None = None,
    max_bad_samples: int = 0,
    stop: StopSignal | None = None,
) -> tuple[list[Tensor], Tensor, dict[int, str]]:
    """Compute features of samples; called on all processes, which all get all of them.

    The batches, of which `compute` makes each kind of features (B, *shape), are the same whatever
    the number of processes, and so are the features. `stop` ends the evaluation of a run.

    Returns:
        Features (N, *shape) of each kind, and labels (N,), int64 on `device`; zeros for samples
        that cannot be read, and index -> reason for these.

    Raises:
        FloatingPointError: If a feature is not finite in its number format.
        ValueError: If more samples than allowed cannot be read.
    """
    count, left_out = len(samples), dict[int, str]()
    labels = torch.zeros(count, dtype=torch.int64, device=device)
    results = [
        torch.zeros(count, *kind.shape, dtype=kind.dtype, device=kind.device or device)
        for kind in kinds
    ]
    batches = [part.tolist() for part in torch.arange(count).split(batch_size)]
    with evaluation_loader(
        IndexedSamples(samples),
        workers=workers,
        batches=[batches[position] for position in distributed.rank_indices(len(batches))],
        collate=collate_readable,
        pin_memory=device.type == "cuda",
        progress=progress,
        stop=stop,
    ) as loaded:
        for inputs, batch_labels, indexes, unreadable in loaded:
            left_out |= unreadable
            require_few([*left_out.values()], total=count, most=max_bad_samples)
            if len(indexes):
                with torch.inference_mode():
                    features = compute(inputs)
                for result, values in zip(results, features, strict=True):
                    result[indexes.to(result.device)] = values.to(result.device, result.dtype)
                labels[indexes.to(device)] = batch_labels.to(device)
    for result in (*results, labels):
        for part in result.split(_EXCHANGED):
            if distributed.world_size() > 1:  # the others have zeros there
                sent = part.to(device)  # what the exchange of GPUs takes
                torch.distributed.all_reduce(sent)
                part.copy_(sent)
            require_finite(part, "features")
    left_out = {k: why for part in distributed.gather(left_out) for k, why in part.items()}
    reasons = [left_out[index] for index in sorted(left_out)]
    require_few(reasons, total=count, most=max_bad_samples)
    return results, labels, dict(zip(sorted(left_out), reasons, strict=True))


def labelled_features(
    compute: Callable[[Tensor], Sequence[Tensor]],
    samples: LabelledSamples,
    *,
    title: str = "features",
    limit: int | None = None,
    **settings: Any,
) -> tuple[list[Tensor], Tensor]:
    """Compute features and labels of the samples that can be read; the others are named.

    With a `limit`, so many samples are taken at random, the same ones in every run; for the
    `settings` see `compute_features`.
    """
    selected = torch.arange(len(samples))
    if limit is not None and limit < len(samples):
        order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))
        selected = order[:limit].sort().values
    chosen = Subset[Any](samples, selected.tolist())  # type: ignore[arg-type]  # a map-style one
    results, labels, left_out = compute_features(compute, chosen, progress=title, **settings)
    if left_out and distributed.rank() == 0:
        warn_of_left_out([*left_out.values()], unit=f"samples of {title}")
    readable = torch.ones(len(labels), dtype=torch.bool)
    readable[list(left_out)] = False
    return [result[readable.to(result.device)] for result in results], labels[
        readable.to(labels.device)
    ]


def nearest_neighbours(
    features: Tensor, labels: Tensor, queries: Tensor, *, k: int, classes: int
) -> Tensor:
    """Count the votes (M, K) of the k nearest by cosine, weighted by exp(cosine / 0.07)."""
    normalized = F.normalize(features, dim=1)
    votes = []
    for part in F.normalize(queries, dim=1).split(_QUERIES):
        cosine, index = (part @ normalized.T).topk(min(k, len(normalized)), dim=1)  # (m, k)
        weights = ((cosine - cosine[:, :1]) / TEMPERATURE).exp()
        empty = torch.zeros(len(part), classes, device=part.device)
        votes.append(empty.scatter_add_(1, labels[index], weights))
    return torch.cat(votes)


class LinearClassifier(NamedTuple):
    """A fitted linear classifier; call it on features."""

    weight: Tensor  # (K, C), for standardised features
    bias: Tensor  # (K,)
    mean: Tensor  # (C,) of the features that it was fitted on
    deviation: Tensor  # (C,), infinite for a channel that is constant up to rounding
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
    rounding = ROUNDING * features.square().mean().sqrt()
    deviation[deviation < rounding] = torch.inf  # weights would enlarge this noise
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
    return LinearClassifier(weight.detach(), bias.detach(), mean, deviation, l2)


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

    def right(l2: float) -> int:
        fitted = fit_linear(features[rest], labels[rest], classes=classes, l2=l2)
        return int((fitted(features[held]).argmax(1) == labels[held]).sum())

    return fit_linear(features, labels, classes=classes, l2=max(candidates, key=right))


def frozen_methods(
    options: argparse.Namespace, features: Tensor, labels: Tensor, queries: Tensor, *, classes: int
) -> tuple[dict[str, Tensor], LinearClassifier | None]:
    """Ask nearest neighbours and the linear classifier by the options of `add_frozen`.

    Returns:
        Method -> logits (M, K), the linear classifier last; and that, if there is one.
    """
    logits, linear = {}, None
    for k in options.neighbours:
        votes = nearest_neighbours(features, labels, queries, k=k, classes=classes)
        logits[f"{k} neighbours"] = (votes + 1e-12).log()
    if options.l2:
        linear = fit_best_linear(features, labels, classes=classes, candidates=options.l2)
        logits["linear"] = linear(queries)
    return logits, linear


def evaluate_frozen(
    project: ClassifierProject,
    options: argparse.Namespace,
    device: torch.device,
    extractor: PooledVit,
    *,
    train_samples: ShownSamples,
    queries: ShownSamples,
    seen: str,
    began: float,
    settings: Mapping[str, Any] | None = None,
    compute: Callable[[Tensor], Sequence[Tensor]] | None = None,
    probed: Kept | None = None,
    save: Callable[[LinearClassifier | FittedProbe, Score], Sequence[NextStep]] | None = None,
) -> None:
    """Score the frozen features of an extractor by the options of `add_frozen`.

    The report shows the last method: the probe, else the linear classifier, else neighbours.

    Args:
        project: The project, for the terminal and the report.
        options: Options of the command, see `check_frozen`.
        device: Device of the extractor.
        extractor: What gives the features.
        train_samples: Samples to learn from.
        queries: Samples to score on.
        seen: What is seen of a sample, such as `8 frames of 224 px`.
        began: When the command began, by `time.monotonic`.
        settings: Further settings for `results.json`.
        compute: Function from inputs to pooled features, and those that are `probed`.
        probed: Input of an attentive probe, by the options of `add_probe`; None for no probe.
        save: Function that writes the last classifier, with its score, and names next commands.
    """
    options.precision = resolve(options.precision, device)
    places = {"train": options.train, "val": options.val or f"a part of {options.train}"}
    both = zip(places.items(), (train_samples, queries), strict=True)
    data = [(use, f"{project.counted(samples)} ({location})") for (use, location), samples in both]
    announce(
        f"score frozen features of {seen} on {device.type}", weights=options.weights, data=data
    )
    features = partial(
        labelled_features,
        compute or (lambda inputs: [extractor(inputs)]),
        device=device,
        kinds=[Kept([extractor.vit.embed_dim]), *([probed] if probed else [])],
        batch_size=options.batch_size,
        workers=options.workers,
        max_bad_samples=options.max_bad_samples,
    )
    train_features, labels = features(train_samples, limit=options.limit, title="train")
    asked, truth = features(queries, title="val")
    if distributed.rank():
        return
    classes = len(train_samples.classes)
    methods, linear = frozen_methods(options, train_features[0], labels, asked[0], classes=classes)
    tuned: dict[str, Any] = {"l2": linear.l2} if linear else {}
    classifier: LinearClassifier | FittedProbe | None = linear
    if probed:
        classifier = fit_probe(
            train_features[1],
            labels,
            num_classes=classes,
            learning_rates=options.probe_lr,
            epochs=options.probe_epochs,
            device=device,
            seed=options.seed,
        )
        methods["attentive"] = classifier(asked[1])
        tuned |= {"probe_lr": classifier.learning_rate, "probe_epoch": classifier.epoch}
    counted = {name: counted_of(logits, truth) for name, logits in methods.items()}
    scores = {name: result.scores[""] for name, result in counted.items()}
    settings = {
        f"train_{project.unit}": len(labels),
        f"val_{project.unit}": len(truth),
        "pooling": extractor.pooling,
        "image_size": extractor.image_size,
        **(settings or {}),
        **tuned,
    }
    title = (
        f"{Path(options.weights).name}, pooling {extractor.pooling}, {seen}: {len(labels)} "
        f"{project.unit} of {classes} classes to learn from"
    )
    method = list(methods)[-1]
    next_steps = save(classifier, scores[method]) if save and classifier else ()
    report_scores(
        options,
        scores,
        began=began,
        unit=project.unit,
        task="Frozen features",
        description=f"{title}\n{{table}}",
        data=list(places.items()),
        settings={"weights": str(options.weights), **places, **settings},
        sections=partial(
            class_sections,
            queries,
            counted[method],
            unit=project.unit,
            of=f" ({method})",
            examples=len(truth) == len(queries),  # else places are unknown
        ),
        device=device.type,
        next_steps=next_steps,
    )
