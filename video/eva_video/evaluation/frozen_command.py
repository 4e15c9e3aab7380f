"""Command line of `video/evaluate_frozen.py`."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from eva_backbone.checkpoints.pooled import POOLINGS
from eva_data.files import make_folder
from eva_data.labelled_videos.labelled_videos import LabelledVideos
from eva_data.labelled_videos.opening import open_videos
from eva_data.options import integer, number
from eva_data.video.video_source import BACKENDS, require_backend
from eva_engine import distributed
from eva_engine.commands.options import add_arguments, add_weights, command, new_parser
from eva_engine.config import LARGEST_SEED
from eva_engine.evaluation.frozen import Kept, labelled_features
from eva_engine.evaluation.frozen_scores import (
    add_frozen,
    check_frozen,
    report_frozen,
    score_frozen,
    score_of,
)
from eva_video.config import MOST_FRAMES
from eva_video.data.clips import Views
from eva_video.data.transforms import Normalise
from eva_video.evaluation.attentive_probe import EPOCHS, LEARNING_RATES, fit_probe
from eva_video.model.features import ClipFeatureExtractor

PROGRAM = "video/evaluate_frozen.py"
ProbeOn = Literal["tokens", "frames", "none"]
_KEPT = torch.float16  # tokens wait in this number format
_EXAMPLES = """
How much do these weights know of my classes? Minutes, and nothing is trained but small classifiers:
    python video/evaluate_frozen.py --weights eva_video_k722.pth --train mine/train --val mine/val

The attentive probe is one block: a learned query attends to all tokens of a clip, as in V-JEPA.
Tokens wait in memory; where they are more than --probe-gb, the probe gets the mean of each frame.
"""


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = new_parser(
        PROGRAM,
        "A quick check of weights on videos: the backbone is frozen, its features are computed "
        "once, and nearest neighbours, a linear classifier and an attentive probe are scored. What "
        "there is to choose is chosen on a fifth of --train.",
        epilog=_EXAMPLES,
    )
    add_weights(parser, kinds="official or bundled name, or file, of pictures or videos")
    add = parser.add_argument
    add("--pooling", choices=POOLINGS, help="default: what the weights were trained for")
    add("--frames", type=integer(1, MOST_FRAMES), help="of a clip (default: the weights', or 8)")
    add_frozen(parser, data="list of videos, folder of class folders or shards", unit="videos")
    add("--root", help="folder that the paths of lists begin in (default: the list's)")
    add("--val-root", help="the same for --val (default: --root)")
    add("--classes", help="text file with the classes in label order (default: those of --train)")
    add("--backend", choices=BACKENDS, default=BACKENDS[0], help="decoder (default: %(default)s)")
    add(
        "--probe",
        choices=("auto", "tokens", "frames", "none"),
        default="auto",
        help="what the attentive probe sees: all tokens, or the mean of each frame; auto: tokens "
        "where they fit into --probe-gb",
    )
    add("--probe-gb", type=number(0), default=8.0, help="memory for them in each process "
        "(default: %(default)s)")  # fmt: skip
    rates = " ".join(f"{rate:g}" for rate in LEARNING_RATES)
    add("--probe-lr", type=number(0), nargs="+", help=f"learning rates to try (default: {rates})")
    add("--probe-epochs", type=integer(1), help=f"default: {EPOCHS}, more for few videos")
    add("--seed", type=integer(0, LARGEST_SEED), default=0,
        help="of the attentive probe (default: 0)")  # fmt: skip
    add_arguments(parser, batch_size=4)
    options = parser.parse_args(arguments)
    for name, value in (("lr", options.probe_lr), ("epochs", options.probe_epochs)):
        if value is not None and options.probe == "none":
            parser.error(f"--probe-{name} has no effect with --probe none")
    options.probe_lr = options.probe_lr or list(LEARNING_RATES)
    if not options.neighbours and not options.l2 and options.probe == "none":
        parser.error("nothing to score: --neighbours and --l2 are empty, and there is no --probe")
    return options


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


def _evaluate(options: argparse.Namespace, device: torch.device) -> None:
    if options.output is not None:
        make_folder(options.output)  # fails now, not after hours
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
    if kind != "none":
        fitted = fit_probe(
            features[1], labels, num_classes=classes, learning_rates=options.probe_lr,
            epochs=options.probe_epochs, device=device, seed=options.seed,
        )  # fmt: skip
        scores["attentive"] = score_of(fitted(queries[1]), truth)
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
    report_frozen(options, title, settings | chosen, scores, unit="videos")


main = command(PROGRAM, _parse, _evaluate)


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
    )  # fmt: skip
