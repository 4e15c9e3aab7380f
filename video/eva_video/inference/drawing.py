"""Videos written again, with what happens in them below each frame."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path

from eva_data.video.source import UnreadableVideoError
from eva_data.video.streams import Frame, VideoReader, VideoWriter
from eva_report.demos import Prediction
from eva_report.drawing import clock
from eva_report.sheets import CLASSES_SHOWN, annotate
from eva_video.inference.predictor import VideoPredictor
from eva_video.inference.windows import Judged


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
    rows = min(CLASSES_SHOWN, len(predictor.class_names))
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
    writer.add(annotate(frame.rgb, shown, heading=clock(time), rows=rows), frame)


def _timed(reader: VideoReader) -> Iterator[tuple[float, Frame]]:
    """Yield frames and their times in seconds from the first one's."""
    begin: float | None = None
    for number, frame in enumerate(reader):
        time = number / float(frame.rate)
        if frame.pts is not None:
            time = float(frame.pts * frame.time_base)
        begin = time if begin is None else begin
        yield time - begin, frame
