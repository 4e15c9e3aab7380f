"""Jobs of the demo: each video is judged, drawn and written in one pass."""

import contextlib
import functools
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from eva_data.files import make_folder
from eva_data.inputs import Job
from eva_data.progress import ProgressBar
from eva_data.video.source import UnreadableVideoError, VideoSource, open_video
from eva_data.video.streams import CameraReader, VideoWriter
from eva_report.demos import Prediction, do_jobs
from eva_report.drawing import clock
from eva_report.sheets import CLASSES_SHOWN, annotate
from eva_video.inference import camera
from eva_video.inference.drawing import drawn
from eva_video.inference.found import FoundActions, Seen
from eva_video.inference.predictions_file import (
    PredictionsFile,
    segment_entries,
    writing_predictions,
)
from eva_video.inference.predictor import VideoPredictor
from eva_video.inference.windows import Judged, duration_of, moments, segments

PREDICTIONS = "predictions.json"


def run(
    predictor: VideoPredictor,
    jobs: Sequence[Job],
    output: Path,
    *,
    window: float | None = None,
    stride: float | None = None,
    top: int = 5,
    least: float = 0.0,
    settings: dict[str, Any] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """Do the jobs, with a progress bar.

    Args:
        predictor: The classifier.
        jobs: Jobs of `eva_video.inference.demo.plan`.
        output: Folder for predictions.json.
        window: Length of the windows in seconds; None takes each video as one.
        stride: Distance of the windows in seconds; None for half a window.
        top: Classes of a window that are written.
        least: Least probability of a segment, and of a class that is shown.
        settings: What predictions.json says of them.
        say: Function that is given the lines on what was found.

    Returns:
        A complaint for each file that could not be read, or not to its end.
    """
    make_folder(output)
    found = FoundActions(predictor.class_names, least)
    with writing_predictions(output / PREDICTIONS, settings or {}) as file:
        work = functools.partial(_Work, predictor, file, found, top=top, least=least)

        def do(job: Job) -> str | None:
            try:
                if job.is_camera:
                    work(job).watch(seconds=window or camera.SECONDS)
                else:
                    work(job).video(window=window, stride=stride)
            except (UnreadableVideoError, FloatingPointError) as error:
                return str(error)
            return None

        problems = do_jobs(jobs, do, title="recognising")
    for line in found.lines():
        say(line)
    return problems


class _Work:
    """A job, and where its results go."""

    def __init__(
        self,
        predictor: VideoPredictor,
        file: PredictionsFile,
        found: FoundActions,
        job: Job,
        *,
        top: int,
        least: float,
    ) -> None:
        self._predictor, self._file, self._found, self._job = predictor, file, found, job
        self._top, self._least = top, least
        self._windows: list[list[Prediction]] = []  # of the first two windows
        self._best = Prediction("", -1.0)

    def video(self, *, window: float | None, stride: float | None) -> None:
        """Judge, draw and write; the windows are read as the drawing needs them."""
        job, predictor = self._job, self._predictor
        with contextlib.ExitStack() as stack:
            try:
                video = stack.enter_context(open_video(job.source, backend=predictor.backend))
            except UnreadableVideoError as error:
                self._file.add_unreadable(job.name, str(error))
                raise
            end = stack.enter_context(self._file.video(job.name, **_facts(video)))
            failures: list[Exception] = []
            windows = predictor.windows(video, seconds=window, stride=stride)
            pieces = _raising(
                moments(_until_failure(map(self._noted, windows), failures)), failures
            )
            for target in job.targets:
                make_folder(target.parent)
                pieces = stack.enter_context(
                    contextlib.closing(
                        drawn(pieces, job.source, target, predictor, least=self._least)
                    )
                )
            shown = _until_failure(_shown(pieces, video, job.name), failures)
            self._end(end, shown, duration_of(video))
            if failures:
                end["error"] = str(failures[0])
                raise failures[0]

    def watch(self, *, seconds: float) -> None:
        """Judge a camera while it records, until Ctrl-C."""
        job, predictor = self._job, self._predictor
        rows = min(CLASSES_SHOWN, len(predictor.class_names))
        with contextlib.ExitStack() as stack:
            end = stack.enter_context(self._file.video(job.name))
            reader = CameraReader(job.source)
            writers = [stack.enter_context(VideoWriter(target)) for target in job.targets]
            pieces: list[Judged] = []
            now: list[Prediction] = []
            title = f"{job.name}, Ctrl-C ends it"
            bar = stack.enter_context(ProgressBar(None, what=title, unit="frame"))
            time = 0.0
            for frame, time, judged in camera.watch(predictor, reader, seconds=seconds):
                if judged is not None:
                    pieces.append(self._noted(judged))
                    found = predictor.top(judged.probabilities, rows)
                    now = [one for one in found if one.probability >= self._least]
                if frame is not None:
                    for writer in writers:
                        picture = annotate(frame.rgb, now, heading=clock(time), rows=rows)
                        writer.add(picture, frame)
                    bar.update()
            self._end(end, iter(pieces), time)
            if reader.error is not None:
                end["error"] = reader.error
                raise UnreadableVideoError(reader.error)

    def _noted(self, one: Judged) -> Judged:
        predictions = self._predictor.top(one.probabilities, self._top)
        if len(self._windows) < 2:
            self._windows.append(predictions)
        if predictions[0].probability > self._best.probability:
            self._best = predictions[0]
        self._file.add_window(one, predictions)
        return one

    def _end(self, end: dict[str, Any], pieces: Iterator[Judged], duration: float) -> None:
        names = self._predictor.class_names
        found = list(segments(pieces, least=self._least))
        end["segments"] = segment_entries(found, names)
        if self._windows:
            first = self._windows[0] if len(self._windows) == 1 else []
            self._found.add(Seen(self._job.name, duration, first, found, self._best))


def _facts(video: VideoSource) -> dict[str, float]:
    height, width = video.size
    return {
        "duration": round(duration_of(video), 3),
        "frames": len(video),
        "rate": round(float(video.rate), 3),
        "width": width,
        "height": height,
    }


def _until_failure(stream: Iterator[Judged], failures: list[Exception]) -> Iterator[Judged]:
    """End a stream where the video cannot be read further, so that what was before it counts."""
    try:
        yield from stream
    except (UnreadableVideoError, FloatingPointError) as error:
        failures.append(error)


def _raising(
    pieces: Iterator[Judged], failures: Sequence[Exception]
) -> Generator[Judged, None, None]:
    """Raise the failure after the pieces before it, so that no half of a film is written."""
    yield from pieces
    if failures:
        raise failures[0]


def _shown(pieces: Iterator[Judged], video: VideoSource, name: str) -> Iterator[Judged]:
    """Show how far the pieces of a video have come."""
    total = round(duration_of(video))
    with ProgressBar(total, what=name, unit="s") as bar:
        for piece in pieces:
            yield piece
            bar.update(round(piece.end) - bar.done)
