"""Command line that names what pictures show: files, folders of them, videos and cameras.

Everything heavy is imported where it is used, so that `--help` and mistakes in the arguments
answer at once.
"""

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

from eva_classification.inference.predictions_file import JSON, TABLE
from eva_classification.model_options import add_classifier
from eva_data.files import DEMO_IMAGE_SUFFIXES, VIDEO_SUFFIXES
from eva_data.inputs import Job, Plan, plan_jobs, written_name
from eva_engine.commands.options import add_device, new_parser, take_weights
from eva_report.demos import refuse, run_demo
from eva_runs.commands import say
from eva_runs.options import integer, probability
from eva_runs.required_data import require_data

_EXAMPLES = f"""
INPUT is a picture, a video, a folder of both, a pattern in quotes ("photos/*.jpg"), or the number
of a camera, which is recorded until Ctrl-C. OUTPUT receives each picture and video under its own
name with its first classes and their probabilities written below, those of a folder as in the
folder; and {JSON} and {TABLE} with the first classes of each, for a video of
the mean over its frames. The first class of each file is said at the end, and how many of each
there are. Files that cannot be read are named and skipped, and the exit code is then 1.

Examples:

    python classification/demo.py output/mine photo.jpg holiday/ --output output/named

With the classes of ImageNet:

    ... --weights eva_21k_1k_336px_psz14_ema_89p6.pt --output output/named "holiday/*.jpg"
"""


def plan(inputs: Sequence[Path], output: Path, *, annotate: bool = True) -> Plan:
    """List what is to be done.

    Args:
        inputs: Files, folders, patterns and numbers of cameras, see `plan_jobs`.
        output: Folder for the results; what lies below it is not an input.
        annotate: Whether annotated pictures and videos are written.

    Returns:
        The jobs in order, and a complaint for each input that is not there or is empty.

    Raises:
        ValueError: If two inputs would be written to one file, an input would be overwritten, or
            there is no such camera.
    """
    return plan_jobs(
        inputs,
        suffixes=DEMO_IMAGE_SUFFIXES | VIDEO_SUFFIXES,
        targets=lambda name: [output / written_name(name)] if annotate else [],
        results=[output],
        kinds="images and no videos",
        cameras=True,
    )


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "classification/demo.py", "Name what pictures show: files, folders, videos and cameras.",
        epilog=_EXAMPLES,
    )  # fmt: skip
    add = parser.add_argument
    add("inputs", nargs="+", type=Path, metavar="INPUT",
        help="picture, video, folder of both, pattern or camera")  # fmt: skip
    add_classifier(parser, first=True)
    add("--output", required=True, type=Path, help="folder for the results")
    add("--classes", help="text file with the classes in label order (default: the weights')")
    one = integer(1)
    add("--top", type=one, default=5, help="classes that are written (default: %(default)s)")
    add(
        "--score-threshold",
        type=probability,
        default=0.0,
        help="least probability of what is shown and counts as found (default: %(default)s)",
    )
    add("--no-pictures", action="store_true", help="write no annotated pictures and videos")
    add("--batch-size", type=one, default=8, help="pictures at once (default: %(default)s)")
    add_device(parser)
    add("--overwrite", action="store_true", help="replace earlier results")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line of `classification/demo.py`.

    Args:
        arguments: Arguments in place of those of the process.
    """
    parser = _parser()
    args = parser.parse_intermixed_args(arguments)
    take_weights(parser, args)
    run_demo(
        parser,
        prepare=lambda: _prepare(args),
        work=lambda planned: _classify(parser, args, planned.jobs),
        overwrite=args.overwrite,
        results=[args.output / JSON, args.output / TABLE],
    )


def _prepare(args: argparse.Namespace) -> Plan:
    """Plan, and answer mistyped names before torch is imported."""
    from eva_backbone.checkpoints.registry import resolve_source
    from eva_data.classes import read_class_list

    planned = plan(args.inputs, args.output, annotate=not args.no_pictures)
    if args.classes:
        require_data(args.classes, name="--classes", forms="a text file of classes")
        read_class_list(args.classes)
    if planned.jobs:
        resolve_source(args.weights)
    if any(job.is_video or job.is_camera for job in planned.jobs):
        importlib.import_module("av")  # what is not installed is said now
    return planned


def _classify(
    parser: argparse.ArgumentParser, args: argparse.Namespace, jobs: Sequence[Job]
) -> list[str]:
    from eva_classification.inference.classifying import run
    from eva_classification.inference.predictor import Predictor

    names = ("classes", "variant", "image_size", "crop_pct", "mean", "std", "batch_size",
             "device", "precision")  # fmt: skip
    try:
        predictor = Predictor.from_weights(
            args.weights, **{name: getattr(args, name) for name in names}
        )
    except (ValueError, FileNotFoundError) as error:
        refuse(parser, error)
    problems = run(
        predictor,
        jobs,
        args.output,
        top=args.top,
        least=args.score_threshold,
        settings={"weights": args.weights, "image_size": predictor.model.img_size,
                  "crop_pct": predictor.crop_pct},
        say=say,
    )  # fmt: skip
    drawn = "" if args.no_pictures else "pictures, "
    say(f"output   {args.output} ({drawn}{JSON} and {TABLE})")
    return problems


if __name__ == "__main__":
    main()
