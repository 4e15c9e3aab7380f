"""Evaluation of a classifier by the views of each video, judged together.

Shapes: V views, T frames, S the side of a clip, K classes.
"""

import argparse
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eva_backbone.variants import IMAGENET_MEAN, IMAGENET_STD
from eva_data.files import write_text
from eva_data.labelled_videos.opening import open_videos
from eva_data.labelled_videos.sources import LabelledVideos
from eva_data.video.source import UnreadableVideoError, require_backend
from eva_engine import distributed
from eva_engine.distributed import choose_dtype
from eva_engine.evaluation.classification_report import (
    classification_sections,
    complain_of_left_out,
    say_end,
    table,
    write_results,
)
from eva_engine.evaluation.counting import BatchResults, Counted, MultiView, Outcome, Outcomes
from eva_engine.evaluation.own_data import (
    evaluate_own_data,
    fill_from_training,
    given_flags,
    settings_of,
)
from eva_engine.report import announce, write_evaluation_report
from eva_report.content import Section, Step
from eva_runs.commands import command_to_run, folder_to_show
from eva_runs.errors import one_line
from eva_runs.processes import on_main
from eva_video.data.clips import Sampling, SingleView, Views, counted_videos, strips_of
from eva_video.data.transforms import Normalise
from eva_video.model.classifier import class_names, load_video_classifier, subset_of

LINES = "videos.jsonl"
_DIGITS = 7  # of a probability
# Official weights, which note nothing, were trained so.
PUBLISHED = {
    "mean": IMAGENET_MEAN, "std": IMAGENET_STD, "sampling": "tsn", "frame_interval": 1
}  # fmt: skip


class _Evaluated(NamedTuple):
    """Result of an evaluation, and what its report shows."""

    counted: Counted
    videos: LabelledVideos
    examples: tuple[list[Outcome], list[Outcome]]
    began: float
    flags: list[str]  # of the weights


def evaluate(options: argparse.Namespace, device: torch.device) -> None:
    """Evaluate a classifier on videos by the options of `video/evaluate.py`.

    Raises:
        ValueError: If weights and data do not fit together.
    """
    began = time.monotonic()
    require_backend(options.backend)
    model = load_video_classifier(
        options.weights,
        variant=options.variant,
        frames=options.frames,
        image_size=options.image_size,
    )
    flags = given_flags(options, "classes", "variant", "frames", "image_size", "mean", "std")
    fill_from_training(options, usual=PUBLISHED)
    if options.subset:
        names, columns = subset_of(model.num_classes, options.subset)
    else:
        given = class_names(model.num_classes, given=options.class_names, source=options.weights)
        names, columns = given or (), None
    videos = open_videos(
        options.data, classes=names or None, root=options.root, backend=options.backend
    )
    samples = _open_views(videos, options, frames=model.frames, image_size=model.img_size)
    announce(
        f"evaluate a classifier of {len(samples.classes):,} classes: {model.frames} frames of "
        f"{model.img_size} px, {options.clips} clips x {options.crops} crops on {device.type}",
        weights=options.weights,
        data=[("data", f"{counted_videos(videos)} ({options.data})")],
    )
    judge = MultiView(model, columns=columns, views_per_forward=options.views_per_forward)
    judge = judge.to(device, choose_dtype(options.precision, device)).eval()
    outcomes, lines = Outcomes(), VideoLines(samples, samples.classes, clips=options.clips)

    def receive(batch: BatchResults) -> None:
        outcomes.add(batch)
        if options.output is not None:
            lines.add(batch)

    try:
        counted = evaluate_own_data(
            judge,
            samples,
            options,
            num_classes=model.num_classes if columns is None else len(columns),
            unit="videos",
            skip_unreadable=options.skip_unreadable,
            receive=receive,
        )
    except UnreadableVideoError as error:
        raise UnreadableVideoError(
            f"{one_line(error)}; --skip-unreadable leaves such videos out"
        ) from error
    if options.output is not None:
        lines.write(options.output / LINES)
    evaluated = _Evaluated(counted, videos, outcomes.gathered(), began, flags)
    if distributed.rank() == 0:
        _report(options, evaluated, device, frames=model.frames, image_size=model.img_size)


