"""Chosen frames of a video by torchcodec, an optional decoder of the PyTorch project.

It needs FFmpeg's shared libraries on the system. Which frames a file holds is read as for PyAV, so
both have the same.
"""

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

_INSTEAD = "; the backend pyav needs neither"


class TorchcodecSource(PyavSource):
    """A video that torchcodec decodes, with one thread.

    PyAV decodes what torchcodec does not: files whose packets do not say which frames there are,
    and frames that torchcodec refuses or skips.

    Args:
        content: Path of a file, or its content.
        name: Name in messages; by default the path.

    Raises:
        UnreadableVideoError: If it cannot be read, has no picture or no frame.
        ValueError: If torchcodec or FFmpeg is not installed.
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
        if self._decoder is None:
            yield from super()._rgb(indices)
            return
        try:
            batch = self._decoder.get_frames_at(indices)
        except (RuntimeError, ValueError):
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
        keys = {place.pts for place in self._table.keys}
        return json.dumps(
            {
                "frames": [
                    {"pts": time, "duration": after - time, "key_frame": int(time in keys)}
                    for time, after in itertools.pairwise([*times, times[-1] + 1])
                ]
            }
        )


def load_decoder() -> "type[VideoDecoder]":
    """Load torchcodec's decoder.

    Raises:
        ValueError: If torchcodec or FFmpeg is not installed.
    """
    try:
        from torchcodec.decoders import VideoDecoder
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torchcodec":
            raise
        raise ValueError(
            "the backend torchcodec needs a package that is not installed: "
            "pip install 'torchcodec>=0.12,<0.14', and FFmpeg" + _INSTEAD
        ) from error
    except (RuntimeError, OSError) as error:
        raise ValueError(
            "torchcodec is installed and cannot be loaded: install FFmpeg's shared libraries, "
            "version 4 to 8 (apt install ffmpeg, or conda install ffmpeg), and the torchcodec "
            "that belongs to this torch" + _INSTEAD
        ) from error
    return VideoDecoder
