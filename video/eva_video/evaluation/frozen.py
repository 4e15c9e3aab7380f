"""Scores of frozen features: nearest neighbours, a linear classifier and an attentive probe.

The mean of all tokens hides what few of them show. In the probe a learned query attends to the
tokens, as in V-JEPA (https://arxiv.org/abs/2404.08471) and AIM (https://arxiv.org/abs/2401.08541).

Shapes: N videos, T frames, P tokens of a frame, C channels, K classes.
"""

import argparse
import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eva_data.labelled_videos.opening import open_videos
from eva_data.labelled_videos.sources import LabelledVideos
from eva_data.video.source import require_backend
from eva_engine import distributed
from eva_engine.commands.options import check_frozen
from eva_engine.evaluation.classification_report import classification_sections
from eva_engine.evaluation.counting import counted_of
from eva_engine.evaluation.frozen import (
    Kept,
    labelled_features,
    nearest_neighbours,
    report_frozen,
    score_frozen,
    score_of,
)
from eva_engine.report import announce
from eva_report.content import Section
from eva_video.config import PROBE_EPOCHS, PROBE_RATES
from eva_video.data.clips import Views, counted_videos, strips_of
from eva_video.data.transforms import Normalise
from eva_video.model.features import ClipFeatureExtractor

STEPS = 300  # at least, by default
BATCH_SIZE = 32
WEIGHT_DECAY = 0.05
_HEAD_WIDTH = 64


