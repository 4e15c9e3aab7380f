"""Video files by PyAV, which brings its own FFmpeg: chosen frames, and all frames in turn.

In MP4 and Matroska a packet of a modern codec is a frame, with the time at which it is shown: to
count the frames nothing is decoded. Elsewhere it may be none or two; such a file is decoded once.
"""

import bisect
import contextlib
import io
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import av
import av.filter
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

from eva_data.files import require_regular_file
from eva_data.images import LIMIT, max_pixels
from eva_data.video.source import UnreadableVideoError, VideoSource

# What FFmpeg may take a file for. It knows pictures, sounds, scripts and playlists too: these wait
# for what they name, and may name anything.
_KINDS = (
    "3g2,3gp,amv,asf,av1,avi,dv,flic,flv,gif,h263,h264,hevc,ivf,m4a,m4v,matroska,mj2,mjpeg,mov,"
    "mp4,mpeg,mpegts,mpegvideo,mxf,nsv,nut,obu,ogg,rm,roq,smk,swf,vc1,webm,wtv,yuv4mpegpipe"
)
_INDEXED = {"mov", "matroska", "avi", "flv"}  # whose packets have a length
_TIMED = {"mov", "matroska", "flv"}  # which give each packet the time at which it is shown
_CODECS = {"h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg", "ffv1", "prores"}
_ONE_IMAGE = (0, 1)  # order of fields: unknown, progressive; else a packet may be half a frame
_LARGEST_EMPTY = 19  # bytes of a packet of MPEG-4 that repeats a frame and shows none
_SEGMENT = bytes.fromhex("18538067")
_HEAD = 4096  # bytes
_USUAL_RATE = Fraction(25)
Content = str | os.PathLike[str] | bytes  # path of a file, or its content

if TYPE_CHECKING:
    VideoPacket = Packet[VideoStream]
else:
    VideoPacket = Packet  # its class takes no parameters while it runs


@contextlib.contextmanager
def explain_decode_errors(name: str, *, after: Callable[[], str] = str) -> Iterator[None]:
    """Turn what PyAV or the system raises into an `UnreadableVideoError` that names the video.

    `after` says how far it could be read.
    """
    try:
        yield
    except UnreadableVideoError:
        raise
    except (av.FFmpegError, OSError) as error:
        reason = (error.strerror if isinstance(error, av.FFmpegError) else None) or str(error)
        if isinstance(error, av.InvalidDataError | av.EOFError):
            reason = "it is damaged or not a video"
        raise UnreadableVideoError(f"cannot read {name} as a video{after()}: {reason}") from error


class OpenVideo(NamedTuple):
    """An open file, its best stream of moving pictures, its bytes and the first of them."""

    container: InputContainer
    stream: VideoStream
    size: int
    head: bytes

    @property
    def kinds(self) -> set[str]:
        """Names of the container's format."""
        return set(self.container.format.name.split(","))

    @property
    def rate(self) -> Fraction:
        """Frames a second, on average, or 25 if the file does not say."""
        return self.stream.average_rate or self.stream.guessed_rate or _USUAL_RATE


def open_container(content: Content) -> OpenVideo:
    """Open a file, by its path or content, and choose the stream of its images.

    An image that is attached to the file, such as the cover of a record, is not a video. What is
    wrong is an FFmpegError or OSError.
    """
    source: str | io.BytesIO
    if isinstance(content, bytes):
        source, size, head, protocols = io.BytesIO(content), len(content), content[:_HEAD], "none"
    else:
        path = Path(content)
        require_regular_file(path)
        # a name such as "a:b.mp4" would be taken for a protocol
        source, size, protocols = f"file:{os.fspath(content)}", path.stat().st_size, "file"
        with path.open("rb") as file:
            head = file.read(_HEAD)
    options = {"format_whitelist": _KINDS, "protocol_whitelist": protocols}
    try:
        container = av.open(source, metadata_errors="replace", container_options=options)
    except av.ArgumentError as error:
        raise OSError("it is not a video of a known kind") from error
    try:
        return OpenVideo(container, _choose_stream(container), size, head)
    except BaseException:
        container.close()
        raise


