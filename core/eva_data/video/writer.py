"""A writer of videos: one frame in memory at a time (PyAV)."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from numpy.typing import NDArray

from eva_data.files import UnwritableError, replacing
from eva_data.video.frame_stream import Frame


class VideoWriter:
    """Writes H.264 in MP4, with the times of the source's frames and without sound.

    A frame whose time is not after that of the frame before it, as in some repaired recordings,
    comes a tick after it: no file may hold it otherwise.

    The file appears under its name once it is complete; without frames there is none.

    Args:
        file: The video to write.
        reproducible: Same bytes from the same frames each time, on any number of cores; slower.
    """

    def __init__(self, file: Path, *, reproducible: bool = False) -> None:
        self._file, self._reproducible = file, reproducible
        self._stack = contextlib.ExitStack()
        self._container: av.container.OutputContainer | None = None
        self._latest: int | None = None  # time of a frame

    def __enter__(self) -> "VideoWriter":
        return self

    def add(self, rgb: NDArray[np.uint8], like: Frame) -> None:
        """Append a frame.

        Args:
            rgb: (H, W, 3), of the same size each time.
            like: The source's frame, for the time.

        Raises:
            UnwritableError: If the disk is full, for example, or the frame is too large for H.264.
        """
        height, width = rgb.shape[:2]
        # half the resolution for colour: sides must be even
        rgb = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._container is None:
            part = self._stack.enter_context(replacing(self._file))
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
        frame.pts, frame.time_base = self._following(like.pts), like.time_base
        with self._explained(rgb):
            self._container.mux(self._stream.encode(frame))

    def _following(self, pts: int | None) -> int | None:
        if pts is not None and self._latest is not None:
            pts = max(pts, self._latest + 1)
        self._latest = pts
        return pts

    @contextlib.contextmanager
    def _explained(self, rgb: NDArray[np.uint8]) -> Iterator[None]:
        try:
            yield
        except av.FFmpegError as error:
            if isinstance(error, OSError):  # of the disk, which `replacing` explains
                raise
            height, width = rgb.shape[:2]
            raise UnwritableError(
                f"{self._file} cannot be written as H.264 with frames of {width} x {height} "
                f"pixels: {error.strerror}"
            ) from error

    def _flush(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._container is not None:
            self._container.mux(self._stream.encode())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)
