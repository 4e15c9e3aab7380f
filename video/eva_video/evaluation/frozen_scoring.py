"""What `video/evaluate_frozen.py` does: features once, then cheap classifiers on them."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from eva_data.labelled_videos.opening import open_videos
from eva_data.labelled_videos.sources import LabelledVideos
from eva_data.video.source import require_backend
from eva_engine import distributed
from eva_engine.commands.options import check_frozen
from eva_engine.distributed import evaluation_in
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
from eva_video.data.clips import Views
from eva_video.data.transforms import Normalise
from eva_video.evaluation.attentive_probe import fit_probe
from eva_video.model.features import ClipFeatureExtractor
from eva_video.presentation import counted_videos, strips_of

ProbeOn = Literal["tokens", "frames", "none"]
BY_NEIGHBOURS = 10  # whose mistakes the report shows, where there is no attentive probe
_KEPT = torch.float16  # tokens wait in this number format


def choose_probe(
    options: argparse.Namespace, *, videos: int, frames: int, tokens: int, channels: int
) -> ProbeOn:
    """Choose what the attentive probe sees.

    Args:
        options: `probe` and `probe_gb`.
        videos: Number of videos of which something is kept.
        frames: Frames of a clip.
        tokens: Tokens of a frame.
        channels: Channels of a token.

    Returns:
        All tokens, the mean of each frame, or nothing.

    Raises:
        ValueError: If it does not fit into the memory that was given.
    """
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
    name = wanted[-1]
    raise ValueError(
        f"the {'tokens' if name == 'tokens' else 'means of the frames'} of {videos} videos take "
        f"{needed[name]:.2g} GB, and --probe-gb is {options.probe_gb:g}: give more, "
        f"{'--probe frames, ' if name == 'tokens' else ''}fewer --train-videos or --probe none"
    )


def evaluate(options: argparse.Namespace, device: torch.device) -> None:
    """Score frozen features of videos.

    Args:
        options: Options of `eva_video.evaluation.frozen_command`.
        device: Device of this process.

    Raises:
        ValueError: If weights and data do not fit together.
    """
    with evaluation_in(options.output):
        _evaluate_to(options, device)


def _evaluate_to(options: argparse.Namespace, device: torch.device) -> None:
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
        + ("" if kind == "none" else f"; the attentive probe sees {_seen(kind, patches)}")
    )
    report_frozen(
        options, title, settings | chosen, scores, began=began, unit="videos",
        sections=frozen_sections(score, logits, truth, method=method) if options.output else (),
    )  # fmt: skip


def frozen_sections(
    videos: LabelledVideos, logits: Tensor, truth: Tensor, *, method: str
) -> list[Section]:
    """Make the sections of a report on one method.

    Args:
        videos: The videos that were scored.
        logits: (M, K).
        truth: (M,), labels.
        method: Name of the method.

    Returns:
        The sections; without examples where videos were left out, since those are not known.
    """
    counted, examples = counted_of(logits.cpu(), truth.cpu())
    complete = len(truth) == len(videos)
    found = classification_sections(
        counted, videos.classes, examples=examples, name=videos.sample_id,
        picture=strips_of(videos) if complete else None, unit="videos",
    )  # fmt: skip
    return [replace(section, title=f"{section.title} ({method})") for section in found]


def _seen(kind: ProbeOn, patches: int) -> str:
    return f"{patches} tokens of each frame" if kind == "tokens" else "the mean of each frame"


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
