"""Predictions for videos, of any length, in three lines of Python.

predictor = VideoPredictor.from_weights("eva_video_k400.pth")
for name, probability in predictor("dive.mp4"):
    print(f"{name} {probability:.2f}")

Windows in time are a stream: of any video, only those that cover one moment are in memory.

Shapes: V views, T frames, S the side of a clip, K classes.
"""

import bisect
import contextlib
import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eva_backbone.variants import IMAGENET_MEAN, IMAGENET_STD
from eva_data.files import VIDEO_SUFFIXES
from eva_data.kinetics import official_classes
from eva_data.video.source import (
    ArrayVideo,
    UnreadableVideoError,
    VideoSource,
    open_video,
)
from eva_engine.distributed import choose_device
from eva_engine.evaluation.counting import MultiView
from eva_engine.evaluation.own_data import (
    NamedClasses,
    class_names,
    notes_of_training,
)
from eva_report.demos import Prediction
from eva_runs.options import Precision
from eva_runs.precision import require_finite, to_precision
from eva_video.config import check_windows
from eva_video.data.clips import Sampling, sampling_of
from eva_video.data.transforms import CropsTransform, Normalise
from eva_video.model.classifier import VideoClassifier, load_video_classifier

_TINY = 1e-6  # seconds: times are sums of fractions


class Window(NamedTuple):
    """A part of a video in seconds from its first frame, its first frame and number of frames."""

    start: float
    end: float
    first: int
    length: int


class JudgedWindow(NamedTuple):
    """A stretch of time, and probabilities (K,) of what happens in it."""

    start: float
    end: float
    probabilities: NDArray[np.float32]


class Segment(NamedTuple):
    """A stretch of time in seconds in which one class is the first, with its mean probability."""

    start: float
    end: float
    label: int
    probability: float


def duration_of(video: VideoSource) -> float:
    """Return how long a video is, in seconds: the last frame is shown as long as an average one."""
    return video.times([len(video) - 1])[0] + 1 / float(video.rate)


def windows_of(
    video: VideoSource, *, seconds: float | None, stride: float | None = None
) -> Iterator[Window]:
    """Slide a window over a video, see `VideoPredictor.windows`; the last ends with the video."""
    check_windows(seconds, stride)
    total = duration_of(video)
    if seconds is None or seconds >= total - _TINY:
        yield Window(0.0, total, 0, len(video))
        return
    step = stride or seconds / 2
    number = 0
    while (start := number * step) + seconds < total - _TINY:
        yield _window(video, start, start + seconds)
        number += 1
    yield _window(video, total - seconds, total)


def _window(video: VideoSource, start: float, end: float) -> Window:
    indexes = range(len(video))
    # the frame that is on the screen at a time is the last one that has begun
    first = bisect.bisect_right(indexes, start + _TINY, key=lambda i: video.times([i])[0]) - 1
    after = bisect.bisect_left(indexes, end - _TINY, key=lambda i: video.times([i])[0])
    return Window(start, end, max(first, 0), max(after - max(first, 0), 1))


def moments(windows: Iterable[JudgedWindow]) -> Iterator[JudgedWindow]:
    """Cut time where windows, in order, begin or end, and average those that cover each piece."""
    open_now: deque[JudgedWindow] = deque()
    time, last = 0.0, JudgedWindow(float("inf"), float("inf"), np.empty(0, np.float32))
    for window in itertools.chain(windows, [last]):
        while open_now and time < window.start - _TINY:
            end = min(window.start, min(window.end for window in open_now))
            if end > time + _TINY:
                yield JudgedWindow(
                    time, end, np.mean([window.probabilities for window in open_now], axis=0)
                )
            time = end
            while open_now and open_now[0].end <= time + _TINY:
                open_now.popleft()
        time = window.start
        open_now.append(window)


def segments(pieces: Iterable[JudgedWindow], *, least: float = 0.0) -> Iterator[Segment]:
    """Join neighbouring pieces with the same first class, of at least a probability."""
    joined: list[Segment] = []
    for piece in pieces:
        label = int(piece.probabilities.argmax())
        value = float(piece.probabilities[label])
        if joined and (value < least or joined[0].label != label):
            yield joined.pop()
        if value < least:
            continue
        if not joined:
            joined.append(Segment(piece.start, piece.end, label, value))
            continue
        before, length = joined[0], piece.end - piece.start
        past = before.end - before.start
        mean = (before.probability * past + value * length) / (past + length)
        joined[0] = before._replace(end=piece.end, probability=mean)
    yield from joined


Video = str | os.PathLike[str] | bytes | VideoSource | NDArray[np.uint8]


