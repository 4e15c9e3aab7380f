"""Recognition for people: what `video/demo.py` judges, draws, writes and says."""

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eva_data.inputs import Job
from eva_data.progress import ProgressBar
from eva_data.saving import make_folder
from eva_data.video.source import ArrayVideo, UnreadableVideoError, VideoSource, open_video
from eva_data.video.streams import CameraReader, Frame, VideoReader, VideoWriter
from eva_engine.evaluation.own_data import DemoResults, entry_of
from eva_report.demos import Prediction, format_predictions, run_jobs
from eva_report.drawing import clock, score_text
from eva_report.sheets import annotate
from eva_video.config import PREDICTIONS
from eva_video.inference.predictor import (
    JudgedWindow,
    Segment,
    VideoPredictor,
    duration_of,
    moments,
    segments,
)

CAMERA_SECONDS = 2.0  # of a window, if none is asked for
_KEPT = 64  # frames of a camera's window in memory, at most
CLASSES_NAMED = 3  # of a video that is one window
SEGMENTS_NAMED = 20  # of a video


def recognise(
    predictor: VideoPredictor, jobs: Sequence[Job], options: argparse.Namespace
) -> list[str]:
    """Judge, draw and write videos and cameras by the options of `video/demo.py`.

    Returns:
        A sentence for each file that could not be read, or not to its end.
    """
    make_folder(options.output)
    work = _Work(predictor, options)
    problems = run_jobs(jobs, work, title="recognising")
    names = ("clips", "crops", "window", "stride")
    settings = {name: getattr(options, name) for name in names}
    work.results.write(
        options.output / PREDICTIONS,
        "videos",
        drawn="" if options.no_video else "annotated videos and ",
        settings={
            "frames": predictor.sampling.frames,
            "image_size": predictor.model.img_size,
            **settings,
        },
    )
    return problems


