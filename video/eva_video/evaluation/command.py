"""Command line of `video/evaluate.py`."""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch

from eva_backbone.variants import IMAGENET_MEAN, IMAGENET_STD
from eva_data.kinetics.classes import SOURCES
from eva_data.labelled_videos.opening import open_videos
from eva_data.options import integer
from eva_data.video.video_source import BACKENDS, UnreadableVideoError, require_backend
from eva_engine import distributed
from eva_engine.checkpoints.output_folder import reserved
from eva_engine.commands.endings import sentence
from eva_engine.commands.options import (
    add_arguments,
    add_weights,
    choose_dtype,
    command,
    new_parser,
)
from eva_engine.config import LARGEST_SEED
from eva_engine.evaluation.counting import Counted
from eva_engine.evaluation.multi_view import MultiView
from eva_engine.evaluation.own_data import evaluate_own_data, fill_from_training, settings_of
from eva_engine.evaluation.reports import complain_of_left_out, table, write_results
from eva_engine.evaluation.sample_lines import writing_sample_lines
from eva_video.config import MOST_FRAMES
from eva_video.data.sampling import Kind, Sampling
from eva_video.data.transforms import Normalise
from eva_video.evaluation.class_names import class_names, subset_of
from eva_video.evaluation.views import VideoLines, open_views
from eva_video.model.loading import load_video_classifier

PROGRAM = "video/evaluate.py"
LINES = "videos.jsonl"
KINDS = get_args(Kind)
# Official weights, which note nothing, were trained so.
PUBLISHED = {
    "mean": IMAGENET_MEAN, "std": IMAGENET_STD, "sampling": "tsn", "frame_interval": 1
}  # fmt: skip
_EXAMPLES = """
4 clips x 3 crops as in the paper, whose clips were drawn at random (--draws random):
    python video/evaluate.py --weights eva_video_k400.pth --data lists/k400_val.csv \\
        --root kinetics400/val --output output/k400

Kinetics-600 from the model of all three, on 8 GPUs:
    torchrun --nproc-per-node 8 video/evaluate.py --weights eva_video_k722.pth --subset k600 \\
        --data lists/k600_val.csv --root kinetics600/val

OUTPUT receives results.json, per_class.csv, confusion.png, and videos.jsonl: a line for each video
with its label, its first five classes and what each view gave.
"""


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = new_parser(
        PROGRAM,
        "Evaluate a classifier of videos. Each video is decoded once, its views go through the "
        "model as one batch, and their probabilities are added up.",
        epilog=_EXAMPLES,
    )
    add_weights(parser, kinds="official name, or file of a run")
    add = parser.add_argument
    add("--variant", help="size of the ViT, if the weights do not say")
    add("--frames", type=integer(1, MOST_FRAMES), help="of a clip (default: the weights')")
    add("--data", required=True, help="list of videos, folder of class folders or shards")
    add("--root", help="folder that the paths of a list begin in (default: the list's)")
    add("--classes", help="text file with the classes in label order (default: the weights')")
    add("--subset", choices=SOURCES, help="data set whose classes compete, of merged weights")
    add("--backend", choices=BACKENDS, default=BACKENDS[0], help="decoder (default: %(default)s)")
    one = integer(1)
    add("--clips", type=one, default=4, help="views in time (default: %(default)s)")
    add("--crops", type=int, choices=(1, 3), default=3, help="views in space (default: 3)")
    add(
        "--draws",
        choices=("fixed", "random"),
        default="fixed",
        help="fixed: clips spread evenly; random: as officially, drawn by --seed and video",
    )
    add("--seed", type=integer(0, LARGEST_SEED), help="of --draws random (default: 0)")
    add("--sampling", choices=KINDS, help="of frames (default: that of the weights' training)")
    add("--frame-interval", type=one, help="of --sampling dense (default: as in the training)")
    add("--views-per-forward", type=one, help="for less memory (default: those of a batch)")
    add("--skip-unreadable", action="store_true", help="leave out and name what cannot be read")
    add_arguments(parser, batch_size=1)
    add("--output", type=Path, help="folder of the results")
    options = parser.parse_args(arguments)
    if options.sampling == "tsn" and options.frame_interval is None:
        options.frame_interval = 1  # and not what weights of a dense training note
    if options.seed is not None and options.draws == "fixed":
        parser.error("--seed has no effect without --draws random")
    if options.subset and options.classes:
        parser.error("--subset names its classes: leave --classes out")
    return options


def _evaluate(options: argparse.Namespace, device: torch.device) -> None:
    with contextlib.ExitStack() as stack:
        if options.output is not None:
            stack.enter_context(reserved(options.output))  # fails now, not after hours
        _evaluate_to(options, device)


main = command(PROGRAM, _parse, _evaluate)


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
    sys.stdout.write(table(counted.scores, unit="videos", extra={"data": shown}) + "\n")
    if options.output is not None:
        settings = settings_of(options, **more, views=options.clips * options.crops)
        file = write_results(
            options.output, settings, counted.scores, unit="videos", extra={"data": extra},
            more={"left_out": list(counted.left_out)},
        )  # fmt: skip
        sys.stdout.write(f"wrote {options.output / LINES}\nwrote {file}\n")
    complain_of_left_out(counted.left_out, unit="videos")
