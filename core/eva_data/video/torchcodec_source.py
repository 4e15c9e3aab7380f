"""Chosen frames of a video by torchcodec, which needs FFmpeg's shared libraries on the system."""

import contextlib
import itertools
import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eva_data.video.containers import Content
from eva_data.video.pyav_source import PyavSource

if TYPE_CHECKING:
    from torchcodec.decoders import VideoDecoder


class TorchcodecSource(PyavSource):
    """A video that torchcodec decodes, with one thread, see `open_video`.

    PyAV decodes what torchcodec does not: files whose packets do not say which frames there are,
    and frames that torchcodec refuses or skips.
    """

    def __init__(self, content: Content, *, name: str | None = None) -> None:
        decoder_class = load_decoder()
        self._decoder: VideoDecoder | None = None
        super().__init__(content, name=name)
        if self._table.places:
            with contextlib.suppress(RuntimeError, ValueError):
                self._decoder = decoder_class(
                    content if isinstance(content, bytes) else f"file:{os.fspath(content)}",
                    stream_index=self._opened().stream.index,
                    dimension_order="NHWC",
                    num_ffmpeg_threads=1,
                    custom_frame_mappings=self._mappings(),
                )
        if self._decoder is not None:
            self._free()

    def close(self) -> None:
        """Close the file and free the decoders; what is closed may be closed again."""
        self._decoder = None
        super().close()

    def _rgb(self, indices: list[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        batch = None
        if self._decoder is not None:
            with contextlib.suppress(RuntimeError, ValueError):
                batch = self._decoder.get_frames_at(indices)
        if batch is None:
            yield from super()._rgb(indices)
            return
        for index, rgb, time in zip(indices, batch.data, batch.pts_seconds.tolist(), strict=True):
            if abs(time / self._tick - self._table.times[index]) < 0.5:
                yield index, rgb.numpy()
            else:
                yield from super()._rgb([index])

    def _mappings(self) -> str:
        """Describe the frames for torchcodec, which then does not read all packets again."""
        times = self._table.times
        keys = {packet.pts for packet in self._table.keys}
        frames = [
            {"pts": time, "duration": after - time, "key_frame": int(time in keys)}
            for time, after in itertools.pairwise([*times, times[-1] + 1])
        ]
        return json.dumps({"frames": frames})


def load_decoder() -> "type[VideoDecoder]":
    """Load torchcodec's decoder; a ValueError if torchcodec or FFmpeg is not installed."""
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError, OSError) as error:
        raise ValueError(
            f"the backend torchcodec cannot be loaded ({str(error).splitlines()[0]}): it needs "
            "pip install 'torchcodec>=0.12,<0.14' and FFmpeg's shared libraries, version 4 to 8 "
            "(apt install ffmpeg, or conda install ffmpeg); the backend pyav needs neither"
        ) from error
    return VideoDecoder
