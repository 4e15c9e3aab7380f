"""Command line that detects objects in images, folders of them, videos and cameras.

The frameworks are imported once the arguments are known to be right.
"""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from eva_data.detection.tiles import add_slicing
from eva_data.inputs import Plan
from eva_openmmlab import demo
from eva_report.demos import add_detector_options, plan_detection
from eva_report.detection_demo import PREDICTIONS, detect_files

if TYPE_CHECKING:
    from eva_mmdetection.inference.predictor import Predictor


_EPILOG = """
OUTPUT receives each image and video under its own name, those of a folder as in the folder, and
predictions.json: images, categories and annotations in COCO's format, with a score each. What was
found is said at the end. Files that cannot be read are named and skipped, and the exit code is
then 1.

Examples:

    python mmdetection/demo.py output/mmdet holiday/ --output output/images

    python mmdetection/demo.py coco/cascade_mask_rcnn_eva_g_1536 eva_coco_seg.pth \\
        photo.jpg holiday/ film.mp4 --output output/images
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line of `demo.py`; None for the arguments of the process."""
    parser = demo.demo_parser(
        "Detect objects in images, folders of them, videos and cameras.",
        _EPILOG,
        task="mmdetection",
    )
    add_detector_options(parser)
    add_slicing(parser)
    demo.main(
        parser,
        arguments,
        plan=lambda args, inputs: plan_detection(inputs, args.output, track=args.track),
        load=_load,
        work=_detect,
        result=lambda args: args.output / PREDICTIONS,
    )


def _load(args: argparse.Namespace) -> "Predictor":
    from eva_mmdetection.inference.predictor import Predictor

    return Predictor.from_config(
        args.config,
        weights=args.weights,
        score_threshold=args.score_threshold,
        device=args.device,
        precision=args.precision,
        slice=args.slice,
        overlap=args.overlap,
    )


def _detect(args: argparse.Namespace, predictor: "Predictor", planned: Plan) -> list[str]:
    return detect_files(
        predictor.in_coco_format,
        planned.jobs,
        args.output,
        categories=predictor.categories,
        threshold=args.score_threshold,
        track=args.track,
    )
