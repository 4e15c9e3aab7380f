"""The commands that use a detector: demo and export, checked before torch is imported."""

import argparse
from pathlib import Path

from eva_detection.training.output_folder import config_of_run
from eva_report import demo_command
from eva_report.demos import add_detector_options, plan_detection
from eva_report.detection_demo import PREDICTIONS, detect_files
from eva_runs.commands import Command, echo, lazy_import, program_name
from eva_runs.options import (
    EXPORT_SUFFIXES,
    SOURCES,
    add_calibration,
    add_download_option,
    add_export,
    add_precision,
    command_parser,
    integer,
    number,
    require_export,
)
from eva_runs.recipes import find_recipe
from eva_runs.run_folder import require_config

_FORMS = EXPORT_SUFFIXES | {"torchscript": ".ts"}
_DEMO = """\
INPUT is an image, a video, a folder of both, a pattern in quotes ("photos/*.jpg"), or the number
of a camera, which is recorded until Ctrl-C. OUTPUT receives images and videos by name, and
predictions.json in COCO's format. Unreadable files are named and skipped, with exit code 1.

examples:
  %(prog)s output/mine holiday/ --output output/images
  %(prog)s coco/cascade_mask_rcnn_vitdet_eva_g_1536 eva_coco_seg.pth photo.jpg --output drawn"""


def _demo_parser() -> argparse.ArgumentParser:
    about = "Detect objects in images and videos."
    parser = demo_command.demo_parser(about, _DEMO, task="detection", device="from the recipe")
    help_text = "the detector's recipe (default: the config.yaml that lies with the weights)"
    parser.add_argument("--config-file", dest="config", metavar="RECIPE", help=help_text)
    _add_overrides(parser)
    add_detector_options(parser)
    return parser


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    help_text = "values of the recipe to change"
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY=VALUE", help=help_text)


demo = demo_command.make_command(
    _demo_parser,
    plan=plan_detection,
    work=detect_files,
    load=lambda args: demo_command.load(
        args, score_threshold=args.score_threshold, overrides=args.opts
    ),
    result=lambda args: args.output / PREDICTIONS,
    config_of_run=lambda weights: require_config(config_of_run(weights), weights),
)


def _export_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "Write a detector for programs without this toolkit: with --image complete, as ONNX or\n"
        "TorchScript (one image in; boxes, classes, masks, scores out), else its ViT and pyramid\n"
        "(normalised images in, p2 ... out). It is compared with the model before it is kept.",
        prog=program_name("export.py"),
    )
    add = parser.add_argument
    help_text = "the detector's recipe (default: the config.yaml that lies with the weights)"
    add("--config-file", metavar="RECIPE", help=help_text)
    add("--weights", required=True, help=SOURCES)
    add_download_option(parser)
    _add_overrides(parser)
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
    config = args.config_file or require_config(config_of_run(args.weights), args.weights)
    args.config_file = find_recipe("detection", config)

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
