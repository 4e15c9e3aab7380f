"""The commands that use a detector: demo and export, checked before torch is imported."""

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path

from eva_backbone.checkpoints.registry import is_weights, resolve_source
from eva_backbone.checkpoints.run_folders import describe_missing
from eva_data.detection.tiles import add_slicing
from eva_data.inputs import JobPlan
from eva_detection.command_line import slice_settings
from eva_detection.training.output_folder import config_of_run, require_config
from eva_report.demos import add_detector_options, plan_detection, run_demo
from eva_report.detection_demo import PREDICTIONS, detect_files
from eva_runs.commands import Command, echo, lazy_import, program_name
from eva_runs.options import (
    EXPORT_SUFFIXES,
    SOURCES,
    add_calibration,
    add_download_option,
    add_export,
    add_precision,
    add_results_folder,
    command_parser,
    integer,
    number,
    require_export,
)
from eva_runs.recipes import find_recipe

_FORMS = EXPORT_SUFFIXES | {"torchscript": ".ts"}
_DEMO = """\
INPUT is an image, a video, a folder of both, a pattern in quotes ("photos/*.jpg"), or the number
of a camera, which is recorded until Ctrl-C. OUTPUT receives images and videos by name, and
predictions.json in COCO's format. Unreadable files are named and skipped, with exit code 1.

examples:
  %(prog)s output/mine holiday/ --output output/images
  %(prog)s coco/cascade_mask_rcnn_vitdet_eva_g_1536 eva_coco_seg.pth photo.jpg --output drawn"""


def _demo_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "Detect objects in images and videos.", prog=program_name("demo.py"), epilog=_DEMO
    )
    add = parser.add_argument
    help_text = (
        "image, video, folder, pattern or camera; before them the folder of a training, or a "
    )
    help_text += "recipe and weights"
    add("inputs", nargs="+", type=Path, metavar="INPUT", help=help_text)
    _add_model(parser)
    add_results_folder(parser)
    add("--device", help='"cuda", "cuda:1" or "cpu" (default: from the recipe)')
    add_precision(parser, default="fp32", usual="fp32, as published")
    add_detector_options(parser)
    add_slicing(parser)
    add("--overwrite", action="store_true", help="replace earlier results")
    return parser


def _add_model(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    help_text = "the detector's recipe (default: the config.yaml that lies with the weights)"
    parser.add_argument("--config-file", metavar="RECIPE", help=help_text)
    parser.add_argument("--weights", required=required, help=SOURCES)
    add_download_option(parser)
    help_text = "values of the recipe to change"
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY=VALUE", help=help_text)


def _parse_demo(arguments: Sequence[str]) -> argparse.Namespace:
    args = _demo_parser().parse_intermixed_args(arguments)
    args.opts += slice_settings(args.slice, args.overlap)
    _take_model(args)
    return args


def _demo(args: argparse.Namespace) -> int:
    """Detect objects in images, folders and videos."""

    def prepare() -> JobPlan:
        planned = plan_detection(args, args.inputs)
        if planned.jobs:
            config = require_config(args.config_file, args.weights)
            args.config_file = find_recipe("detection", config)
            resolve_source(args.weights)
        return planned

    load = lazy_import("eva_detection.inference.predictor:named_predictor")
    results = [args.output / PREDICTIONS]
    return run_demo(args, prepare=prepare, load=load, work=detect_files, results=results)


demo = Command("demo.py", _parse_demo, _demo)


def _take_model(args: argparse.Namespace) -> None:
    """Take recipe and weights from the words before the first input, unless options name them."""
    words, first = args.inputs, args.inputs[0]
    is_name = first.suffix in ("", ".py", ".yaml") and not config_of_run(first)
    if args.config_file is None and len(words) > 1 and is_name:
        with contextlib.suppress(OSError, ValueError):
            args.config_file = find_recipe("detection", first)
            words.pop(0)
    if args.weights is None:
        first = words[0]
        if len(words) < 2 or not is_weights(first):
            message = describe_missing(first) or f"{first} is not the folder of a training"
            raise ValueError(f"{message}: name weights before the first INPUT, or with --weights")
        args.weights = str(words.pop(0))


def _export_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "Write a detector for programs without this toolkit: with --image complete, as ONNX or\n"
        "TorchScript (one image in; boxes, classes, masks, scores out), else its ViT and pyramid\n"
        "(normalised images in, p2 ... out). It is compared with the model before it is kept.",
        prog=program_name("export.py"),
    )
    _add_model(parser, required=True)
    add = parser.add_argument
    add_export(parser, _FORMS, size="the recipe's canvas; any with --image")
    help_text = "export the complete detector: an image that it detects something in"
    add("--image", type=Path, help=help_text)
    add("--score-threshold", type=number(0), default=0.05, help="with --image: default %(default)s")
    size = integer(1)
    add(
        "--batch-size",
        type=lambda value: None if value == "any" else size(value),
        default=1,
        help='fixed, or "any" (default: %(default)s)',
    )
    usual = "fp32; int8 is for torch-export, and with --calibrate"
    add_precision(parser, default="fp32", usual=usual)
    add_calibration(parser)
    add("--device", default="cpu", help="where a torch.export program will run (default: cpu)")
    return parser


def _export(args: argparse.Namespace) -> None:
    """Write a detector, or its backbone, for other programs."""
    args.config_file = find_recipe("detection", require_config(args.config_file, args.weights))

    def training_images() -> Path | None:
        load = lazy_import("eva_detection.config.files:load_config_file")
        train = load(args.config_file, trusted=args.config_file).get("own_data", {}).get("train")
        return Path(train.images) if train else None

    require_export(args, _FORMS, training=training_images)
    scripted = args.form == "torchscript"
    other = args.batch_size != 1 or args.device != "cpu"
    if args.image is None and args.calibrate is not None:
        raise ValueError(f"--calibrate {args.calibrate} is for a complete detector: give --image")
    other |= scripted and args.size is not None
    if scripted if args.image is None else (other or args.form == "torch-export"):
        raise ValueError(
            f"--format {args.form}, --precision {args.precision}, --device {args.device}: a "
            "complete detector is onnx, openvino or torchscript, on the CPU, with --image; --size "
            "is for onnx and openvino"
        )
    outputs = lazy_import("eva_detection.inference.export:export_from_config")(args)
    differences = ", ".join(f"{name} {value:.2g}" for name, value in outputs.items())
    echo(f"wrote {args.output}; beside the model: {differences}")


export = Command("export.py", lambda words: _export_parser().parse_args(words), _export)
