"""Recognition for people: what `video/demo.py` judges, draws, writes and says."""

import argparse
import contextlib
import json
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eva_data.files import hand_over, make_folder, write_text
from eva_data.inputs import Job
from eva_data.progress import ProgressBar
from eva_data.video.frames import ArrayVideo
from eva_data.video.source import UnreadableVideoError, VideoSource, open_video
from eva_data.video.streams import CameraReader, Frame, VideoReader, VideoWriter
from eva_report.demos import Found, Prediction, do_jobs, scored
from eva_report.drawing import clock, score_text
from eva_report.sheets import CLASSES_SHOWN, annotate
from eva_runs.commands import say
from eva_video.config import PREDICTIONS
from eva_video.inference.predictor import (
    Judged,
    Segment,
    VideoPredictor,
    duration_of,
    moments,
    segments,
)

CAMERA_SECONDS = 2.0  # of a window, if none is asked for
_KEPT = 64  # frames of a camera's window in memory, at most
_DIGITS = 6  # of a probability; times are in milliseconds
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
    problems = do_jobs(jobs, work, title="recognising")
    settings = {
        "weights": options.weights, "frames": predictor.sampling.frames,
        "image_size": predictor.model.img_size, "clips": options.clips, "crops": options.crops,
        "window": options.window, "stride": options.stride,
    }  # fmt: skip
    content = {"settings": settings, "videos": work.entries}
    write_text(options.output / PREDICTIONS, json.dumps(content, indent=1) + "\n")
    hand_over(options.output / PREDICTIONS)
    for line in work.found.lines():
        say(line)
    kinds = PREDICTIONS if options.no_video else f"annotated videos and {PREDICTIONS}"
    say(f"output   {options.output} ({kinds})")
    return problems