def _open_views(
    videos: LabelledVideos, options: argparse.Namespace, *, frames: int, image_size: int
) -> Views | SingleView:
    """Make the views of the videos, of which each is decoded once.

    One clip and one crop without random draws is the official validation: frames from the centres
    of the segments, resized to 256 / 224 of the crop. All others are the official test: the shorter
    side becomes S.
    """
    sampling = Sampling(frames=frames, kind=options.sampling, interval=options.frame_interval)
    normalise = Normalise(mean=options.mean, std=options.std)
    if options.clips == options.crops == 1 and options.draws == "fixed":
        return SingleView(videos, sampling=sampling, image_size=image_size, normalise=normalise)
    return Views(
        videos, sampling=sampling, image_size=image_size, clips=options.clips, crops=options.crops,
        draws=options.draws, seed=options.seed, normalise=normalise,
    )  # fmt: skip


def _report(
    options: argparse.Namespace, evaluated: _Evaluated, device: torch.device, **more: int
) -> None:
    counted = evaluated.counted
    score = counted.scores["data"]
    extra = {"mean_top1_top5": score.mean_top1_top5}
    shown = {"(1+5)/2": score.mean_top1_top5}
    if counted.confusion is not None:
        shown["class mean"] = extra["mean_per_class"] = counted.mean_per_class
    page, next_steps = None, list[Step]()
    if options.output is not None:
        settings = settings_of(options, **more, views=options.clips * options.crops)
        write_results(
            options.output, settings, counted.scores, unit="videos", extra={"data": extra},
            more={"left_out": list(counted.left_out)},
        )  # fmt: skip
        next_steps = _next_steps(options, evaluated.flags)
        page = write_evaluation_report(
            options.output, counted.scores, task="Video recognition", weights=options.weights,
            data=[("data", f"{counted_videos(evaluated.videos)} ({options.data})")],
            settings=settings, sections=partial(_sections, evaluated), device=device.type,
            unit="videos", extra={"data": shown},
            next_steps=next_steps,
        )  # fmt: skip
    scores = table(counted.scores, unit="videos", extra={"data": shown})
    say_end(scores, began=evaluated.began, report=page, next_steps=next_steps)
    complain_of_left_out(counted.left_out, unit="videos")


def _sections(evaluated: _Evaluated) -> list[Section]:
    videos = evaluated.videos
    return classification_sections(
        evaluated.counted, videos.classes, examples=evaluated.examples, image=strips_of(videos),
        name=videos.sample_id, unit="videos", complete_in="per_class.csv",
    )  # fmt: skip


def _next_steps(options: argparse.Namespace, flags: list[str]) -> list[Step]:
    demo = command_to_run(
        "video demo", "video/demo.py",
        "--weights", options.weights, *flags,
        "--output", options.output / "demo",
        folder_to_show(options.data, otherwise="VIDEO_OR_FOLDER"),
    )  # fmt: skip
    return [Step(text="Name what happens in videos.", command=demo)]


class VideoLines:
    """A JSON line for each video: name, first five classes, and each view, crop by crop."""

    def __init__(self, samples: Views | SingleView, names: Sequence[str], *, clips: int) -> None:
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
            for place, index in enumerate(batch.indexes.tolist()):
                entries[index] = self._entry(labels[place], mean[place], each[place])
        for index, entry in entries.items():
            video = {"video": self._samples.sample_id(index)}
            self._lines[index] = json.dumps(video | entry)

    def write(self, file: Path) -> None:
        """Write the lines of all processes in the order of the videos; called on all of them."""
        parts = distributed.gather(self._lines)
        lines = {index: line for part in parts for index, line in part.items()}
        text = "".join(f"{lines[index]}\n" for index in sorted(lines))
        on_main(lambda: write_text(file, text))

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
                    "probability_of_label": round(own, _DIGITS),
                }
                for number, (index, value, own) in enumerate(views)
            ],
        }
