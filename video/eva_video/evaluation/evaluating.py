"""Evaluation of a classifier by the views of each video, judged together.

Shapes: V views, T frames, S the side of a clip, K classes.
"""

import argparse
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eva_backbone.variants import IMAGENET_MEAN, IMAGENET_STD
from eva_data.classes import names_of_head
from eva_data.kinetics import official_classes
from eva_data.labelled_videos.sources import open_videos
from eva_data.labelled_videos.videos import LabelledVideos
from eva_data.saving import write_text
from eva_engine import distributed
from eva_engine.evaluation.class_report import class_sections
from eva_engine.evaluation.classification_report import announce, report_scores
from eva_engine.evaluation.counting import BatchResults, MultiView
from eva_engine.evaluation.own_data import (
    evaluate_own_data,
    fill_from_training,
    given_flags,
    settings_of,
)
from eva_runs.precision import resolve, to_precision
from eva_runs.processes import run_on_main_rank
from eva_video.commands import VIDEOS
from eva_video.data.clips import Sampling, Views
from eva_video.data.transforms import CentreTransform, CropsTransform, Normalise
from eva_video.model.classifier import load_video_classifier, subset_of

LINES = "videos.jsonl"
_DIGITS = 7  # of a probability
# Official weights, which note nothing, were trained so.
PUBLISHED = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "sampling": "tsn", "frame_interval": 1}


def evaluate(options: argparse.Namespace, device: torch.device) -> None:
    """Evaluate a classifier on videos by the options of `video/evaluate.py`.

    Raises:
        ValueError: If weights and data do not fit together.
    """
    began = time.monotonic()
    model = load_video_classifier(
        options.weights,
        variant=options.variant,
        frames=options.frames,
        image_size=options.image_size,
    )
    flags = given_flags(options, "classes", "variant", "frames", "image_size", "mean", "std")
    fill_from_training(options, usual=PUBLISHED)
    names, columns = official_classes(model.num_classes), None
    if options.subset:
        names, columns = subset_of(model.num_classes, options.subset)
    elif options.class_names is not None:
        names = names_of_head(options.class_names, model.num_classes, source=options.weights)
    videos = open_videos(options.data, classes=names, root=options.root)
    samples = _open_views(videos, options, frames=model.frames, image_size=model.img_size)
    data = [("data", f"{VIDEOS.counted(samples)} ({options.data})")]
    announce(
        f"evaluate a classifier of {len(samples.classes):,} classes: {model.frames} frames of "
        f"{model.img_size} px, {options.clips} clips x {options.crops} crops on {device.type}",
        weights=options.weights,
        data=data,
    )
    judge = MultiView(model, columns=columns, views_per_forward=options.views_per_forward)
    options.precision = resolve(options.precision, device)
    judge = to_precision(judge, options.precision, device).eval()
    lines = VideoLines(samples, samples.classes, clips=options.clips)
    counted = evaluate_own_data(
        judge,
        samples,
        options,
        unit="videos",
        receive=None if options.output is None else lines.add,
        num_classes=model.num_classes if columns is None else len(columns),
    )
    if options.output is not None:
        lines.write(options.output / LINES)
    if distributed.rank():
        return
    score = counted.scores["data"]
    extra = {"mean_top1_top5": score.mean_top1_top5}
    if counted.confusion is not None:
        extra["mean_per_class"] = counted.mean_per_class
    views = {"frames": model.frames, "image_size": model.img_size}
    report_scores(
        options,
        counted.scores,
        began=began,
        task=VIDEOS.task,
        unit="videos",
        data=data,
        settings=settings_of(options, **views, views=options.clips * options.crops),
        extra={"data": extra},
        left_out=counted.left_out,
        device=device.type,
        sections=partial(
            class_sections, samples, counted, unit="videos", complete_in="per_class.csv"
        ),
        next_steps=VIDEOS.steps_after_evaluation(options, flags),
    )


def _open_views(
    videos: LabelledVideos, options: argparse.Namespace, *, frames: int, image_size: int
) -> Views:
    """Make the views of the videos, of which each is decoded once."""
    normalise = Normalise(mean=options.mean, std=options.std)
    # the official validation resizes to 256 / 224 of the crop, the official test to S
    if options.clips == options.crops == 1 and options.draws == "fixed":
        transform: CropsTransform = CentreTransform(image_size, normalise=normalise)
    else:
        transform = CropsTransform(image_size, crops=options.crops, normalise=normalise)
    sampling = Sampling(frames=frames, kind=options.sampling, interval=options.frame_interval)
    return Views(
        videos,
        sampling=sampling,
        transform=transform,
        clips=options.clips,
        draws=options.draws,
        seed=options.seed,
    )


class VideoLines:
    """A JSON line for each video: name, first five classes, and each view, crop by crop."""

    def __init__(self, samples: Views, names: Sequence[str], *, clips: int) -> None:
        self._samples, self._names, self._clips = samples, names, clips
        self._lines: dict[int, str] = {}

    def add(self, batch: BatchResults) -> None:
        """Make the lines of a batch of this process."""
        entries: dict[int, dict[str, Any]] = {
            index: {"error": reason} for index, reason in batch.unreadable.items()
        }
        if len(batch.indexes):
            assert batch.views is not None
            mean, each = batch.logits.exp().cpu(), batch.views.exp().cpu()  # (B, K), (B, V, K)
            labels = batch.labels.tolist()
            for position, index in enumerate(batch.indexes.tolist()):
                entries[index] = self._entry(labels[position], mean[position], each[position])
        for index, entry in entries.items():
            video = {"video": self._samples.sample_id(index)}
            self._lines[index] = json.dumps(video | entry)

    def write(self, file: Path) -> None:
        """Write the lines of all processes in the order of the videos; called on all of them."""
        parts = distributed.gather(self._lines)
        lines = {index: line for part in parts for index, line in part.items()}
        content = "".join(f"{lines[index]}\n" for index in sorted(lines))
        run_on_main_rank(lambda: write_text(file, content))

    def _entry(self, label: int, mean: Tensor, each: Tensor) -> dict[str, Any]:
        values, classes = mean.topk(min(5, len(mean)))
        best, first = each.max(dim=1)  # (V,)
        views = zip(first.tolist(), best.tolist(), each[:, label].tolist(), strict=True)
        return {
            "label": self._names[label],
            "probability_of_label": round(mean[label].item(), _DIGITS),
            "top5": [
                {"class": self._names[index], "probability": round(value, _DIGITS)}
                for index, value in zip(classes.tolist(), values.tolist(), strict=True)
            ],
            "views": [
                {
                    "crop": number // self._clips,
                    "clip": number % self._clips,
                    "class": self._names[index],
                    "probability": round(value, _DIGITS),
                    "probability_of_label": round(label_probability, _DIGITS),
                }
                for number, (index, value, label_probability) in enumerate(views)
            ],
        }
