"""Scores of frozen features: nearest neighbours, a linear classifier and an attentive probe."""

import argparse
import time
from functools import partial

import torch
from torch import Tensor

from eva_data.labelled_videos.sources import open_videos
from eva_data.labelled_videos.videos import LabelledVideos
from eva_engine.commands.options import check_frozen
from eva_engine.evaluation.attentive import KEPT, choose_probe
from eva_engine.evaluation.frozen import Kept, evaluate_frozen
from eva_video.commands import VIDEOS
from eva_video.data.clips import Views
from eva_video.model.features import ClipFeatureExtractor


def evaluate(options: argparse.Namespace, device: torch.device) -> None:
    """Score frozen features of videos by the options of `eva video evaluate-frozen`.

    Raises:
        ValueError: If weights and data do not fit together.
    """
    began = time.monotonic()
    extractor = ClipFeatureExtractor.from_options(options, device)
    train_videos = open_videos(options.train, classes=options.classes, root=options.root)
    queries = open_videos(
        options.val,
        classes=train_videos.classes,
        root=options.val_root or options.root,
    )
    frames, channels = extractor.vit.frames, extractor.vit.embed_dim
    patches = (extractor.image_size // extractor.vit.patch_size) ** 2
    kind = choose_probe(
        options,
        unit="videos",
        samples=check_frozen(options, len(train_videos)) + len(queries),
        frames=frames,
        patches=patches,
        channels=channels,
    )

    shape = [frames, patches if kind == "tokens" else 1, channels]
    seen = {"tokens": f" (the probe: {patches} tokens of each)", "frames": " (the probe: means)"}
    evaluate_frozen(
        VIDEOS,
        options,
        device,
        extractor,
        train_samples=seen_clips(extractor, train_videos),
        queries=seen_clips(extractor, queries),
        began=began,
        seen=f"{frames} frames of {extractor.image_size} px{seen.get(kind, '')}",
        settings={"frames": frames, "seed": options.seed, "probe": kind},
        compute=partial(compute, extractor, kind),
        probed=None if kind == "none" else Kept(shape, KEPT, torch.device("cpu")),
    )


def seen_clips(extractor: ClipFeatureExtractor, videos: LabelledVideos) -> Views:
    """Open the clips (1, T, 3, S, S) that an extractor sees of videos."""
    return Views(videos, sampling=extractor.sampling, transform=extractor.transform, clips=1)


def compute(extractor: ClipFeatureExtractor, kind: str, views: Tensor) -> list[Tensor]:
    """Compute pooled features (B, C) of views (B, 1, T, 3, S, S), and the input of the probe."""
    pooled, tokens = extractor.pooled_and_patches(views[:, 0])
    if kind == "none":
        return [pooled]
    tokens = tokens.flatten(2, 3)  # (B, T, h * w, C)
    return [pooled, tokens if kind == "tokens" else tokens.mean(dim=2, keepdim=True)]