def _choose_stream(container: InputContainer) -> VideoStream:
    attached = Disposition.attached_pic
    moving = [stream for stream in container.streams.video if not stream.disposition & attached]
    if not moving:
        raise OSError("it has no images")
    best = container.streams.best("video")
    stream = next((stream for stream in moving if stream is best), moving[0])
    if stream.codec_context is None:
        raise OSError("there is no decoder for it")
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all  # sound is not even read
    stream.codec_context.thread_count = 1
    stream.codec_context.thread_type = "NONE"
    require_permitted_size(stream.codec_context.width, stream.codec_context.height)
    return stream


def require_permitted_size(width: int, height: int) -> None:
    """Refuse, by an OSError, frames of more pixels than `eva_data.images.max_pixels` permits."""
    if width * height > max_pixels():
        raise OSError(
            f"its frames have {width} x {height} pixels, more than {max_pixels():,}; if it is "
            f"meant, set {LIMIT}={width * height}"
        )


def _claimed_size(video: OpenVideo) -> int:
    """Compute the bytes that a file should have by what it says of itself; 0 if it does not."""
    if "matroska" in video.kinds:  # the end of its outermost element, behind the header
        before, marker, after = video.head.partition(_SEGMENT)
        if not marker or not after or not after[0]:
            return 0
        length = 9 - after[0].bit_length()  # as many bytes as leading zeros and a one
        unknown = (1 << 7 * length) - 1
        size = int.from_bytes(after[:length], "big") & unknown
        return 0 if size == unknown else len(before) + len(marker) + length + size
    if video.head.startswith(b"RIFF"):
        return 8 + int.from_bytes(video.head[4:8], "little")
    if "mov" in video.kinds:
        return max((entry.pos + entry.size for entry in video.stream.index_entries), default=0)
    return 0


def packets_of(video: OpenVideo) -> Iterator[VideoPacket]:
    """Read the packets that are left, from the first keyframe among them, and a last empty one.

    What is before a keyframe, in a recording that was cut, cannot be decoded. An OSError tells of
    a file that is encrypted, or ends before the place where it says that it does.
    """
    started = False
    # PyAV raises IndexError at the end of a file with streams that appeared on the way
    with contextlib.suppress(IndexError):
        for packet in video.container.demux(video.stream):
            if not started and packet.has_sidedata("encryption_info"):
                raise OSError("it is encrypted")
            if packet.is_corrupt and not _INDEXED.isdisjoint(video.kinds):
                raise OSError("it is truncated")
            started = started or packet.is_keyframe or _is_last(packet)
            if started:
                yield packet
    if video.size < _claimed_size(video):
        raise OSError("it is truncated")


def _is_last(packet: VideoPacket) -> bool:
    """Return whether it is the empty packet that makes the decoder give its last frames."""
    return not packet.size and packet.pts is None and packet.dts is None


def _time_of(packet: VideoPacket) -> int | None:
    """Give the time at which its frame is shown, or decoded where the file says no more."""
    return packet.dts if packet.pts is None else packet.pts


def frames_of(video: OpenVideo) -> Iterator[VideoFrame]:
    """Decode a file from its beginning.

    Damaged frames at the beginning or end of a recording that was cut are left out; an OSError or
    FFmpegError says what is damaged in between.
    """
    begun = damaged = False
    for packet in packets_of(video):
        for frame in packet.decode():
            require_permitted_size(frame.width, frame.height)
            if frame.is_corrupt:
                damaged = begun
                continue
            if damaged:
                raise OSError("it is damaged")
            begun = True
            yield frame
    if not begun:
        raise OSError("it has no frames")


def to_rgb(frame: VideoFrame, stored_size: tuple[int, int]) -> NDArray[np.uint8]:
    """Convert a frame to RGB, upright, (H, W, 3), scaled to the height and width as stored."""
    height, width = stored_size
    rgb = _without_chroma_location(frame).to_ndarray(
        format="rgb24",
        width=width,
        height=height,
        interpolation=Interpolation.BICUBIC,  # as in FFmpeg's own program
        threads=1,
    )
    return np.ascontiguousarray(np.rot90(cast("NDArray[np.uint8]", rgb), _turns_of(frame)))