class _Work:
    """Does jobs."""

    def __init__(self, predictor: VideoPredictor, options: argparse.Namespace) -> None:
        self._predictor, self._options = predictor, options
        self.results = DemoResults(predictor, options)

    def __call__(self, job: Job) -> str | None:
        """Judge and draw a video or camera; returns a sentence if it cannot be read to its end."""
        facts: dict[str, Any] = {"video": job.name}
        windows: list[JudgedWindow] = []
        problem = None
        try:
            if job.is_camera:
                facts["frames"] = self._camera(job, windows)
            else:
                with open_video(job.source) as video:
                    facts |= _facts(video)
                    self._video(job, video, windows)
        except (UnreadableVideoError, FloatingPointError) as error:
            problem = str(error)
        joined = list(segments(moments(windows), least=self._options.score_threshold))
        names = self._predictor.class_names
        facts["windows"] = [
            _times(window) | {"classes": [*map(entry_of, self.results.first(window.probabilities))]}
            for window in windows
        ]
        facts["segments"] = [
            _times(segment) | entry_of(Prediction(names[segment.label], segment.probability))
            for segment in joined
        ]
        self.results.entries.append(facts if problem is None else {**facts, "error": problem})
        if windows:
            self._add_found(job.name, windows, joined, frames=facts.get("frames"))
        return problem

    def _video(self, job: Job, video: VideoSource, windows: list[JudgedWindow]) -> None:
        """Judge and draw, a frame in memory at a time; windows are read as the drawing needs."""
        judged = self._predictor.windows(
            video, seconds=self._options.window, stride=self._options.stride
        )
        with contextlib.ExitStack() as stack:
            total = round(duration_of(video))
            bar = stack.enter_context(ProgressBar(total, title=job.name, unit="s"))

            def noted() -> Iterator[JudgedWindow]:
                for window in judged:
                    windows.append(window)
                    yield window
                    bar.update(round(window.end) - bar.done)

            pieces = moments(noted())
            if job.targets:
                self._draw(job, pieces, stack)
            for _ in pieces:  # those behind the last frame, or all
                pass

    def _draw(self, job: Job, pieces: Iterator[JudgedWindow], stack: contextlib.ExitStack) -> None:
        reader, writers = VideoReader(job.source), _writers(job, stack)
        piece = next(pieces)
        predictions = self.results.shown(piece.probabilities)
        for time, frame in _timed(reader):
            while time >= piece.end and (later := next(pieces, None)):
                piece, predictions = later, self.results.shown(later.probabilities)
            self._write(writers, time, frame, predictions)
        _require_complete(reader)

    def _camera(self, job: Job, windows: list[JudgedWindow]) -> int:
        """Judge windows without gaps while a camera records, until Ctrl-C; count its frames."""
        seconds = self._options.window or CAMERA_SECONDS
        reader, predictions = CameraReader(job.source), list[Prediction]()
        frames, begin, time = list[NDArray[np.uint8]](), 0.0, 0.0
        with contextlib.ExitStack() as stack:
            title = f"{job.name}, Ctrl-C ends it"
            bar = stack.enter_context(ProgressBar(None, title=title, unit="frame"))
            writers = _writers(job, stack)
            for time, frame in _timed(reader):
                if frames and time >= begin + seconds:
                    windows.append(self._judged(frames, begin, time))
                    predictions = self.results.shown(windows[-1].probabilities)
                    frames, begin = [], time
                if len(frames) <= (time - begin) / seconds * _KEPT:
                    frames.append(frame.rgb)
                self._write(writers, time, frame, predictions)
                bar.update()
        if frames:
            windows.append(self._judged(frames, begin, time))
        _require_complete(reader)
        return bar.done

    def _judged(self, frames: list[NDArray[np.uint8]], begin: float, end: float) -> JudgedWindow:
        rate = Fraction(len(frames)) / Fraction(max(end - begin, 1e-3))
        video = ArrayVideo(np.stack(frames), rate=rate, name="the camera")
        (judged,) = self._predictor.windows(video)
        return JudgedWindow(begin, end, judged.probabilities)

    def _write(
        self,
        writers: Sequence[VideoWriter],
        time: float,
        frame: Frame,
        predictions: list[Prediction],
    ) -> None:
        for writer in writers:
            image = annotate(frame.rgb, predictions, heading=clock(time), rows=self.results.rows)
            writer.add(image, frame)

    def _add_found(
        self,
        name: str,
        windows: Sequence[JudgedWindow],
        joined: Sequence[Segment],
        frames: int | None,
    ) -> None:
        """Count segments by class, with a line for each; of a single window its first classes."""
        names = self._predictor.class_names
        firsts = [self.results.first(window.probabilities)[0] for window in windows]
        best = max(firsts, key=lambda prediction: prediction.probability)
        description, details = "", list[str]()
        if len(windows) == 1:
            predictions = self.results.shown(windows[0].probabilities)
            description = format_predictions(predictions[:CLASSES_NAMED])
        else:
            details = [
                f"  {clock(segment.start):>9} - {clock(segment.end):<9}  "
                f"{score_text(segment.probability)}  {names[segment.label]}"
                for segment in joined
            ]
        left_out = len(details) - SEGMENTS_NAMED
        if left_out > 0:
            details[SEGMENTS_NAMED:] = [f"  and {left_out:,} more: {PREDICTIONS} has all"]
        self.results.summary.add(
            name,
            [names[segment.label] for segment in joined],
            best=best,
            description=description,
            frames=frames,
            details=details,
        )


def _writers(job: Job, stack: contextlib.ExitStack) -> list[VideoWriter]:
    return [stack.enter_context(VideoWriter(target)) for target in job.targets]


def _require_complete(reader: VideoReader) -> None:
    """Raise what ended a video, or a camera's, before its end."""
    if reader.error is not None:
        raise UnreadableVideoError(reader.error)


def _timed(reader: VideoReader) -> Iterator[tuple[float, Frame]]:
    """Yield frames and their times in seconds from the first one's."""
    begin: float | None = None
    for number, frame in enumerate(reader):
        time = number / float(frame.rate)
        if frame.pts is not None:
            time = float(frame.pts * frame.time_base)
        begin = time if begin is None else begin
        yield time - begin, frame


def _facts(video: VideoSource) -> dict[str, float]:
    height, width = video.size
    return {
        "duration": round(duration_of(video), 3),
        "frames": len(video),
        "rate": round(float(video.rate), 3),
        "width": width,
        "height": height,
    }


def _times(segment: JudgedWindow | Segment) -> dict[str, Any]:
    return {"start": round(segment.start, 3), "end": round(segment.end, 3)}
