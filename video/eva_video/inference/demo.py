"""Command line that names what happens in videos, folders of them and long recordings."""

import argparse
import contextlib
import functools
import logging
import sys
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eva_data.commands import printable
from eva_data.files import make_folder
from eva_data.inputs import Job, Plan, do_jobs, plan_jobs, run_demo, written_name
from eva_data.options import integer, number, probability
from eva_data.suffixes import VIDEOS
from eva_data.video.video_source import BACKENDS
from eva_engine.commands.options import add_device, add_weights, new_parser
from eva_video.config import MOST_FRAMES

if TYPE_CHECKING:
    from eva_data.video.video_source import VideoSource
    from eva_video.inference.predictions_file import PredictionsFile
    from eva_video.inference.predictor import Prediction, VideoPredictor
    from eva_video.inference.windows import Judged, Segment

logger = logging.getLogger(__name__)

PREDICTIONS = "predictions.json"
_EXAMPLES = """
OUTPUT receives each video under its own name with its classes, probabilities and times written
below, those of a folder as in the folder, and predictions.json: for each video the windows with
their first classes, and segments in which one class is the first.
Files that cannot be read are named and skipped, and the exit code is then 1.

Examples:

    python video/demo.py --weights eva_video_k400.pth --output output/films dive.mp4 holiday/

What happens when in a long recording, by windows of 10 seconds:

    ... --window 10 --stride 5 match.mkv
"""


def plan(inputs: Sequence[Path], output: Path, *, annotate: bool = True) -> Plan:
    """List what is to be done.

    Args:
        inputs: Files and folders; folders are searched through, without hidden files.
        output: Folder for the results; what lies below it is not an input.
        annotate: Whether annotated videos are written.

    Returns:
        The jobs in order, and a complaint for each input that is not there or is empty.

    Raises:
        ValueError: If two inputs would be written to one file, or an input would be overwritten.
    """
    return plan_jobs(
        inputs,
        suffixes=VIDEOS,
        targets=lambda name: [output / written_name(name)] if annotate else [],
        results=[output],
        kinds="videos",
    )


def run(
    predictor: "VideoPredictor",
    jobs: Sequence[Job],
    output: Path,
    *,
    window: float | None = None,
    stride: float | None = None,
    top: int = 5,
    least: float = 0.0,
    settings: dict[str, Any] | None = None,
) -> list[str]:
    """Do the jobs, with a progress bar, and print a table.

    Args:
        predictor: The classifier.
        jobs: Jobs from `plan`.
        output: Folder for predictions.json.
        window: Length of the windows in seconds; None takes each video as one.
        stride: Distance of the windows in seconds; None for half a window.
        top: Classes of a window that are written.
        least: Least probability of a segment, and of a class that is shown.
        settings: What predictions.json says of them.

    Returns:
        A complaint for each file that could not be read, or not to its end.
    """
    from eva_data.video.video_source import UnreadableVideoError
    from eva_video.inference.predictions_file import writing_predictions

    def do(job: Job) -> str | None:
        try:
            work(job)
        except (UnreadableVideoError, FloatingPointError) as error:
            return str(error)
        return None

    make_folder(output)
    with writing_predictions(output / PREDICTIONS, settings or {}) as file:
        work = functools.partial(
            _video, predictor, file, window=window, stride=stride, top=top, least=least
        )
        return do_jobs(jobs, do, title="recognising")


