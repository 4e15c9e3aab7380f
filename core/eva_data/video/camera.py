"""The frames of a camera, until Ctrl-C (PyAV)."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import FrameType

import av
from av.video.frame import VideoFrame

from eva_data.video.containers import check_size, explained, to_rgb
from eva_data.video.frame_stream import Frame
from eva_data.video.video_source import UnreadableVideoError

_TICK = Fraction(1, 1000)  # seconds


class CameraReader:
    """Iterates over the frames of a camera, as `VideoReader` over those of a file.

    Ctrl-C ends the iteration after the frame at work, so that what was recorded is kept; a second
    one ends the program. A camera that cannot be read leaves its reason in `error`.

    Args:
        device: Device of the camera, such as `/dev/video0`.
        kind: FFmpeg's name of what reads it.
    """

    count = None  # number of frames

    def __init__(self, device: Path | str, *, kind: str = "v4l2") -> None:
        self.error: str | None = None
        self._device, self._kind = device, kind
        self._stopped = False

    def __iter__(self) -> Iterator[Frame]:
        with self._until_interrupted():
            try:
                yield from self._read()
            except UnreadableVideoError as error:
                self.error = str(error)

    def _read(self) -> Iterator[Frame]:
        first: Fraction | None = None
        name = str(self._device)
        with explained(name), av.open(name, format=self._kind) as camera:
            stream = camera.streams.video[0]
            check_size(stream.width, stream.height)
            rate = Fraction(stream.average_rate or 25)
            for frame in camera.decode(stream):
                time = _seconds(frame)
                first = time if first is None else first
                ticks = None if time is None or first is None else round((time - first) / _TICK)
                yield Frame(to_rgb(frame, (frame.height, frame.width)), ticks, _TICK, rate)
                if self._stopped:
                    return

    @contextlib.contextmanager
    def _until_interrupted(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._stopped:
            raise KeyboardInterrupt
        self._stopped = True


def _seconds(frame: VideoFrame) -> Fraction | None:
    if frame.pts is None or frame.time_base is None:
        return None
    return frame.pts * frame.time_base
