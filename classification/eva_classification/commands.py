"""Command lines of classification; what works is imported once they are understood."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.variants import POOLINGS
from eva_classification.config import ClassificationConfig
from eva_data.classes import find_class_folders
from eva_data.files import DEMO_IMAGE_SUFFIXES, VIDEO_SUFFIXES
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
from eva_runs.commands import Command, lazy_import, require_data
from eva_runs.options import number

JSON, TABLE = "predictions.json", "predictions.csv"
SETS = {
    "imagenet": "ImageNet-1K val, a folder for each WordNet id",
    "real": "real.json of ImageNet-ReaL; labels --imagenet",
    "v2": "ImageNet-V2 matched frequency, folders 0 to 999",
    "a": "ImageNet-A",
    "r": "ImageNet-R",
    "sketch": "ImageNet-Sketch",
    "objectnet": "ObjectNet, with images and mappings",
}
_PREDICTOR = "eva_classification.inference.predictor:Predictor"
_FORMS = "a folder of class folders, torchvision:NAME:ROOT:SPLIT or hf:NAME:SPLIT"
_EXAMPLES = f"""
INPUT is an image, a video, a folder of both, a pattern in quotes ("photos/*.jpg"), or the number
of a camera, which is recorded until Ctrl-C. OUTPUT receives each image and video under its own
name with its first classes and their probabilities written below, those of a folder as in the
folder; and {JSON} and {TABLE} with the first classes of each, for a video of
the mean over its frames. The first class of each file is said at the end, and how many of each
there are. Files that cannot be read are named and skipped, and the exit code is then 1.

Examples:

    python classification/demo.py output/mine photo.jpg holiday/ --output output/named

With the classes of ImageNet:

    ... --weights eva_21k_1k_336px_psz14_ema_89p6.pt --output output/named "holiday/*.jpg"
"""


def _check_folders(location: str) -> None:
    if not location.startswith(("torchvision:", "hf:")):
        find_class_folders(Path(location), warn=False)


IMAGES = ClassifierProject(
    name="classification",
    task="Classification",
    unit="images",
    forms=_FORMS,
    demo="Name what images show.",
    evaluation="Score the best weights on any folder of class folders.",
    check_data=_check_folders,
    predictor=_PREDICTOR,
)
train = training_command(
    ClassificationConfig,
    lazy_import("eva_classification.training:train"),
    program="classification/train.py",
    check=IMAGES.check_training,
    planning="eva_classification.training",
)
export = IMAGES.exporting()


def _add_crop(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--crop-pct", type=float, help="default: the run's, else 1 as published")


def add_extractor(parser: argparse.ArgumentParser) -> None:
    """Add the options of a feature extractor, besides those of weights."""
    add = parser.add_argument
    add("--pooling", choices=POOLINGS, help="default: what the weights were trained for")
    add("--num-heads", type=int, help="attention heads, if the size of the weights is unusual")
    add("--window-size", type=int, help="in patches, of detectors that do not note it; 0: none")
    add("--global-blocks", type=int, nargs="*", help="blocks without windows, with --window-size")


# ---- evaluation ----------------------------------------------------------------------------------
def _parse_evaluation(arguments: Sequence[str]) -> argparse.Namespace:
    parser = new_parser(
        "classification/evaluate.py",
        "Evaluate a classifier on ImageNet-1K and its variants, or on your own data. "
        "With several GPUs: torchrun --nproc-per-node N classification/evaluate.py ...",
    )
    add_weights(parser, alone=True)
    _add_crop(parser)
    add = parser.add_argument
    add("--variant", help="size of the ViT, if the weights do not say")
    add("--data", help=f"your own: {_FORMS}")
    add("--classes", help="text file with the classes of --data in label order")
    for name, help_text in SETS.items():
        add(f"--{name}", type=Path, help=help_text)
    add_max_bad_samples(parser)
    add_arguments(parser)
    options = parse_evaluation(parser, arguments)
    sets = [name for name in SETS if getattr(options, name)]
    if bool(options.data) == bool(sets):
        parser.error(f"give either --data, your own, or any of --{', --'.join(SETS)}")
    if options.classes and not options.data:
        parser.error("--classes belongs to --data")
    if options.data:
        IMAGES.require(options.data, name="--data")
    for name, form in SETS.items():
        location = getattr(options, name)
        if location:
            require_data(str(location), name=f"--{name}", forms=form)
    check_classes(options.classes)
    resolve_source(options.weights)
    return options


evaluate = command(
    "classification/evaluate.py",
    _parse_evaluation,
    lazy_import("eva_classification.evaluation:evaluate"),
)


def _parse_frozen(arguments: Sequence[str]) -> argparse.Namespace:
    parser = new_parser(
        "eva classification evaluate-frozen",
        "A quick check of pre-trained weights: the backbone is frozen, its features of "
        "labelled images are computed once, and nearest neighbours and a linear classifier are "
        "scored. The penalty of the linear classifier is chosen on a fifth of --train.",
    )
    add_weights(parser, kinds="of any task", alone=True)
    add_extractor(parser)
    add_frozen(parser, data="folder of class folders, torchvision:... or hf:...")
    help_text = "share of --train that is scored on, in place of --val"
    parser.add_argument("--val-share", type=number(0, 0.9), default=0.0, help=help_text)
    help_text = "also an attentive probe: a learned query that looks at all patches"
    parser.add_argument("--attentive", action="store_true", help=help_text)
    add_probe(parser)
    help_text = (
        "write the linear classifier, or the attentive probe, and its ViT to --output, as a run"
    )
    parser.add_argument("--save", action="store_true", help=help_text)
    add_arguments(parser)
    options = IMAGES.check_frozen_paths(parse_with_weights(parser, arguments))
    if options.save and not (options.output and (options.l2 or options.attentive)):
        parser.error("--save needs --output DIR and a linear classifier (--l2) or --attentive")
    return options


evaluate_frozen = command(
    "eva classification evaluate-frozen",
    _parse_frozen,
    lazy_import("eva_classification.evaluation:evaluate_frozen"),
)


# ---- demo ----------------------------------------------------------------------------------------
def _parse_demo(arguments: Sequence[str]) -> argparse.Namespace:
    parser = new_parser(
        "classification/demo.py",
        "Name what images show: files, folders, videos and cameras.",
        epilog=_EXAMPLES,
    )
    add_demo(parser, inputs="image, video, folder of both", batch_size=8, of="images")
    _add_crop(parser)
    help_text = "write no annotated images and videos"
    parser.add_argument("--no-images", action="store_true", help=help_text)
    return parse_demo(parser, arguments)


def _demo(options: argparse.Namespace) -> int:
    return run_classifier_demo(
        options,
        suffixes=DEMO_IMAGE_SUFFIXES | VIDEO_SUFFIXES,
        kinds="images and no videos",
        omit="no_images",
        files=(JSON, TABLE),
        load=lazy_import(f"{_PREDICTOR}.from_options"),
        work=lazy_import("eva_classification.inference.demo:classify"),
    )


demo = Command("classification/demo.py", _parse_demo, _demo)
