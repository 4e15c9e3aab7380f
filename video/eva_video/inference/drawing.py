"""Frames with what happens in them written below."""

import functools
import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from eva_data.drawing.lettering import clock, font, shortened
from eva_data.video.frame_stream import Frame, VideoReader
from eva_data.video.video_source import UnreadableVideoError
from eva_data.video.writer import VideoWriter
from eva_video.inference.predictor import Prediction, VideoPredictor
from eva_video.inference.windows import Judged

SHOWN = 3  # classes below a frame
_READABLE_WIDTH = 320  # pixels; narrower frames are enlarged, since names would not fit
_HIGHEST = 2048  # pixels of an enlarged frame
_SMALLEST, _LARGEST = 13, 40  # pixels of a letter
_BACK, _FIRST, _OTHER, _TEXT, _FAINT = "#141414", "#1f5fae", "#3a3a3a", "#ffffff", "#c8c8c8"


def annotate(
    rgb: NDArray[np.uint8], predictions: Sequence[Prediction], *, time: str, rows: int = SHOWN
) -> NDArray[np.uint8]:
    """Write classes with their probabilities and a time below a frame.

    Args:
        rgb: (H, W, 3).
        predictions: Classes in falling order of probability.
        time: What to write above them.
        rows: Number of lines for classes, of which some may stay empty.

    Returns:
        (H * s + h, W * s, 3), with s = 1 for frames of 320 px width and more.
    """
    height, width = rgb.shape[:2]
    scale = min(math.ceil(_READABLE_WIDTH / width), max(1, _HIGHEST // height))
    enlarged = rgb.repeat(scale, axis=0).repeat(scale, axis=1)
    strip = _strip(enlarged.shape[1], tuple(predictions[:rows]), time, rows)
    return np.concatenate([enlarged, strip])


@functools.lru_cache(maxsize=8)  # many frames in turn have the same
def _strip(
    width: int, predictions: tuple[Prediction, ...], time: str, rows: int
) -> NDArray[np.uint8]:
    size = min(max(round(width / 36), _SMALLEST), _LARGEST)
    letters, line, gap = font(size), round(size * 1.6), round(size * 0.5)
    canvas = Image.new("RGB", (width, (rows + 1) * line + gap), _BACK)
    draw = ImageDraw.Draw(canvas)
    draw.text((gap, gap // 2 + line / 2), time, fill=_FAINT, font=letters, anchor="lm")
    for row, (name, probability) in enumerate(predictions):
        top = gap // 2 + (row + 1) * line
        reach = gap + round((width - 2 * gap) * min(max(probability, 0.0), 1.0))
        draw.rectangle((gap, top + 1, max(reach, gap + 1), top + line - 2),
                       fill=_OTHER if row else _FIRST)  # fmt: skip
        share = f"{probability:.0%}"
        text = shortened(name, letters, width - 5 * gap - letters.getlength("100%"))
        middle, fill = top + line / 2, _FAINT if row else _TEXT
        draw.text((2 * gap, middle), text, fill=fill, font=letters, anchor="lm")
        draw.text((width - 2 * gap, middle), share, fill=fill, font=letters, anchor="rm")
    return np.asarray(canvas)


def drawn(
    pieces: Iterable[Judged],
    source: Path,
    target: Path,
    predictor: VideoPredictor,
    *,
    least: float = 0.0,
) -> Generator[Judged, None, None]:
    """Write an annotated video beside the passing pieces, a frame in memory at a time.

    Args:
        pieces: What happens when, without gaps, in the order of time.
        source: The video.
        target: File to write; its folder exists.
        predictor: For the names of the classes.
        least: Least probability of a class that is shown.

    Yields:
        The same pieces, each once its frames are written.

    Raises:
        UnreadableVideoError: If the video cannot be read to its end.
        UnwritableError: If the disk is full, for example.
    """
    reader = VideoReader(source)
    rows = min(SHOWN, len(predictor.class_names))
    with VideoWriter(target) as writer:
        frames = _timed(reader)
        waiting = next(frames, None)
        shown: list[Prediction] = []
        for piece in pieces:
            found = predictor.top(piece.probabilities, rows)
            shown = [one for one in found if one.probability >= least]
            while waiting is not None and waiting[0] < piece.end:
                _add(writer, waiting, shown, rows)
                waiting = next(frames, None)
            yield piece
        while waiting is not None:
            _add(writer, waiting, shown, rows)
            waiting = next(frames, None)
        if reader.error is not None:
            raise UnreadableVideoError(reader.error)


def _add(
    writer: VideoWriter, timed: tuple[float, Frame], shown: Sequence[Prediction], rows: int
) -> None:
    time, frame = timed
    writer.add(annotate(frame.rgb, shown, time=clock(time), rows=rows), frame)


def _timed(reader: VideoReader) -> Iterator[tuple[float, Frame]]:
    """Yield frames and their times in seconds from the first one's."""
    begin: float | None = None
    for number, frame in enumerate(reader):
        time = number / float(frame.rate)
        if frame.pts is not None:
            time = float(frame.pts * frame.time_base)
        begin = time if begin is None else begin
        yield time - begin, frame
