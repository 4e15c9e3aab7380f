"""Command line that names what happens in videos, folders of them and long recordings."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from eva_data.files import VIDEO_SUFFIXES
from eva_data.inputs import Job, Plan, plan_jobs, written_name
from eva_data.video.source import BACKENDS
from eva_engine.commands.options import add_device, add_weights, new_parser, take_weights
from eva_report.demos import refuse, run_demo
from eva_runs.commands import say
from eva_runs.options import integer, number, probability
from eva_video.config import MOST_FRAMES

PREDICTIONS = "predictions.json"
_EXAMPLES = """
OUTPUT receives each video under its own name with its classes, probabilities and times written
below, those of a folder as in the folder, and predictions.json: for each video the windows with
their first classes, and segments in which one class is the first.
Files that cannot be read are named and skipped, and the exit code is then 1. An INPUT may also be a
pattern in quotes, or the number of a camera, which is judged until Ctrl-C.

Examples:

    python video/demo.py --weights eva_video_k400.pth --output output/films dive.mp4 holiday/

What happens when in a long recording, by windows of 10 seconds:

    ... --window 10 --stride 5 match.mkv
"""


def plan(inputs: Sequence[Path], output: Path, *, annotate: bool = True) -> Plan:
    """List what is to be done.

    Args:
        inputs: Files, folders, patterns and numbers of cameras, see `plan_jobs`.
        output: Folder for the results; what lies below it is not an input.
        annotate: Whether annotated videos are written.

    Returns:
        The jobs in order, and a complaint for each input that is not there or is empty.

    Raises:
        ValueError: If two inputs would be written to one file, an input would be overwritten, or
            there is no such camera.
    """
    return plan_jobs(
        inputs,
        suffixes=VIDEO_SUFFIXES,
        targets=lambda name: [output / written_name(name)] if annotate else [],
        results=[output],
        kinds="videos",
        cameras=True,
    )


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "video/demo.py", "Name what happens in videos, folders of them and long recordings.",
        epilog=_EXAMPLES,
    )  # fmt: skip
    add = parser.add_argument
    add("inputs", nargs="+", type=Path, metavar="INPUT", help="video, folder, pattern or camera")
    add_weights(parser, first=True)
    add("--output", required=True, type=Path, help="folder for the results")
    add("--classes", help="text file with the classes in label order (default: the weights')")
    add("--variant", help="size of the ViT, if the weights do not say")
    one, seconds = integer(1), number()
    add("--frames", type=integer(1, MOST_FRAMES), help="of a clip (default: the weights')")
    add("--window", type=seconds, metavar="SECONDS", help="judge windows of this length")
    add("--stride", type=seconds, metavar="SECONDS", help="of the windows (default: half of one)")
    add("--clips", type=one, default=1, help="views in time of a window (default: 1)")
    add("--crops", type=int, choices=(1, 3), default=1, help="views in space (default: 1)")
    add("--top", type=one, default=5, help="classes that are written (default: %(default)s)")
    add(
        "--score-threshold",
        type=probability,
        default=0.0,
        help="least probability of a segment, and of what is shown (default: %(default)s)",
    )
    add("--no-video", action="store_true", help="write no annotated videos")
    add("--backend", choices=BACKENDS, default=BACKENDS[0], help="decoder (default: %(default)s)")
    add("--batch-size", type=one, default=4, help="windows at once (default: %(default)s)")
    add_device(parser)
    add("--overwrite", action="store_true", help="replace earlier results")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line of `video/demo.py`.

    Args:
        arguments: Arguments in place of those of the process.
    """
    from eva_video.inference.windows import check_windows

    parser = _parser()
    args = parser.parse_intermixed_args(arguments)
    take_weights(parser, args)

    def prepare() -> Plan:
        check_windows(args.window, args.stride)
        return plan(args.inputs, args.output, annotate=not args.no_video)

    run_demo(
        parser,
        prepare=prepare,
        work=lambda planned: _recognise(parser, args, planned.jobs),
        overwrite=args.overwrite,
        results=[args.output / PREDICTIONS],
    )


def _recognise(
    parser: argparse.ArgumentParser, args: argparse.Namespace, jobs: Sequence[Job]
) -> list[str]:
    from eva_backbone.checkpoints.registry import resolve_source

    names = ("classes", "variant", "frames", "image_size", "mean", "std", "clips", "crops",
             "batch_size", "device", "precision", "backend")  # fmt: skip
    try:
        resolve_source(args.weights)  # a mistyped name is answered before torch is imported
        from eva_video.inference.predictor import VideoPredictor
        from eva_video.inference.recognising import run

        predictor = VideoPredictor.from_weights(
            args.weights, **{name: getattr(args, name) for name in names}
        )
    except (ValueError, FileNotFoundError) as error:
        refuse(parser, error)
    sampling = predictor.sampling
    settings = {
        "weights": args.weights, "frames": sampling.frames, "image_size": predictor.model.img_size,
        "clips": args.clips, "crops": args.crops, "window": args.window, "stride": args.stride,
    }  # fmt: skip
    problems = run(
        predictor,
        jobs,
        args.output,
        window=args.window,
        stride=args.stride,
        top=args.top,
        least=args.score_threshold,
        settings=settings,
        say=say,
    )
    kinds = PREDICTIONS if args.no_video else f"annotated videos and {PREDICTIONS}"
    say(f"output   {args.output} ({kinds})")
    return problems


if __name__ == "__main__":
    main()
