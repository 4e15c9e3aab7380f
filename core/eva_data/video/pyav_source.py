"""Chosen frames of a video by PyAV, which brings its own FFmpeg."""

import collections
import itertools
import math
import os
from collections.abc import Iterator, Sequence

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from eva_data.video.containers import (
    Content,
    OpenVideo,
    Place,
    VideoPacket,
    count,
    explain_decode_errors,
    frames_of,
    open_container,
    packets_of,
    rate_of,
    scan,
    time_of,
    to_rgb,
    turns_of,
)
from eva_data.video.source import VideoSource


class PyavSource(VideoSource):
    """A video that one thread decodes, see `open_video`.

    All packets are read once when it is opened. For a frame the decoder begins at the keyframe
    before it, or goes on where it is if that decodes no more.
    """

    _video: OpenVideo | None = None

    def __init__(self, content: Content, *, name: str | None = None) -> None:
        display_name = "the given bytes" if isinstance(content, bytes) else os.fspath(content)
        self.name = display_name if name is None else name
        self._content = content
        self._closed = False
        try:
            with explain_decode_errors(self.name):
                video = self._restart()
                scanned = scan(video)
                if scanned is None:
                    video = self._restart()
                    scanned = count(video)
        except BaseException:
            self.close()
            raise
        self._table, first = scanned
        self._shown = math.inf
        self.rate = rate_of(video)
        self._tick = first.time_base or 1 / self.rate
        self._stored_size = first.height, first.width
        self.rotation = 90 * turns_of(first)
        self.size = self._stored_size[::-1] if self.rotation % 180 else self._stored_size

    def __len__(self) -> int:
        return len(self._table.times)

    def times(self, indices: Sequence[int]) -> list[float]:
        """Give the times of frames, in seconds from the first frame's."""
        times = self._table.times
        return [float((times[self.checked(i)] - times[0]) * self._tick) for i in indices]

    def frames(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Decode frames; see `VideoSource.frames`."""
        order = np.array([self.checked(index) for index in indices], dtype=np.int64)
        if self._closed:
            raise ValueError(f"{self.name} is closed")
        result = np.empty((len(order), *self.size, 3), dtype=np.uint8)
        with explain_decode_errors(self.name):
            for index, rgb in self._rgb(np.unique(order).tolist()):
                result[order == index] = rgb
        return result

    def _rgb(self, indices: list[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Decode frames in order of display and convert them."""
        self._wanted = frozenset(self._table.times[index] for index in indices)
        self._last_wanted = max(self._wanted, default=0)
        for index, after in zip(indices, [*indices[1:], None], strict=False):
            self._flush_at = self._before_a_leap(index, after)
            yield index, to_rgb(self._decode(index), self._stored_size)

    def _before_a_leap(self, index: int, after: int | None) -> int | None:
        """Give the time of a frame behind which nothing is decoded, as the next is far away."""
        if after is None or not self._table.places:
            return None
        time = self._table.times[index]
        start = self._table.start_of(self._table.times[after])
        return time if start.number > self._table.places[time].number + 1 else None

    def close(self) -> None:
        """Close the file and free the decoder; what is closed may be closed again."""
        self._closed = True
        self._free()

    def __del__(self) -> None:
        self._free()  # PyAV's container and its streams refer to each other

    def _free(self) -> None:
        """Close the file until a frame is asked for."""
        if self._video is not None:
            self._video.container.close()
        self._video = None
        self._packets: Iterator[VideoPacket] = iter(())
        self._decoded: Iterator[VideoFrame] = iter(())
        self._waiting: collections.deque[VideoFrame] = collections.deque()
        self._shown = math.inf  # the last decoded frame: its time, or its number without packets

    def _opened(self) -> OpenVideo:
        return self._video or self._restart()

    def _decode(self, index: int) -> VideoFrame:
        try:
            frame = self._by_time(index) if self._table.places else self._by_number(index)
        except Exception:
            self._shown = math.inf  # where the decoder is, is not known
            raise
        if frame is None:
            raise OSError(f"its frame {index} of {len(self)} is damaged")
        return frame

    def _by_number(self, index: int) -> VideoFrame | None:
        """Decode from the beginning, or go on, and count."""
        if index <= self._shown:
            self._decoded = frames_of(self._restart())
            self._shown = -1
        frame = None
        while self._shown < index and (frame := next(self._decoded, None)) is not None:
            self._shown += 1
        return frame

    def _by_time(self, index: int) -> VideoFrame | None:
        time = self._table.times[index]
        start = self._table.start_of(time)
        if self._shown >= time or start.number > self._fed + 1:
            self._seek(start, time)
        frame = self._forward_to(time, start)
        if frame is None:  # a keyframe that needs what is before it, as with intra refresh
            self._restart()
            frame = self._forward_to(time, start)
        return frame

    def _forward_to(self, time: int, start: Place) -> VideoFrame | None:
        """Decode up to a frame; None if it does not come, or something is damaged on the way."""
        while self._shown < time and (frame := self._next_frame()) is not None:
            if frame.pts is None:
                continue
            self._shown = frame.pts
            if frame.is_corrupt and frame.pts >= start.pts:
                return None
            if frame.pts == time:
                return frame
        return None

    def _next_frame(self) -> VideoFrame | None:
        while not self._waiting:
            packet = next(self._packets, None)
            if packet is None:
                self._shown = math.inf
                return None
            packet_place = self._table.places.get(time_of(packet))
            if packet_place is not None:
                self._fed = packet_place.number
                self._leave_out(packet_place)
            self._waiting.extend(packet.decode())
            if packet_place is not None and packet_place.pts == self._flush_at:
                # its frame would come after some more packets
                self._waiting.extend(self._opened().stream.decode(None))
                self._packets = iter(())
        return self._waiting.popleft()

    def _leave_out(self, packet_place: Place) -> None:
        """Have a frame that no other refers to decoded only if it is wanted, or may be next time.

        HEVC's are left alone: there, frames of a higher layer may refer to them.
        """
        codec = self._opened().stream.codec_context
        if codec.name == "h264":
            needed = packet_place.pts in self._wanted or packet_place.pts > self._last_wanted
            codec.skip_frame = "DEFAULT" if needed else "NONREF"

    def _seek(self, start: Place, time: int) -> None:
        """Go to the keyframe with which a frame begins, or to an earlier one.

        A container may look for times of another kind, and find a keyframe before or behind it.
        """
        seeks = {}
        for sought in dict.fromkeys((start.pts, time, start.dts)):
            position = self._try_to_seek(sought)
            if position == start:
                return
            if position and position.key and position.number < start.number:
                seeks[position.number] = sought
        if not seeks or not self._try_to_seek(seeks[max(seeks)]):
            self._restart()

    def _try_to_seek(self, time: int) -> Place | None:
        """Seek, and see which packet comes."""
        video = self._opened()
        try:
            video.container.seek(time, stream=video.stream)
            packets = packets_of(video)
            first = next(packets, None)
        except av.FFmpegError:
            return None
        packet_place = self._table.places.get(time_of(first)) if first else None
        if first and packet_place:
            self._begin(itertools.chain([first], packets), fed=packet_place.number - 1)
        return packet_place

    def _restart(self) -> OpenVideo:
        """Open the file again, at its beginning."""
        self._free()
        self._video = open_container(self._content)
        self._begin(packets_of(self._video), fed=-1)
        return self._video

    def _begin(self, packets: Iterator[VideoPacket], *, fed: int) -> None:
        self._packets = packets
        self._fed = fed  # number of the last packet that was decoded
        self._waiting.clear()
        self._shown = -math.inf
