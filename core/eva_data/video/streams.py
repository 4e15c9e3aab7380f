"""Videos frame by frame, one in memory at a time (PyAV): readers of files and cameras, a writer."""

import contextlib
import os
import signal
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from eva_data.saving import UnwritableError, replace_file
from eva_data.video.decoding import (
    explain_decode_errors,
    frames_of,
    open_container,
    packets_of,
    require_permitted_size,
    to_rgb,
)
from eva_data.video.source import UnreadableVideoError

_CAMERA_RATE = 25  # frames a second, where the camera does not say


class Frame(NamedTuple):
    """A frame, (H, W, 3) and upright, its time in units of `time_base` seconds, frames a second."""

    rgb: NDArray[np.uint8]
    pts: int | None
    time_base: Fraction
    rate: Fraction


class VideoReader:
    """Iterates over the frames of a file.

    A file that cannot be read, or only in part, ends the iteration and leaves its reason in
    `error`: earlier frames are valid.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.error: str | None = None
        self.count: int | None = None  # number of frames, where the file says

    def __iter__(self) -> Iterator[Frame]:
        try:
            yield from self._read()
        except UnreadableVideoError as error:
            self.error = str(error)

    def _read(self) -> Iterator[Frame]:
        done = 0
        size = None
        with explain_decode_errors(str(self.file), after=lambda: f" after {done} frames"):
            video = open_container(self.file)
            with contextlib.closing(video.container):
                self.count = video.stream.frames or None
                rate = video.rate
                for frame in frames_of(packets_of(video)):
                    size = size or (frame.height, frame.width)
                    rgb = to_rgb(frame, size)
                    yield Frame(rgb, frame.pts, frame.time_base or 1 / rate, rate)
                    done += 1


class CameraReader(VideoReader):
    """Iterates over the frames of a camera such as `/dev/video0` (Linux).

    Ctrl-C ends the iteration after the frame at work, so that what was recorded is kept; a second
    one ends the program. `kind` is FFmpeg's name of what reads it.
    """

    def __init__(self, file: Path, *, kind: str = "v4l2") -> None:
        super().__init__(file)
        self._kind, self._stopped = kind, False

    def _read(self) -> Iterator[Frame]:
        before = signal.signal(signal.SIGINT, self._stop)
        try:
            with (
                explain_decode_errors(str(self.file)),
                av.open(str(self.file), format=self._kind) as camera,
            ):
                stream = camera.streams.video[0]
                require_permitted_size(stream.width, stream.height)
                rate, first = Fraction(stream.average_rate or _CAMERA_RATE), None
                for frame in camera.decode(stream):
                    first = frame.pts if first is None else first
                    pts = None if frame.pts is None or first is None else frame.pts - first
                    rgb = to_rgb(frame, (frame.height, frame.width))
                    yield Frame(rgb, pts, frame.time_base or 1 / rate, rate)
                    if self._stopped:
                        return
        finally:
            signal.signal(signal.SIGINT, before)

    def _stop(self, *_: object) -> None:
        if self._stopped:
            raise KeyboardInterrupt
        self._stopped = True


class VideoWriter:
    """Writes H.264 in MP4, with the times of the source's frames and without sound.

    A frame whose time is not after that of the frame before it, as in some repaired recordings,
    comes a tick after it. The file appears once it is complete; without frames there is none. With
    `reproducible` equal frames give equal bytes, on any number of cores; it is slower.
    """

    def __init__(self, file: Path, *, reproducible: bool = False) -> None:
        self._file, self._reproducible = file, reproducible
        self._stack = contextlib.ExitStack()
        self._container: av.container.OutputContainer | None = None
        self._latest: int | None = None  # time of a frame

    def __enter__(self) -> "VideoWriter":
        return self

    def add(self, rgb: NDArray[np.uint8], like: Frame) -> None:
        """Append a frame, (H, W, 3), of the same size each time, at the time of `like`."""
        height, width = rgb.shape[:2]
        # half the resolution for colour: sides must be even
        rgb = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._container is None:
            part = self._stack.enter_context(replace_file(self._file))
            self._container = av.open(os.fspath(part), "w", format="mp4")
            self._stack.enter_context(self._container)
            self._stack.push(self._flush)
            self._stream = self._container.add_stream("libx264", rate=like.rate)
            self._stream.height, self._stream.width = rgb.shape[:2]
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = like.time_base
            if self._reproducible:
                # x264 writes other bytes with more threads; and its macroblock tree, on which it
                # spends bits where later frames refer to, differs from call to call in small frames
                self._stream.codec_context.thread_count = 1
                self._stream.codec_context.options = {"mbtree": "0"}
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        pts = like.pts
        if pts is not None and self._latest is not None:
            pts = max(pts, self._latest + 1)
        frame.pts, frame.time_base, self._latest = pts, like.time_base, pts
        try:
            self._container.mux(self._stream.encode(frame))
        except av.FFmpegError as error:
            if isinstance(error, OSError):  # of the disk, which `replace_file` explains
                raise
            raise UnwritableError(
                f"{self._file} cannot be written as H.264 with frames of {width} x {height} "
                f"pixels: {error.strerror}"
            ) from error

    def _flush(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._container is not None:
            self._container.mux(self._stream.encode())

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)