def _video(
    predictor: "VideoPredictor",
    file: "PredictionsFile",
    job: Job,
    *,
    window: float | None,
    stride: float | None,
    top: int,
    least: float,
) -> None:
    """Judge, draw and write in one pass: the windows are read as the drawing needs them."""
    from eva_data.video.video_source import UnreadableVideoError, open_video
    from eva_video.inference.drawing import drawn
    from eva_video.inference.predictions_file import segment_entries
    from eva_video.inference.windows import duration_of, moments, segments

    first: list[Prediction] = []

    def recorded(windows: "Iterator[Judged]") -> "Iterator[Judged]":
        for place, one in enumerate(windows):
            predictions = predictor.top(one.probabilities, top)
            first[:] = [] if place else predictions
            file.add_window(one, predictions)
            yield one

    with contextlib.ExitStack() as stack:
        try:
            video = stack.enter_context(open_video(job.source, backend=predictor.backend))
        except UnreadableVideoError as error:
            file.add_unreadable(job.name, str(error))
            raise
        height, width = video.size
        facts = {"duration": round(duration_of(video), 3), "frames": len(video),
                 "rate": round(float(video.rate), 3), "width": width, "height": height}  # fmt: skip
        end = stack.enter_context(file.video(job.name, **facts))
        failures: list[Exception] = []
        windows = predictor.windows(video, seconds=window, stride=stride)
        pieces = _raising(moments(_until_failure(recorded(windows), failures)), failures)
        for target in job.targets:
            make_folder(target.parent)
            pieces = stack.enter_context(
                contextlib.closing(drawn(pieces, job.source, target, predictor, least=least))
            )
        shown = _until_failure(_shown(pieces, video, job.name), failures)
        found = list(segments(shown, least=least))
        end["segments"] = segment_entries(found, predictor.class_names)
        if failures:
            end["error"] = str(failures[0])
            raise failures[0]
    likely = [one for one in first if one.probability >= least]
    _print(job.name, likely, found, predictor.class_names)


def _until_failure(stream: "Iterator[Judged]", failures: list[Exception]) -> "Iterator[Judged]":
    """End a stream where the video cannot be read further, so that what was before it counts."""
    from eva_data.video.video_source import UnreadableVideoError

    try:
        yield from stream
    except (UnreadableVideoError, FloatingPointError) as error:
        failures.append(error)


def _raising(
    pieces: "Iterator[Judged]", failures: Sequence[Exception]
) -> "Generator[Judged, None, None]":
    """Raise the failure after the pieces before it, so that no half of a film is written."""
    yield from pieces
    if failures:
        raise failures[0]


def _shown(pieces: "Iterator[Judged]", video: "VideoSource", name: str) -> "Iterator[Judged]":
    """Show how far the pieces of a video have come."""
    from tqdm import tqdm

    from eva_video.inference.windows import duration_of

    with tqdm(total=round(duration_of(video)), desc=name, unit="s", leave=False) as bar:
        for piece in pieces:
            yield piece
            bar.update(round(piece.end) - bar.n)


def _print(
    name: str,
    first: "Sequence[Prediction]",
    found: "Sequence[Segment]",
    names: Sequence[str],
) -> None:
    """Print the classes of a video that is one window, or else its segments."""
    from tqdm import tqdm

    from eva_data.drawing.lettering import clock

    if first:
        lines = [f"  {one.probability:6.1%}  {one.name}" for one in first]
    else:
        lines = [
            f"  {one.probability:6.1%}  {clock(one.start):>9} - {clock(one.end):9}  "
            f"{names[one.label]}"
            for one in found
        ] or ["  nothing is likely enough"]
    tqdm.write(printable("\n".join([name, *lines])), sys.stdout)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "demo.py", "Name what happens in videos, folders of them and long recordings.",
        epilog=_EXAMPLES,
    )  # fmt: skip
    add = parser.add_argument
    add("inputs", nargs="+", type=Path, metavar="INPUT", help="video or folder of videos")
    add_weights(parser, kinds="official name, or file of a run")
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
    """Run the command line of `demo.py`.

    Args:
        arguments: Arguments in place of those of the process.
    """
    from eva_video.inference.windows import check_windows

    parser = _parser()
    args = parser.parse_args(arguments)

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
    from eva_video.inference.predictor import VideoPredictor

    names = ("classes", "variant", "frames", "image_size", "mean", "std", "clips", "crops",
             "batch_size", "device", "precision", "backend")  # fmt: skip
    try:
        predictor = VideoPredictor.from_weights(
            args.weights, **{name: getattr(args, name) for name in names}
        )
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
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
    )
    logger.info("Results are in %s", args.output)
    return problems


if __name__ == "__main__":
    main()