class VideoPredictor(NamedClasses):
    """A classifier of videos, on its device, with its preprocessing; see `from_weights`."""

    _suffixes, _unreadable = VIDEO_SUFFIXES, (UnreadableVideoError,)

    def __init__(
        self,
        model: VideoClassifier,
        *,
        class_names: Sequence[str],
        sampling: Sampling | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        clips: int = 1,
        crops: int = 1,
        batch_size: int = 4,
    ) -> None:
        super().__init__(class_names, num_classes=model.num_classes)
        self.model = model.eval()
        self.sampling = sampling or Sampling(frames=model.frames)
        self.clips, self.crops, self.batch_size = clips, crops, batch_size
        self._judge = MultiView(self.model)
        frame_sampling, side = self.sampling, model.img_size
        self.facts = {
            "task": "video",
            "name": "clips",
            "shape": [frame_sampling.frames, 3, side, side],
            "input": "RGB in [0, 1], shorter side resized, centre cut, normalised",
            "resize": side,
            "mean": [*mean],
            "std": [*std],
            "sampling": frame_sampling.kind,
            "interval": frame_sampling.interval,
        }
        normalise = Normalise(mean=mean, std=std)
        self._transform = CropsTransform(model.img_size, crops=crops, normalise=normalise)

    @classmethod
    def from_weights(
        cls,
        source: str | os.PathLike[str],
        *,
        classes: Sequence[str] | str | os.PathLike[str] | None = None,
        variant: str | None = None,
        frames: int | None = None,
        image_size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        clips: int = 1,
        crops: int = 1,
        batch_size: int = 4,
        device: str = "auto",
        precision: Precision = "auto",
    ) -> "VideoPredictor":
        """Build the classifier that a file holds, with the preprocessing of its training.

        Args:
            source: Official name or file; the folder of a run, whose weights note its classes.
            classes: Names of the classes in the order of the labels, or a text file of them; by
                default those that the file notes, or those of Kinetics by their number.
            variant: Size of the ViT, for weights that do not say.
            frames: Frames of a clip; by default the weights' own.
            image_size: Side in pixels; by default the weights' own.
            mean: Mean of the pixels; by default that of the training.
            std: Standard deviation of the pixels; by default that of the training.
            clips: Views in time of each window.
            crops: Views in space: 3 along the longer side, or 1 in the middle.
            batch_size: Windows that go through the model at once.
            device: "cuda", "cpu" or "auto".
            precision: Number format, see `eva_runs.precision.resolve`; "int8" is of the ViT.

        Raises:
            ValueError: If the file or an argument does not fit.
            FileNotFoundError: If the source is neither a file nor a known name at hand.
        """
        resolved_device = choose_device(device)
        model = load_video_classifier(source, variant=variant, frames=frames, image_size=image_size)
        noted = notes_of_training(source, class_names=classes, mean=mean, std=std)
        names = class_names(
            model.num_classes, names=noted["class_names"], source=source, official=official_classes
        )
        return cls(
            to_precision(model, precision, resolved_device),
            class_names=names,
            sampling=sampling_of(source, frames=model.frames),
            mean=noted["mean"] or IMAGENET_MEAN,
            std=noted["std"] or IMAGENET_STD,
            clips=clips,
            crops=crops,
            batch_size=batch_size,
        )

    def predict(self, source: Video, *, top: int = 5) -> list[Prediction]:
        """Name what happens in a video, which is taken as one window.

        Args:
            source: Path, content or open video, or an array (T, H, W, 3) of frames, RGB.
            top: Number of classes.

        Returns:
            The classes with the largest probabilities, in falling order.
        """
        (judged,) = self.windows(source)
        return self.top(judged.probabilities, top)

    def windows(
        self, video: Video, *, seconds: float | None = None, stride: float | None = None
    ) -> Iterator[JudgedWindow]:
        """Judge windows of a video, one batch of them in memory at a time.

        Args:
            video: Path, content or open video, or an array (T, H, W, 3) of frames.
            seconds: Length of a window; None, or any that is longer, takes the entire video.
            stride: Distance of the windows; None for half a window.

        Yields:
            Windows in the order of time, with probabilities (K,).

        Raises:
            UnreadableVideoError: An OSError, if the video cannot be read.
            FloatingPointError: If the number format is too small for the model.
            ValueError: If a length is too small, or the windows leave gaps.
        """
        with contextlib.ExitStack() as stack:
            if isinstance(video, np.ndarray):
                video = ArrayVideo(video)
            if not isinstance(video, VideoSource):
                video = stack.enter_context(open_video(video))
            clips = self._clips(video, [*windows_of(video, seconds=seconds, stride=stride)])
            while batch := list(itertools.islice(clips, self.batch_size)):
                windows, views = zip(*batch, strict=True)
                probabilities = self._probabilities(torch.stack(views))
                require_finite(probabilities, f"predictions for {video.name}")
                for window, row in zip(windows, probabilities, strict=True):
                    yield JudgedWindow(window.start, window.end, row)

    def _clips(
        self, video: VideoSource, windows: Sequence[Window]
    ) -> Iterator[tuple[Window, Tensor]]:
        """Read the views (V, T, 3, S, S) of each window, crop by crop, in one pass over a video."""
        chosen = [
            window.first + self.sampling.fixed(window.length, clips=self.clips).reshape(-1)
            for window in windows
        ]
        decoded = video.iterate_frames(np.concatenate(chosen).tolist())
        frames: dict[int, NDArray[np.uint8]] = {}
        for window, indexes in zip(windows, chosen, strict=True):
            frames = {index: rgb for index, rgb in frames.items() if index >= window.first}
            while indexes.max() not in frames:
                index, rgb = next(decoded)  # perhaps of the next window
                frames[index] = rgb
            views = self._transform(np.stack([frames[index] for index in indexes.tolist()]))
            yield window, views.reshape(-1, self.sampling.frames, *views.shape[2:])

    def _probabilities(self, views: Tensor) -> NDArray[np.float32]:
        weight = self.model.head.weight
        with torch.inference_mode():
            mean, _ = self._judge(views.to(weight.device, weight.dtype))
        probabilities: NDArray[np.float32] = mean.exp().cpu().numpy()
        return probabilities
