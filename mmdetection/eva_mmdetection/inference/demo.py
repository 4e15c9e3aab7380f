"""Command line that detects objects in images, folders of them, videos and cameras.

Everything heavy is imported where it is used, so that `--help` and mistakes in the arguments
answer at once.
"""

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path

from eva_data.files import DEMO_IMAGE_SUFFIXES, VIDEO_SUFFIXES
from eva_data.inputs import Job, Plan, plan_jobs, written_name
from eva_openmmlab.command_line import Model, demo_parser, named_model
from eva_report.demos import refuse, run_demo
from eva_runs.options import probability

PREDICTIONS = "predictions.json"
TASK = "mmdetection"

_EPILOG = """
OUTPUT receives each picture and video under its own name, those of a folder as in the folder, and
predictions.json: images, categories and annotations in COCO's format, with a score each. What was
found is said at the end. Files that cannot be read are named and skipped, and the exit code is
then 1.

Examples:

    python mmdetection/demo.py output/mmdet holiday/ --output output/pictures

    python mmdetection/demo.py coco/cascade_mask_rcnn_eva_g_1536 eva_coco_seg.pth \\
        photo.jpg holiday/ film.mp4 --output output/pictures
"""


def plan(inputs: Sequence[Path], output: Path) -> Plan:
    """List what is to be done.

    Args:
        inputs: Images, videos, folders, patterns, numbers of cameras; folders are searched through,
            without hidden files.
        output: Folder for the results; what lies below it is not an input.

    Returns:
        The jobs in order, and a complaint for each input that is not there or is empty.

    Raises:
        ValueError: If two inputs would be written to one file, or an input would be overwritten.
    """
    return plan_jobs(
        inputs,
        suffixes=DEMO_IMAGE_SUFFIXES | VIDEO_SUFFIXES,
        targets=lambda name: [output / written_name(name)],
        results=[output],
        kinds="images and no videos",
        cameras=True,
    )


def _parser() -> argparse.ArgumentParser:
    parser = demo_parser(
        "Detect objects in images, folders of them, videos and cameras.", _EPILOG, task=TASK
    )
    parser.add_argument(
        "--score-threshold",
        type=probability,
        default=0.5,
        help="least score of what is shown and written (default: %(default)s)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line of `demo.py`.

    Args:
        arguments: Arguments in place of those of the process.
    """
    parser = _parser()
    args = parser.parse_intermixed_args(arguments)

    def prepare() -> Plan:
        args.model = named_model(args.words, task=TASK, named=args.weights)
        planned = plan(args.model.inputs, args.output)
        if planned.jobs:
            from eva_backbone.checkpoints.registry import resolve_source

            resolve_source(args.model.weights)
        return planned

    run_demo(
        parser,
        prepare=prepare,
        work=lambda planned: _detect(parser, args, planned.jobs),
        overwrite=args.overwrite,
        results=[args.output / PREDICTIONS],
    )


def _detect(
    parser: argparse.ArgumentParser, args: argparse.Namespace, jobs: Sequence[Job]
) -> list[str]:
    warnings.filterwarnings("ignore", message="torch.meshgrid")  # inside mmdetection
    from eva_mmdetection.inference.predictor import Predictor
    from eva_report.detection_demo import detect_files

    model: Model = args.model
    try:
        predictor = Predictor.from_config(
            model.config,
            weights=model.weights,
            score_threshold=args.score_threshold,
            device=args.device,
        )
    except (ValueError, FileNotFoundError) as error:
        refuse(parser, error)
    return detect_files(
        predictor.in_coco_format,
        jobs,
        args.output,
        categories=predictor.categories,
        threshold=args.score_threshold,
    )