def _turns_of(frame: VideoFrame) -> int:
    """Count the turns by 90 degrees counterclockwise to stand upright (phones film sideways)."""
    return round(frame.rotation / 90) % 4


def _without_chroma_location(frame: VideoFrame) -> VideoFrame:
    """Leave out where between the pixels their colours were measured.

    FFmpeg ignores it for 8 bits, and for more it would shift the colours by half a pixel.
    """
    if frame.format.components[0].bits <= 8:
        return frame
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        time_base=frame.time_base or Fraction(1),
    )
    filter_node = graph.add("setparams", "chroma_location=unspecified")
    graph.link_nodes(source, filter_node, graph.add("buffersink")).configure()
    graph.vpush(frame)
    return graph.vpull()


class _Key(NamedTuple):
    """A keyframe: when it is shown, and decoded."""

    pts: int
    dts: int


class _Frames(NamedTuple):
    """The frames of a file in order of display: the first, times of all in ticks, keyframes.

    There are no keyframes where packets do not say which frames there are.
    """

    first: VideoFrame
    times: list[int]
    keys: list[_Key]

    def key_of(self, index: int) -> int:
        """Find the number of the keyframe before a frame, as it is shown and not as stored."""
        return bisect.bisect_right(self.keys, self.times[index], key=lambda key: key.pts) - 1


def _list_packets(video: OpenVideo) -> _Frames | None:
    """List the frames by their packets, of which the first is decoded; None if it cannot be."""
    codec = video.stream.codec_context
    kind = codec.codec.canonical_name
    # AVI has an order and no times: that is enough if frames are shown in the order of storage
    timed = _TIMED & video.kinds or ("avi" in video.kinds and not codec.has_b_frames)
    if not timed or kind not in _CODECS or codec.field_order not in _ONE_IMAGE:
        return None
    first: VideoFrame | None = None
    every, times, keys = set[int](), list[int](), list[_Key]()
    for packet in packets_of(video):
        first = first or next(iter(packet.decode()), None)
        if _is_last(packet):
            continue
        pts = _time_of(packet)
        if pts is None or pts in every or packet.size <= _LARGEST_EMPTY * (kind == "mpeg4"):
            return None
        every.add(pts)
        if packet.is_keyframe:
            keys.append(_Key(pts, pts if packet.dts is None else packet.dts))
        if not packet.is_discard:  # of what is decoded and not shown
            times.append(pts)
    reliable = (
        first is not None
        and not first.is_corrupt
        and keys[0].pts <= min(times) == first.pts
        and keys == sorted(keys)
    )
    return _Frames(first, sorted(times), keys) if first and reliable else None


def _count_frames(video: OpenVideo) -> _Frames:
    """List the frames by decoding all of them."""
    frames = frames_of(video)
    first = next(frames)
    times = [first.pts, *(frame.pts for frame in frames)]
    if any(a is None or b is None or a >= b for a, b in itertools.pairwise([*times, math.inf])):
        tick = first.time_base or 1 / video.rate
        times = [round(number / video.rate / tick) for number in range(len(times))]
    return _Frames(first, cast("list[int]", times), [])


