"""Command lines of `video/`: train, evaluate, frozen features, demo.

Everything that needs torch is imported after parsing.
"""

import argparse
from collections.abc import Sequence
from typing import get_args

from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.variants import POOLINGS
from eva_data.files import VIDEO_SUFFIXES
from eva_data.kinetics import SOURCES
from eva_engine.commands.classifiers import (
    ClassifierProject,
    add_demo,
    check_classes,
    parse_demo,
    run_classifier_demo,
)
from eva_engine.commands.options import (
    add_arguments,
    add_frozen,
    add_max_bad_samples,
    add_probe,
    add_weights,
    command,
    new_parser,
    parse_evaluation,
    parse_with_weights,
)
from eva_engine.commands.training import training_command
from eva_engine.config import LARGEST_SEED
from eva_runs.commands import Command, lazy_import
from eva_runs.options import integer, number
from eva_video.config import (
    PREDICTIONS,
    Kind,
    VideoConfig,
    check_windows,
)

_PREDICTOR = "eva_video.inference.predictor:VideoPredictor"
VIDEOS = ClassifierProject(
    name="video",
    task="Video recognition",
    unit="videos",
    forms="class folders, lists or shards",
    demo="Name what happens in videos.",
    evaluation="Score the best weights with 12 views of each video.",
    predictor=_PREDICTOR,
)
train = training_command(
    VideoConfig,
    lazy_import("eva_video.training:train"),
    program="video/train.py",
    check=VIDEOS.check_training,
    planning="eva_video.training",
)
export = VIDEOS.exporting()


def _add_frames(parser: argparse.ArgumentParser, default: str) -> None:
    add = parser.add_argument
    add("--frames", type=integer(1), help=f"of a clip (default: {default})")


_EVALUATE = """
4 clips x 3 crops as in the paper, whose clips were drawn at random (--draws random):
    python video/evaluate.py --weights eva_video_k400.pth --data lists/k400_val.csv \\
        --root kinetics400/val --output output/k400

Kinetics-600 from the model of all three, on 8 GPUs:
    torchrun --nproc-per-node 8 video/evaluate.py --weights eva_video_k722.pth --subset k600 \\
        --data lists/k600_val.csv --root kinetics600/val

OUTPUT receives results.json, per_class.csv, confusion.png, and videos.jsonl: a line for each video
with its label, its first five classes and the result of each view.
"""


def _parse_evaluate(arguments: Sequence[str]) -> argparse.Namespace:
    parser = new_parser(
        "video/evaluate.py",
        "Evaluate a classifier of videos. Each video is decoded once, its views go through the "
        "model as one batch, and their probabilities are added up.",
        epilog=_EVALUATE,
    )
    add_weights(parser, alone=True)
    _add_frames(parser, "the weights'")
    add = parser.add_argument
    add("--variant", help="size of the ViT, if the weights do not say")
    add("--data", required=True, help="list of videos, folder of class folders or shards")
    add("--root", help="folder that the paths of a list begin in (default: the list's)")
    add("--classes", help="text file with the classes in label order (default: the weights')")
    add("--subset", choices=SOURCES, help="dataset whose classes compete, of merged weights")
    positive = integer(1)
    add("--clips", type=positive, default=4, help="views in time (default: %(default)s)")
    add("--crops", type=int, choices=(1, 3), default=3, help="views in space (default: 3)")
    add(
        "--draws",
        choices=("fixed", "random"),
        default="fixed",
        help="fixed: spread evenly; random: as officially, drawn by --seed and video",
    )
    add("--seed", type=integer(0, LARGEST_SEED), default=0, help="of --draws random (default: 0)")
    add("--sampling", choices=get_args(Kind), help="of frames (default: as in the training)")
    add("--frame-interval", type=positive, help="of --sampling dense (default: as in the training)")
    add("--views-per-forward", type=positive, help="for less memory (default: those of a batch)")
    add_max_bad_samples(parser, unit="videos")
    add_arguments(parser, batch_size=1)
    options = parse_evaluation(parser, arguments)
    if options.sampling == "tsn" and options.frame_interval is None:
        options.frame_interval = 1  # and not what weights of a dense training note
    if options.subset and options.classes:
        parser.error("--subset names its classes: leave --classes out")
    resolve_source(options.weights)
    VIDEOS.require(options.data, name="--data")
    check_classes(options.classes)
    return options