class _Work:
    """Does jobs.

    Attributes:
        entries: Their entries in predictions.json.
        found: What was found in those that could be read.
    """

    def __init__(self, predictor: VideoPredictor, options: argparse.Namespace) -> None:
        self._predictor, self._options = predictor, options
        self._rows = min(CLASSES_SHOWN, len(predictor.class_names))
        self.entries: list[dict[str, Any]] = []
        self.found = Found(options.score_threshold, objects=False)

    def __call__(self, job: Job) -> str | None:
        """Judge and draw a video or camera; returns a sentence if it cannot be read to its end."""
        facts: dict[str, Any] = {"video": job.name}
        windows: list[Judged] = []
        problem = None
        try:
            if job.is_camera:
                facts["frames"] = self._camera(job, windows)
            else:
                with open_video(job.source, backend=self._predictor.backend) as video:
                    facts |= _facts(video)
                    self._video(job, video, windows)
        except (UnreadableVideoError, FloatingPointError) as error:
            problem = str(error)
        joined = list(segments(moments(windows), least=self._options.score_threshold))
        names = self._predictor.class_names
        facts["windows"] = [
            _times(one) | {"classes": [_class(*pair) for pair in self._first(one)]}
            for one in windows
        ]
        facts["segments"] = [
            _times(one) | _class(names[one.label], one.probability) for one in joined
        ]
        self.entries.append(facts if problem is None else {**facts, "error": problem})
        if windows:
            self._add_found(job.name, windows, joined, frames=facts.get("frames"))
        return problem

    def _video(self, job: Job, video: VideoSource, windows: list[Judged]) -> None:
        """Judge and draw, a frame in memory at a time; windows are read as the drawing needs them.

        No annotated video is left where the video or its windows cannot be read to their end.
        """
        judged = self._predictor.windows(
            video, seconds=self._options.window, stride=self._options.stride
        )
        with contextlib.ExitStack() as stack:
            total = round(duration_of(video))
            bar = stack.enter_context(ProgressBar(total, what=job.name, unit="s"))

            def noted() -> Iterator[Judged]:
                for one in judged:
                    windows.append(one)
                    yield one
                    bar.update(round(one.end) - bar.done)

            pieces = moments(noted())
            if job.targets:
                self._draw(job, pieces, stack)
            for _ in pieces:  # those behind the last frame, or all
                pass

    def _draw(self, job: Job, pieces: Iterator[Judged], stack: contextlib.ExitStack) -> None:
        reader, writers = VideoReader(job.source), _writers(job, stack)
        piece = next(pieces)
        shown = self._shown(piece)
        for time, frame in _timed(reader):
            while time >= piece.end and (later := next(pieces, None)):
                piece, shown = later, self._shown(later)
            self._write(writers, time, frame, shown)
        if reader.error is not None:
            raise UnreadableVideoError(reader.error)

    def _camera(self, job: Job, windows: list[Judged]) -> int:
        """Judge windows without gaps while a camera records, until Ctrl-C; count its frames."""
        seconds = self._options.window or CAMERA_SECONDS
        reader, shown = CameraReader(job.source), list[Prediction]()
        kept, begin, time = list[NDArray[np.uint8]](), 0.0, 0.0
        with contextlib.ExitStack() as stack:
            title = f"{job.name}, Ctrl-C ends it"
            bar = stack.enter_context(ProgressBar(None, what=title, unit="frame"))
            writers = _writers(job, stack)
            for time, frame in _timed(reader):
                if kept and time >= begin + seconds:
                    windows.append(self._judged(kept, begin, time))
                    shown, kept, begin = self._shown(windows[-1]), [], time
                if len(kept) <= (time - begin) / seconds * _KEPT:
                    kept.append(frame.rgb)
                self._write(writers, time, frame, shown)
                bar.update()
        if kept:
            windows.append(self._judged(kept, begin, time))
        if reader.error is not None:
            raise UnreadableVideoError(reader.error)
        return bar.done

    def _judged(self, frames: list[NDArray[np.uint8]], begin: float, end: float) -> Judged:
        rate = Fraction(len(frames)) / Fraction(max(end - begin, 1e-3))
        video = ArrayVideo(np.stack(frames), rate=rate, name="the camera")
        (judged,) = self._predictor.windows(video)
        return Judged(begin, end, judged.probabilities)

    def _first(self, one: Judged) -> list[Prediction]:
        return self._predictor.top(one.probabilities, self._options.top)

    def _shown(self, piece: Judged) -> list[Prediction]:
        first = self._predictor.top(piece.probabilities, self._rows)
        return [one for one in first if one.probability >= self._options.score_threshold]

    def _write(
        self, writers: Sequence[VideoWriter], time: float, frame: Frame, shown: list[Prediction]
    ) -> None:
        for writer in writers:
            image = annotate(frame.rgb, shown, heading=clock(time), rows=self._rows)
            writer.add(image, frame)

    def _add_found(
        self, name: str, windows: Sequence[Judged], joined: Sequence[Segment], frames: int | None
    ) -> None:
        """Count segments by class, with a line for each; of a single window its first classes."""
        names = self._predictor.class_names
        best = max((self._first(one)[0] for one in windows), key=lambda one: one.probability)
        text, details = "", list[str]()
        if len(windows) == 1:
            text = scored(self._shown(windows[0])[:CLASSES_NAMED])
        else:
            details = [
                f"  {clock(one.start):>9} - {clock(one.end):<9}  {score_text(one.probability)}  "
                f"{names[one.label]}"
                for one in joined
            ]
        if (more := len(details) - SEGMENTS_NAMED) > 0:
            details[SEGMENTS_NAMED:] = [f"  and {more:,} more: {PREDICTIONS} has all"]
        self.found.add(
            name, [names[one.label] for one in joined], best=best, text=text, frames=frames,
            details=details,
        )  # fmt: skip


def _writers(job: Job, stack: contextlib.ExitStack) -> list[VideoWriter]:
    return [stack.enter_context(VideoWriter(target)) for target in job.targets]


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


def _times(one: Judged | Segment) -> dict[str, Any]:
    return {"start": round(one.start, 3), "end": round(one.end, 3)}


def _class(name: str, probability: float) -> dict[str, Any]:
    return {"class": name, "probability": round(probability, _DIGITS)}