class VideoFile(VideoSource):
    """A video file that one thread decodes, see `open_video`.

    All packets are read once when it is opened. For a frame the decoder begins at the keyframe
    before it, or goes on where it is if no keyframe is in between.
    """

    _video: OpenVideo | None = None
    _keys: Sequence[_Key] = ()
    _wanted = frozenset[int]()  # times of the frames of a run

    def __init__(self, content: Content, *, name: str | None = None) -> None:
        self.name = name or ("the video" if isinstance(content, bytes) else os.fspath(content))
        self._content = content
        try:
            with explain_decode_errors(self.name):
                self._table = _list_packets(self._restart()) or _count_frames(self._restart())
        except BaseException:
            self.close()
            raise
        first, self._keys = self._table.first, self._table.keys
        self._numbers = {time: number for number, time in enumerate(self._table.times)}
        self._at = math.inf  # number of the last decoded frame
        self.rate = cast("OpenVideo", self._video).rate
        self._tick = first.time_base or 1 / self.rate
        self._stored_size = first.height, first.width
        self.rotation = 90 * _turns_of(first)
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
        if self._video is None:
            raise ValueError(f"{self.name} is closed")
        result = np.empty((len(order), *self.size, 3), dtype=np.uint8)
        runs = list[list[int]]()
        for index in np.unique(order).tolist():
            if runs and self._follows(index, runs[-1][-1]):
                runs[-1].append(index)
            else:
                runs.append([index])
        with explain_decode_errors(self.name):
            for number, run in enumerate(runs, start=1):
                self._wanted = frozenset(self._table.times[index] for index in run)
                self._unread = {*self._wanted}
                self._is_left_after_run = number < len(runs)
                if not self._follows(run[0], self._at):
                    self._seek(run[0])
                for index in run:
                    result[order == index] = to_rgb(self._decode(index), self._stored_size)
        return result

    def _follows(self, index: int, last: float) -> bool:
        """Return whether a frame is decoded from where the last one was, without a leap."""
        if last >= index:
            return False
        following = int(last) + 1
        return following == index or self._table.key_of(following) == self._table.key_of(index)

    def _decode(self, index: int) -> VideoFrame:
        frame = self._decode_until(index)
        if frame is None:  # a keyframe that needs what is before it, as with intra refresh
            self._restart()
            frame = self._decode_until(index)
        if frame is None:
            raise OSError(f"its frame {index} of {len(self)} is damaged")
        return frame

    def _decode_until(self, index: int) -> VideoFrame | None:
        """Decode up to a frame; None if it does not come, or something is damaged on the way."""
        self._at = math.inf  # not known, if an error comes
        if self._keys:
            self._begin = self._keys[self._table.key_of(index)].pts
        for number, frame in self._decoded:
            if number >= index:
                self._at = number
                return frame if number == index else None
        return None

    def _decode_packets(
        self, video: OpenVideo, packets: Iterator[VideoPacket]
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Yield numbered frames up to a damaged one, behind the keyframe of the frame at work.

        H.264's frames that no other refers to are decoded only if they are wanted. HEVC's all are:
        there, frames of a higher layer may refer to them.
        """
        codec = video.stream.codec_context
        for packet in packets:
            pts, last = _time_of(packet), max(self._wanted)
            if codec.name == "h264":
                is_needed = pts is None or pts in self._wanted or pts > last
                codec.skip_frame = "DEFAULT" if is_needed else "NONREF"
            self._unread.discard(cast("int", pts))
            is_end = self._is_left_after_run and not self._unread
            # at its end, the decoder gives what would come after some more packets
            for frame in [*packet.decode(), *(video.stream.decode(None) if is_end else ())]:
                if frame.is_corrupt and frame.pts is not None and frame.pts >= self._begin:
                    return
                if frame.pts in self._numbers:
                    yield self._numbers[frame.pts], frame
            if is_end:
                return

    def _seek(self, index: int) -> None:
        """Go to the keyframe of a frame, or to one before it.

        A container may look for times of another kind, and find a keyframe before or behind it.
        """
        video = cast("OpenVideo", self._video)
        key = self._keys[self._table.key_of(index)] if self._keys else None
        for sought in (self._table.times[index], *key) if key else ():
            with contextlib.suppress(av.FFmpegError):
                video.container.seek(sought, stream=video.stream)
                packets = packets_of(video)
                first = next(packets, None)
                pts = _time_of(first) if first else None
                if first and key and pts is not None and first.is_keyframe and pts <= key.pts:
                    packets = itertools.chain([first], packets)
                    self._decoded = self._decode_packets(video, packets)
                    return
        self._restart()

    def _restart(self) -> OpenVideo:
        """Open the file again, at its beginning."""
        video = open_container(self._content)
        self.close()
        self._video = video
        self._unread = {*self._wanted}
        if self._keys:
            self._decoded = self._decode_packets(video, packets_of(video))
        else:
            self._decoded = enumerate(frames_of(video))
        return video

    def close(self) -> None:
        """Close the file and free the decoder; what is closed may be closed again."""
        if self._video is not None:
            self._video.container.close()
        self._video, self._decoded = None, iter(())

    def __del__(self) -> None:
        self.close()  # PyAV's container and its streams refer to each other