class AttentiveProbe(nn.Module):
    """One block: cross-attention of a learned query over the tokens, MLP, linear classifier.

    Each frame has a learned position, which begins at zero: the tokens of image models do not say
    when they are.

    Args:
        channels: C.
        frames: T.
        num_classes: K.
    """

    def __init__(self, channels: int, *, frames: int, num_classes: int) -> None:
        super().__init__()
        self.heads = max(1, channels // _HEAD_WIDTH)
        while channels % self.heads:
            self.heads -= 1
        self.query = nn.Parameter(torch.empty(1, 1, channels))
        self.frame_positions = nn.Parameter(torch.zeros(1, frames, 1, channels))
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.to_query = nn.Linear(channels, channels)
        self.to_key_value = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )
        self.head = nn.Linear(channels, num_classes)
        nn.init.normal_(self.query)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.head.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute logits (N, K) of tokens (N, T, P, C)."""
        context = (self.norm1(tokens) + self.frame_positions).flatten(1, 2)  # (N, T * P, C)
        query = self.query.expand(len(tokens), -1, -1)  # (N, 1, C)
        key, value = self.to_key_value(context).chunk(2, dim=2)
        found = F.scaled_dot_product_attention(
            self._split(self.to_query(query)), self._split(key), self._split(value)
        )
        query = query + self.proj(found.transpose(1, 2).flatten(2))  # (N, 1, C)
        query = query + self.mlp(self.norm2(query))
        logits: Tensor = self.head(query[:, 0])
        return logits

    def _split(self, values: Tensor) -> Tensor:
        """Give each head its channels: (N, L, heads * c) to (N, heads, L, c)."""
        return values.unflatten(2, (self.heads, -1)).transpose(1, 2)


@dataclass(frozen=True, kw_only=True)
class FittedProbe:
    """A trained probe, with the rate and epochs that knew most held-out videos, and their share."""

    probe: AttentiveProbe
    learning_rate: float
    epoch: int
    right: float

    def __call__(self, tokens: Tensor) -> Tensor:
        """Compute logits (N, K), on the device of the probe, of tokens (N, T, P, C) anywhere."""
        device = self.probe.query.device
        with torch.inference_mode():
            parts = [self.probe(part.to(device).float()) for part in tokens.split(BATCH_SIZE)]
        return torch.cat(parts)


def fit_probe(
    tokens: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    learning_rates: Sequence[float] = PROBE_RATES,
    epochs: int | None = None,
    device: torch.device | None = None,
    seed: int = 0,
) -> FittedProbe:
    """Train a probe with each learning rate, and keep the one that is best on a fifth held out.

    After each epoch the held-out videos are judged, so that the number of epochs is chosen too.
    AdamW, a linear warm-up over a tenth of the steps, then a cosine to zero.

    Args:
        tokens: (N, T, P, C), in any number format and on any device.
        labels: (N,).
        num_classes: K.
        learning_rates: Largest learning rates to try.
        epochs: Passes over the data; None for at least `PROBE_EPOCHS` and as many as give `STEPS`.
        device: Device of the training; None for that of the tokens.
        seed: Of initialisation, order and the part held out.

    Raises:
        ValueError: If there is too little data to hold any out.
        FloatingPointError: If no training stays finite.
    """
    if len(tokens) < 5:
        raise ValueError(
            f"{len(tokens)} samples are too few to hold a fifth of them out: give at least 5, or "
            "--probe none"
        )
    device = device or tokens.device
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed))
    held, rest = order.tensor_split([len(tokens) // 5])
    labels = labels.cpu()
    if epochs is None:
        epochs = max(PROBE_EPOCHS, -(-STEPS // -(-len(rest) // BATCH_SIZE)))
    best: tuple[tuple[int, float], FittedProbe] | None = None
    for rate in learning_rates:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            probe = AttentiveProbe(tokens.shape[3], frames=tokens.shape[1], num_classes=num_classes)
        probe.to(device)
        trained = _train(probe, tokens, labels, rest, rate=rate, epochs=epochs, seed=seed)
        for epoch in trained:
            right, loss = _judge(probe, tokens, labels, held)
            if math.isfinite(loss) and (best is None or (right, -loss) > best[0]):
                fitted = FittedProbe(
                    probe=copy.deepcopy(probe), learning_rate=rate, epoch=epoch,
                    right=right / len(held),
                )  # fmt: skip
                best = (right, -loss), fitted
    if best is None:
        raise FloatingPointError("the loss of the attentive probe is not finite: give smaller "
                                 "--probe-lr")  # fmt: skip
    return best[1]


def _train(
    probe: AttentiveProbe,
    tokens: Tensor,
    labels: Tensor,
    places: Tensor,
    *,
    rate: float,
    epochs: int,
    seed: int,
) -> Iterator[int]:
    """Yield the number of each epoch after it, with the probe in evaluation mode."""
    device = probe.query.device
    groups: list[dict[str, Any]] = [
        {"params": [value for value in probe.parameters() if value.ndim == 2]},
        {"params": [value for value in probe.parameters() if value.ndim != 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=WEIGHT_DECAY)
    steps = epochs * -(-len(places) // BATCH_SIZE)
    warm_up = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm_up, 0.5 + 0.5 * math.cos(math.pi * step / steps)),
    )
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(1, epochs + 1):
        probe.train()
        order = places[torch.randperm(len(places), generator=generator)]
        for batch in order.split(BATCH_SIZE):
            optimizer.zero_grad()
            inputs = tokens[batch.to(tokens.device)].to(device).float()
            F.cross_entropy(probe(inputs), labels[batch].to(device)).backward()
            optimizer.step()
            schedule.step()
        probe.eval()
        yield epoch


def _judge(
    probe: AttentiveProbe, tokens: Tensor, labels: Tensor, places: Tensor
) -> tuple[int, float]:
    """Count the right predictions for held-out videos, and give their mean loss."""
    device, right, loss = probe.query.device, 0, 0.0
    with torch.inference_mode():
        for batch in places.split(BATCH_SIZE):
            logits = probe(tokens[batch.to(tokens.device)].to(device).float())
            truth = labels[batch].to(device)
            right += int((logits.argmax(1) == truth).sum())
            loss += F.cross_entropy(logits, truth, reduction="sum").item()
    return right, loss / len(places)


ProbeOn = Literal["tokens", "frames", "none"]
BY_NEIGHBOURS = 10  # whose mistakes the report shows, where there is no attentive probe
_KEPT = torch.float16  # tokens wait in this number format


def choose_probe(
    options: argparse.Namespace, *, videos: int, frames: int, tokens: int, channels: int
) -> ProbeOn:
    """Choose the probe's input, tokens (N, T, P, C), frames (N, T, 1, C) or none, by its size."""
    if options.probe == "none":
        return "none"
    means = videos * frames * channels * _KEPT.itemsize / 1e9
    needed = {"tokens": means * tokens, "frames": means}
    wanted: tuple[ProbeOn, ...] = ("tokens", "frames")
    if options.probe != "auto":
        wanted = tuple(name for name in wanted if name == options.probe)
    for name in wanted:
        if needed[name] <= options.probe_gb:
            return name
    raise ValueError(
        f"the {wanted[-1]} of {videos} videos take {needed[wanted[-1]]:.2g} GB, and --probe-gb is "
        f"{options.probe_gb:g}: give more, fewer --train-videos, --probe frames or --probe none"
    )


