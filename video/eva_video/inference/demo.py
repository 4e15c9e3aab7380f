"""Recognition for people: what `video/demo.py` judges, draws, writes and says."""

import argparse
import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eva_data.files import make_folder, printable, write_text
from eva_data.inputs import Job
from eva_data.progress import ProgressBar
from eva_data.video.frames import ArrayVideo
from eva_data.video.source import UnreadableVideoError, VideoSource, open_video
from eva_data.video.streams import CameraReader, Frame, VideoReader, VideoWriter
from eva_report.demos import FILES_NAMED, Prediction, counted, do_jobs, lower, nothing_at, scored
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
_LINES = 20  # for segments, of all videos together
_TOTAL_NAMED = 10  # classes of all videos together


@dataclass
class Seen:
    """What was found in a video.

    Attributes:
        name: Name of the video.
        entry: Its entry in predictions.json.
        duration: Its length in seconds.
        first: Its first classes, if it was judged as one window; else none.
        segments: The segments above the threshold.
        best: The most likely class of any moment.
    """

    name: str
    entry: dict[str, Any] = field(default_factory=dict)
    duration: float = 0.0
    first: Sequence[Prediction] = ()
    segments: Sequence[Segment] = ()
    best: Prediction = Prediction("", -1.0)  # noqa: RUF009 (a tuple)


def recognise(
    predictor: VideoPredictor, jobs: Sequence[Job], options: argparse.Namespace
) -> list[str]:
    """Judge, draw and write videos and cameras by the options of `video/demo.py`.

    Returns:
        A sentence for each file that could not be read, or not to its end.
    """
    make_folder(options.output)
    found: list[Seen] = []

    def do(job: Job) -> str | None:
        work = _Work(predictor, job, options)
        found.append(work.seen)
        try:
            work.camera() if job.is_camera else work.video()
        except (UnreadableVideoError, FloatingPointError) as error:
            work.seen.entry["error"] = str(error)
            return str(error)
        return None

    problems = do_jobs(jobs, do, title="recognising")
    settings = {
        "weights": options.weights, "frames": predictor.sampling.frames,
        "image_size": predictor.model.img_size, "clips": options.clips, "crops": options.crops,
        "window": options.window, "stride": options.stride,
    }  # fmt: skip
    content = {"settings": settings, "videos": [one.entry for one in found]}
    write_text(options.output / PREDICTIONS, json.dumps(content, indent=1) + "\n")
    judged = [one for one in found if one.entry["windows"]]
    for line in lines(judged, predictor.class_names, options.score_threshold):
        say(line)
    kinds = PREDICTIONS if options.no_video else f"annotated videos and {PREDICTIONS}"
    say(f"output   {options.output} ({kinds})")
    return problems