evaluate = command(
    "video/evaluate.py",
    _parse_evaluate,
    lazy_import("eva_video.evaluation.evaluating:evaluate"),
)


_FROZEN = """
How much do these weights know of my classes? Minutes, and nothing is trained but small classifiers:
    eva video evaluate-frozen --weights eva_video_k722.pth --train mine/train --val mine/val

The attentive probe is one block: a learned query attends to all tokens of a clip, as in V-JEPA.
Tokens wait in memory; where they are more than --probe-gb, the probe gets the mean of each frame.
"""


def _parse_frozen(arguments: Sequence[str]) -> argparse.Namespace:
    parser = new_parser(
        "eva video evaluate-frozen",
        "A quick check of weights on videos: the backbone is frozen, its features are computed "
        "once, and nearest neighbours, a linear classifier and an attentive probe are scored. The "
        "settings of each are chosen on a fifth of --train.",
        epilog=_FROZEN,
    )
    add_weights(parser, kinds="of images or videos", alone=True)
    _add_frames(parser, "the weights', or 8")
    add = parser.add_argument
    add("--pooling", choices=POOLINGS, help="default: what the weights were trained for")
    add_frozen(parser, data="list of videos, folder of class folders or shards", unit="videos")
    add("--root", help="folder that the paths of lists begin in (default: the list's)")
    add("--val-root", help="the same for --val (default: --root)")
    add("--classes", help="text file with the classes in label order (default: those of --train)")
    add(
        "--probe",
        choices=("auto", "tokens", "frames", "none"),
        default="auto",
        help="input of the attentive probe: all tokens, or the mean of each frame; auto: tokens "
        "where they fit into --probe-gb",
    )
    add_probe(parser)
    add_arguments(parser, batch_size=4)
    return VIDEOS.check_frozen_paths(parse_with_weights(parser, arguments))


evaluate_frozen = command(
    "eva video evaluate-frozen",
    _parse_frozen,
    lazy_import("eva_video.evaluation.frozen:evaluate"),
)


_DEMO = """
OUTPUT receives each video under its own name with its classes, probabilities and times written
below, those of a folder as in the folder, and predictions.json: for each video the windows with
their first classes, and segments in which one class is the first.
Files that cannot be read are named and skipped, and the exit code is then 1. An INPUT may also be a
pattern in quotes, or the number of a camera, which is judged until Ctrl-C.

Examples:

    python video/demo.py --weights eva_video_k400.pth --output output/films dive.mp4 holiday/

Events in a long recording, by windows of 10 seconds:

    ... --window 10 --stride 5 match.mkv
"""


def _parse_demo(arguments: Sequence[str]) -> argparse.Namespace:
    parser = new_parser(
        "video/demo.py",
        "Name what happens in videos, folders of them and long recordings.",
        epilog=_DEMO,
    )
    add_demo(parser, inputs="video, folder", batch_size=4, of="windows")
    _add_frames(parser, "the weights'")
    add, seconds = parser.add_argument, number()
    add("--window", type=seconds, metavar="SECONDS", help="judge windows of this length")
    add("--stride", type=seconds, metavar="SECONDS", help="of the windows (default: half of one)")
    add("--clips", type=integer(1), default=1, help="views in time of a window (default: 1)")
    add("--crops", type=int, choices=(1, 3), default=1, help="views in space (default: 1)")
    add("--no-video", action="store_true", help="write no annotated videos")
    return parse_demo(parser, arguments)


def _demo(options: argparse.Namespace) -> int:
    return run_classifier_demo(
        options,
        suffixes=VIDEO_SUFFIXES,
        kinds="videos",
        omit="no_video",
        files=(PREDICTIONS,),
        load=lazy_import(f"{_PREDICTOR}.from_options"),
        work=lazy_import("eva_video.inference.demo:recognise"),
        check=lambda options: check_windows(options.window, options.stride),
    )


demo = Command("video/demo.py", _parse_demo, _demo)