def evaluate(options: argparse.Namespace, device: torch.device) -> None:
    """Score frozen features of videos by the options of `eva video evaluate-frozen`.

    Raises:
        ValueError: If weights and data do not fit together.
    """
    began = time.monotonic()
    require_backend(options.backend)
    extractor = ClipFeatureExtractor.from_weights(
        options.weights,
        frames=options.frames,
        image_size=options.image_size,
        pooling=options.pooling,
        mean=options.mean,
        std=options.std,
        device=str(device),
        precision=options.precision,
        backend=options.backend,
    )
    learn = open_videos(
        options.train, classes=options.classes, root=options.root, backend=options.backend
    )
    score = open_videos(
        options.val, classes=learn.classes, root=options.val_root or options.root,
        backend=options.backend,
    )  # fmt: skip
    known, side = check_frozen(options, len(learn)), extractor.image_size
    frames, channels = extractor.vit.frames, extractor.vit.embed_dim
    patches = (side // extractor.vit.patch_size) ** 2
    kind = choose_probe(
        options, videos=known + len(score), frames=frames, tokens=patches, channels=channels
    )
    announce(
        f"score frozen features of {frames} frames of {side} px on {device.type}",
        weights=options.weights,
        data=[
            (use, f"{counted_videos(some)} ({place})")
            for use, some, place in (("train", learn, options.train), ("val", score, options.val))
        ],
    )
    kept = [Kept([channels])]
    if kind != "none":
        shape = [frames, patches if kind == "tokens" else 1, channels]
        kept.append(Kept(shape, _KEPT, torch.device("cpu")))
    computed = partial(_computed, extractor, kept=kept, options=options, device=device)
    features, labels = computed(learn, limit=options.limit, title="train")
    queries, truth = computed(score, limit=None, title="val")
    if distributed.rank() > 0:
        return
    classes = len(learn.classes)
    scores, chosen = score_frozen(options, features[0], labels, queries[0], truth, classes=classes)
    k = min(BY_NEIGHBOURS, len(labels))
    votes = nearest_neighbours(features[0], labels, queries[0], k=k, classes=classes)
    logits, method = (votes + 1e-12).log(), f"{k} neighbours"
    if kind != "none":
        method = "attentive probe"
        fitted = fit_probe(
            features[1], labels, num_classes=classes, learning_rates=options.probe_lr,
            epochs=options.probe_epochs, device=device, seed=options.seed,
        )  # fmt: skip
        logits = fitted(queries[1])
        scores["attentive"] = score_of(logits, truth)
        chosen |= {"probe": kind, "probe_lr": fitted.learning_rate, "probe_epoch": fitted.epoch}
    settings: dict[str, Any] = {
        "train_videos": len(labels), "pooling": extractor.pooling, "frames": frames,
        "image_size": side, "seed": options.seed,
    }  # fmt: skip
    title = (
        f"{Path(options.weights).name}, pooling {extractor.pooling}, {frames} frames, {side} px: "
        f"{len(labels)} videos of {classes} classes to learn from"
        + {
            "none": "",
            "tokens": f"; the attentive probe sees {patches} tokens of each frame",
            "frames": "; the attentive probe sees the mean of each frame",
        }[kind]
    )
    report_frozen(
        options, title, settings | chosen, scores, began=began, unit="videos",
        sections=frozen_sections(score, logits, truth, method=method) if options.output else (),
    )  # fmt: skip


def frozen_sections(
    videos: LabelledVideos, logits: Tensor, truth: Tensor, *, method: str
) -> list[Section]:
    """Make the sections of a report on one method, of logits (M, K) and labels (M,).

    There are no examples where videos were left out, since those are not known.
    """
    counted, examples = counted_of(logits.cpu(), truth.cpu())
    complete = len(truth) == len(videos)
    found = classification_sections(
        counted, videos.classes, examples=examples, name=videos.sample_id,
        image=strips_of(videos) if complete else None, unit="videos",
    )  # fmt: skip
    return [replace(section, title=f"{section.title} ({method})") for section in found]


def _computed(
    extractor: ClipFeatureExtractor,
    videos: LabelledVideos,
    *,
    kept: Sequence[Kept],
    options: argparse.Namespace,
    device: torch.device,
    limit: int | None,
    title: str,
) -> tuple[list[Tensor], Tensor]:
    """Compute pooled features (N, C), and tokens (N, T, P, C) if they are kept, and labels (N,)."""
    views = Views(
        videos,
        sampling=extractor.sampling,
        image_size=extractor.image_size,
        clips=1,
        crops=1,
        normalise=Normalise(mean=extractor.mean, std=extractor.std),
    )

    def compute(batch: Tensor) -> list[Tensor]:
        clips = batch[:, 0]  # (B, T, 3, S, S)
        if len(kept) == 1:
            return [extractor(clips)]
        pooled, tokens = extractor.pooled_and_tokens(clips)
        tokens = tokens.flatten(2, 3)  # (B, T, h * w, C)
        return [pooled, tokens if kept[1].shape[1] > 1 else tokens.mean(dim=2, keepdim=True)]

    return labelled_features(
        compute, views, kept=kept, device=device, batch_size=options.batch_size,
        workers=options.workers, limit=limit, title=title,
        max_bad_samples=options.max_bad_samples,
    )  # fmt: skip
