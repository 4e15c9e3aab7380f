"""What `video/evaluate.py` does: the views of each video, judged together."""

import argparse
import contextlib

import torch

from eva_backbone.variants import IMAGENET_MEAN, IMAGENET_STD
from eva_data.commands import say
from eva_data.labelled_videos.opening import open_videos
from eva_data.video.video_source import UnreadableVideoError, require_backend
from eva_engine import distributed
from eva_engine.checkpoints.output_folder import reserved
from eva_engine.commands.endings import sentence
from eva_engine.commands.options import choose_dtype
from eva_engine.evaluation.counting import Counted
from eva_engine.evaluation.multi_view import MultiView
from eva_engine.evaluation.own_data import evaluate_own_data, fill_from_training, settings_of
from eva_engine.evaluation.reports import complain_of_left_out, table, write_results
from eva_engine.evaluation.sample_lines import writing_sample_lines
from eva_video.data.sampling import Sampling
from eva_video.data.transforms import Normalise
from eva_video.evaluation.class_names import class_names, subset_of
from eva_video.evaluation.command import KINDS
from eva_video.evaluation.views import VideoLines, open_views
from eva_video.model.loading import load_video_classifier

LINES = "videos.jsonl"
# Official weights, which note nothing, were trained so.
PUBLISHED = {
    "mean": IMAGENET_MEAN, "std": IMAGENET_STD, "sampling": "tsn", "frame_interval": 1
}  # fmt: skip


def evaluate(options: argparse.Namespace, device: torch.device) -> None:
    """Evaluate a classifier on videos.

    Args:
        options: Options of `eva_video.evaluation.command`.
        device: Device of this process.

    Raises:
        ValueError: If weights and data do not fit together.
    """
    with contextlib.ExitStack() as stack:
        if options.output is not None:
            stack.enter_context(reserved(options.output))  # fails now, not after hours
        _evaluate_to(options, device)


def _evaluate_to(options: argparse.Namespace, device: torch.device) -> None:
    require_backend(options.backend)
    model = load_video_classifier(
        options.weights,
        variant=options.variant,
        frames=options.frames,
        image_size=options.image_size,
    )
    fill_from_training(options, usual=PUBLISHED)
    if options.subset:
        names, columns = subset_of(model.num_classes, options.subset)
    else:
        given = class_names(model.num_classes, given=options.class_names, source=options.weights)
        names, columns = given or (), None
    samples = open_views(
        open_videos(
            options.data, classes=names or None, root=options.root, backend=options.backend
        ),
        sampling=sampling_of(options, frames=model.frames),
        image_size=model.img_size,
        clips=options.clips,
        crops=options.crops,
        draws=options.draws,
        seed=options.seed or 0,
        normalise=Normalise(mean=options.mean, std=options.std),
    )
    judge = MultiView(model, columns=columns, views_per_forward=options.views_per_forward)
    judge = judge.to(device, choose_dtype(options.precision, device)).eval()
    with contextlib.ExitStack() as stack:
        receive = None
        if options.output is not None:
            lines = stack.enter_context(writing_sample_lines(options.output / LINES))
            receive = VideoLines(lines, samples, samples.classes, clips=options.clips)
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
                f"{sentence(error)}; --skip-unreadable leaves such videos out"
            ) from error
    if distributed.rank() == 0:
        _report(options, counted, frames=model.frames, image_size=model.img_size)


def sampling_of(options: argparse.Namespace, *, frames: int) -> Sampling:
    """Make the rule that chooses frames, of the options or of what the weights note.

    Args:
        options: `sampling` and `frame_interval`.
        frames: Frames of a clip.

    Raises:
        ValueError: If there is no such rule, or the interval has no effect on it.
    """
    if options.sampling not in KINDS:
        raise ValueError(f"sampling must be {' or '.join(KINDS)}, got {options.sampling!r}")
    if options.frame_interval != 1 and options.sampling != "dense":
        raise ValueError(
            f"--frame-interval {options.frame_interval} has no effect on --sampling "
            f"{options.sampling}, which spreads the frames over the video"
        )
    return Sampling(frames=frames, kind=options.sampling, interval=options.frame_interval)


def _report(options: argparse.Namespace, counted: Counted, **more: int) -> None:
    score = counted.scores["data"]
    extra = {"mean_top1_top5": score.mean_top1_top5}
    shown = {"(1+5)/2": score.mean_top1_top5}
    if counted.confusion is not None:
        shown["class mean"] = extra["mean_per_class"] = counted.mean_per_class
    say(table(counted.scores, unit="videos", extra={"data": shown}))
    if options.output is not None:
        settings = settings_of(options, **more, views=options.clips * options.crops)
        file = write_results(
            options.output, settings, counted.scores, unit="videos", extra={"data": extra},
            more={"left_out": list(counted.left_out)},
        )  # fmt: skip
        say(f"wrote {options.output / LINES}\nwrote {file}")
    complain_of_left_out(counted.left_out, unit="videos")
