"""Command lines of `mmdetection/train.py`, `test.py` and `demo.py`.

The frameworks are imported once the arguments are known to be right.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eva_mmdetection.data import own_data
from eva_openmmlab import command_line
from eva_openmmlab.run_folder import require_config_of_run
from eva_report import demo_command
from eva_report.demos import add_detector_options, plan_detection
from eva_report.detection_demo import PREDICTIONS, detect_files
from eva_runs.commands import Command, echo, lazy_import
from eva_runs.options import (
    EXPORT_SUFFIXES,
    add_download_option,
    add_export,
    command_parser,
    number,
    require_export,
)

if TYPE_CHECKING:
    from mmengine.config import Config

_EXAMPLES = """
examples:
  %(prog)s coco/cascade_mask_rcnn_eva_g_1280
  %(prog)s custom/cascade_mask_rcnn_eva_g_24gb --data coins/data.yaml --val-share 0.1

--resume continues a run; SIGTERM, SIGUSR1 and Ctrl-C save a checkpoint and exit with 75."""
_EPILOG = """
OUTPUT receives images and videos by name, and predictions.json in COCO's format. Unreadable files
are named and skipped, with exit code 1.

examples:
  %(prog)s output/mmdet holiday/ --output output/images
  %(prog)s coco/cascade_mask_rcnn_eva_g_1536 eva_coco_seg.pth photo.jpg --output output/images"""


_FORMS = {form: EXPORT_SUFFIXES[form] for form in ("onnx", "openvino")}
_slice_images = lazy_import("eva_mmdetection.model.slices:slice_images")  # after the stand-in
_require_order_of_files = lazy_import("eva_mmdetection.data.coco_file:require_order_of_files")


def _training_parser() -> argparse.ArgumentParser:
    return command_line.train_parser("mmdetection", title="a detector", examples=_EXAMPLES)


def _change_data(cfg: "Config", args: argparse.Namespace) -> None:
    _require_order_of_files(cfg)
    if args.slice is not None:
        _slice_images(cfg, args.slice, args.overlap)


train = command_line.make_command(
    "train.py", _training_parser, own_data=own_data, change=_change_data
)


def _evaluation_parser() -> argparse.ArgumentParser:
    predictions = "the predictions, in COCO's format for results,"
    return command_line.test_parser("mmdetection", title="a detector", predictions=predictions)


def _change(cfg: "Config", args: argparse.Namespace) -> None:
    _change_data(cfg, args)
    if args.out is not None:
        command_line.require_empty(args.out)
        args.out.mkdir(parents=True, exist_ok=True)
        cfg.test_evaluator.outfile_prefix = str(args.out / "predictions")
    if args.show_dir is not None and args.slice is not None:
        raise ValueError("--show-dir does not go with --slice: `eva mmdetection demo` draws")
    if args.show_dir is not None:  # absolute, else below the logs
        folder = str(args.show_dir.absolute())
        cfg.default_hooks.visualization.update(draw=True, test_out_dir=folder)


evaluate = command_line.make_command(
    "test.py", _evaluation_parser, own_data=own_data, change=_change
)


def _demo_parser() -> argparse.ArgumentParser:
    parser = demo_command.demo_parser(
        "Detect objects in images, folders of them, videos and cameras.",
        _EPILOG,
        task="mmdetection",
    )
    add_detector_options(parser)
    return parser


demo = demo_command.make_command(
    _demo_parser,
    plan=plan_detection,
    work=detect_files,
    load=lambda args: demo_command.load(args, score_threshold=args.score_threshold),
    result=lambda args: args.output / PREDICTIONS,
    config_of_run=require_config_of_run,
)


def _parse_export(words: Sequence[str]) -> argparse.Namespace:
    parser = command_parser(
        "Write a detector of instances by queries (EoMT): boxes, classes, masks, scores.\n"
        "`eva export RUN` does so, and writes the cascade as detectron2's.",
        prog="eva mmdetection export",
    )
    add = parser.add_argument
    add("--weights", required=True, metavar="RUN", help="folder of a run")
    add("--image", type=Path, required=True, help="an image that it detects something in")
    add("--score-threshold", type=number(0), default=0.05, help="default %(default)s")
    add_export(parser, _FORMS, size="any size")
    add("--precision", choices=("fp32", "fp16"), default="fp32")
    add_download_option(parser)
    return parser.parse_args(words)


def _export(options: argparse.Namespace) -> None:
    require_export(options, _FORMS)
    worst = lazy_import("eva_mmdetection.inference.export:export_run")(options)
    differences = ", ".join(f"{name} {value:.2g}" for name, value in worst.items())
    echo(f"wrote {options.output}; beside the model: {differences}")


export = Command("eva mmdetection export", _parse_export, _export)