class _Work:
    """A job, and what is found in it."""

    def __init__(self, predictor: VideoPredictor, job: Job, options: argparse.Namespace) -> None:
        self._predictor, self._job, self._options = predictor, job, options
        self._least: float = options.score_threshold
        self._rows = min(CLASSES_SHOWN, len(predictor.class_names))
        self._failure: Exception | None = None
        self.seen = Seen(job.name, {"video": job.name, "windows": [], "segments": []})

    def video(self) -> None:
        """Judge, draw and write; the windows are read as the drawing needs them."""
        job, options = self._job, self._options
        with open_video(job.source, backend=self._predictor.backend) as video:
            self.seen.entry = {"video": job.name, **_facts(video), "windows": [], "segments": []}
            windows = self._predictor.windows(video, seconds=options.window, stride=options.stride)
            pieces = moments(self._until_failure(map(self._noted, windows)))
            self._end(self._until_failure(self._drawn(pieces, video)), duration_of(video))
        if self._failure is not None:
            raise self._failure

    def _until_failure(self, stream: Iterable[Judged]) -> Iterator[Judged]:
        """End a stream where the video cannot be read further, so that the part before counts."""
        try:
            yield from stream
        except (UnreadableVideoError, FloatingPointError) as error:
            self._failure = error

    def _drawn(self, pieces: Iterable[Judged], video: VideoSource) -> Iterator[Judged]:
        """Write an annotated video beside the passing pieces, a frame in memory at a time."""
        job, shown = self._job, list[Prediction]()
        reader = VideoReader(job.source)
        with contextlib.ExitStack() as stack:
            total = round(duration_of(video))
            bar = stack.enter_context(ProgressBar(total, what=job.name, unit="s"))
            writers = self._writers(stack)
            frames = _timed(reader) if writers else iter(())
            waiting = next(frames, None)
            for piece in pieces:
                shown = self._shown(piece)
                while waiting is not None and waiting[0] < piece.end:
                    self._write(writers, *waiting, shown)
                    waiting = next(frames, None)
                yield piece
                bar.update(round(piece.end) - bar.done)
            if self._failure is not None:  # no half of a film is written
                raise self._failure
            while waiting is not None:
                self._write(writers, *waiting, shown)
                waiting = next(frames, None)
            if reader.error is not None:
                raise UnreadableVideoError(reader.error)

    def camera(self) -> None:
        """Judge windows without gaps while a camera records, until Ctrl-C."""
        seconds = self._options.window or CAMERA_SECONDS
        reader, pieces, shown = CameraReader(self._job.source), list[Judged](), list[Prediction]()
        kept, begin, time = list[NDArray[np.uint8]](), 0.0, 0.0
        with contextlib.ExitStack() as stack:
            title = f"{self._job.name}, Ctrl-C ends it"
            bar = stack.enter_context(ProgressBar(None, what=title, unit="frame"))
            writers = self._writers(stack)
            for time, frame in _timed(reader):
                if kept and time >= begin + seconds:
                    pieces.append(self._judged(kept, begin, time))
                    shown, kept, begin = self._shown(pieces[-1]), [], time
                if len(kept) <= (time - begin) / seconds * _KEPT:
                    kept.append(frame.rgb)
                self._write(writers, time, frame, shown)
                bar.update()
        if kept:
            pieces.append(self._judged(kept, begin, time))
        self._end(pieces, time)
        if reader.error is not None:
            raise UnreadableVideoError(reader.error)

    def _judged(self, frames: list[NDArray[np.uint8]], begin: float, end: float) -> Judged:
        rate = Fraction(len(frames)) / Fraction(max(end - begin, 1e-3))
        video = ArrayVideo(np.stack(frames), rate=rate, name="the camera")
        (judged,) = self._predictor.windows(video)
        return self._noted(Judged(begin, end, judged.probabilities))

    def _writers(self, stack: contextlib.ExitStack) -> list[VideoWriter]:
        for target in self._job.targets:
            make_folder(target.parent)
        return [stack.enter_context(VideoWriter(target)) for target in self._job.targets]

    def _shown(self, piece: Judged) -> list[Prediction]:
        first = self._predictor.top(piece.probabilities, self._rows)
        return [one for one in first if one.probability >= self._least]

    def _write(
        self, writers: Sequence[VideoWriter], time: float, frame: Frame, shown: list[Prediction]
    ) -> None:
        for writer in writers:
            annotated = annotate(frame.rgb, shown, heading=clock(time), rows=self._rows)
            writer.add(annotated, frame)

    def _noted(self, one: Judged) -> Judged:
        predictions = self._predictor.top(one.probabilities, self._options.top)
        windows = self.seen.entry["windows"]
        self.seen.first = () if windows else predictions
        self.seen.best = max(self.seen.best, predictions[0], key=lambda one: one.probability)
        windows.append(_times(one.start, one.end) | {"classes": [_class(*p) for p in predictions]})
        return one

    def _end(self, pieces: Iterable[Judged], duration: float) -> None:
        found = list(segments(pieces, least=self._least))
        names = self._predictor.class_names
        self.seen.segments, self.seen.duration = found, duration
        self.seen.entry["segments"] = [
            _times(one.start, one.end) | _class(names[one.label], one.probability) for one in found
        ]


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


def _times(start: float, end: float) -> dict[str, Any]:
    return {"start": round(start, 3), "end": round(end, 3)}


def _class(name: str, probability: float) -> dict[str, Any]:
    return {"class": name, "probability": round(probability, _DIGITS)}


def lines(videos: Sequence[Seen], names: Sequence[str], threshold: float) -> list[str]:
    """Say what was found: lines for each video, of up to `FILES_NAMED`, and one for all of them."""
    found: list[str] = []
    if len(videos) <= FILES_NAMED:
        room = max(1, _LINES // max(1, len(videos)))
        for video in videos:
            found += _of_video(video, names, threshold, room)
    if len(videos) > 1:
        found.append(_of_all(videos, names, threshold))
    if found and not any(video.segments for video in videos):
        found[-1] += f": {lower()}"
    return [printable(line) for line in found]


def _of_video(video: Seen, names: Sequence[str], threshold: float, room: int) -> list[str]:
    if not video.segments:
        return [f"{video.name}: {nothing_at(threshold, video.best)}"]
    if video.first:
        likely = [one for one in video.first if one.probability >= threshold]
        return [f"{video.name}: {scored(likely[:CLASSES_NAMED])}"]
    number = len(video.segments)
    found = [f"{video.name}: {clock(video.duration)}, {counted(number, 'segment')}"]
    found += [
        f"  {clock(one.start):>9} - {clock(one.end):<9}  {score_text(one.probability)}  "
        f"{names[one.label]}"
        for one in video.segments[:room]
    ]
    if number > room:
        found.append(f"  and {number - room:,} more: {PREDICTIONS} has all")
    return found


def _of_all(videos: Sequence[Seen], names: Sequence[str], threshold: float) -> str:
    title = counted(len(videos), "video")
    nothing = sum(not video.segments for video in videos)
    if all(video.first for video in videos):
        counts = Counter(video.first[0].name for video in videos if video.segments)
        parts = [f"{count:,} {name}" for name, count in counts.most_common(_TOTAL_NAMED)]
    else:
        times = dict.fromkeys(names, 0.0)
        for one in (segment for video in videos for segment in video.segments):
            times[names[one.label]] += one.end - one.start
        title += f", {clock(sum(video.duration for video in videos))}"
        longest = sorted((name for name in names if times[name]), key=lambda name: -times[name])
        parts = [f"{clock(times[name])} {name}" for name in longest[:_TOTAL_NAMED]]
    if not parts:
        best = max((video.best for video in videos), key=lambda one: one.probability)
        return f"{title}: {nothing_at(threshold, best)}"
    return f"{title}: {', '.join(parts)}" + (f", nothing in {nothing:,}" if nothing else "")
