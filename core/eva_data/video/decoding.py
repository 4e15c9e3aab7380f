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
from collections import deque
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


def frames_of(packets: Iterator[VideoPacket]) -> Iterator[VideoFrame]:
    """Decode the packets of a file from its beginning.

    Damaged frames at the beginning or end of a recording that was cut are left out; an OSError or
    FFmpegError says what is damaged in between.
    """
    begun = damaged = False
    for packet in packets:
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


class _Index(NamedTuple):
    """The frames of a file in order of display: the first, and times in ticks, also of keyframes.

    There are no keyframes where packets do not say which frames there are.
    """

    first: VideoFrame
    times: list[int]
    keys: list[int]

    def key_before(self, index: int) -> int | None:
        """Find the time of the keyframe before a frame, as it is shown and not as stored."""
        later = bisect.bisect_right(self.keys, self.times[index])
        return self.keys[later - 1] if self.keys else None


def _index_packets(video: OpenVideo) -> _Index | None:
    """List the frames by their packets, of which the first is decoded; None if it cannot be."""
    codec = video.stream.codec_context
    kind = codec.codec.canonical_name
    # AVI has an order and no times: that is enough if frames are shown in the order of storage
    timed = _TIMED & video.kinds or ("avi" in video.kinds and not codec.has_b_frames)
    if not timed or kind not in _CODECS or codec.field_order not in _ONE_IMAGE:
        return None
    first: VideoFrame | None = None
    every, times, keys = set[int](), list[int](), list[int]()
    for packet in packets_of(video):
        first = first or next(iter(packet.decode()), None)
        if _is_last(packet):
            continue
        pts = _time_of(packet)
        is_empty = packet.size <= (_LARGEST_EMPTY if kind == "mpeg4" else 0)
        if pts is None or pts in every or is_empty:
            return None
        every.add(pts)
        if packet.is_keyframe:
            keys.append(pts)
        if not packet.is_discard:  # of what is decoded and not shown
            times.append(pts)
    reliable = (
        first is not None
        and not first.is_corrupt
        and keys[0] <= min(times) == first.pts
        and keys == sorted(keys)
    )
    return _Index(first, sorted(times), keys) if first and reliable else None


def _index_frames(video: OpenVideo) -> _Index:
    """List the frames by decoding all of them."""
    frames = frames_of(packets_of(video))
    first = next(frames)
    times = [first.pts, *(frame.pts for frame in frames)]
    if any(a is None or b is None or a >= b for a, b in itertools.pairwise([*times, math.inf])):
        tick = first.time_base or 1 / video.rate
        times = [round(number / video.rate / tick) for number in range(len(times))]
    return _Index(first, cast("list[int]", times), [])


class VideoFile(VideoSource):
    """A video file that one thread decodes, see `open_video`.

    All packets are read once when it is opened. Frames are decoded from the keyframe before them;
    from the beginning where packets do not say which frames there are, or where a keyframe needs
    what is before it, as with intra refresh.
    """

    _video: OpenVideo | None = None
    _reads = 0  # how often the decoder was sent somewhere

    def __init__(self, content: Content, *, name: str | None = None) -> None:
        self.name = name or ("the video" if isinstance(content, bytes) else os.fspath(content))
        self._content = content
        try:
            with explain_decode_errors(self.name):
                self._index = _index_packets(self._reopen()) or _index_frames(self._reopen())
        except BaseException:
            self.close()
            raise
        first = self._index.first
        self.rate = cast("OpenVideo", self._video).rate
        self._tick = first.time_base or 1 / self.rate
        self._stored_size = first.height, first.width
        self.rotation = 90 * _turns_of(first)
        self.size = self._stored_size[::-1] if self.rotation % 180 else self._stored_size

    def __len__(self) -> int:
        return len(self._index.times)

    def times(self, indices: Sequence[int]) -> list[float]:
        """Give the times of frames, in seconds from the first frame's."""
        times = self._index.times
        return [float((times[self.checked(i)] - times[0]) * self._tick) for i in indices]

    def iterate_frames(self, indices: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """See `VideoSource`; frames of one keyframe are decoded together."""
        wanted = sorted({self.checked(index) for index in indices})
        self._require_open()
        with explain_decode_errors(self.name):
            for key, group in itertools.groupby(wanted, key=self._index.key_before):
                missing = deque(group)
                while missing:
                    yield from self._decode_missing(missing, key)

    def _decode_missing(
        self, missing: deque[int], key: int | None
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield frames of one keyframe, and take them out of `missing`.

        Where others are read, or the file is closed, between two of them, it ends: the decoder is
        elsewhere then, or gone.
        """
        # a container may look for times of another kind, and end behind the keyframe
        for start in (self._index.times[missing[0]], key, None):
            self._require_open()
            self._reads += 1
            read = self._reads
            for index, frame in self._decode({*missing}, key, start):
                if index != missing[0]:  # which has not come
                    break
                yield missing.popleft(), to_rgb(frame, self._stored_size)
                if self._video is None or self._reads != read:
                    return
            if not missing:
                return
        raise OSError(f"its frame {missing[0]} of {len(self)} is damaged")

    def _require_open(self) -> None:
        if self._video is None:
            raise ValueError(f"{self.name} is closed")

    def _decode(
        self, indices: set[int], key: int | None, start: int | None
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Yield frames of one keyframe with their indexes, up to one behind it that is damaged.

        They are read from the time `start`, or from the beginning: None, or where there are no
        keyframes. H.264's frames that no other refers to are decoded only if they are wanted.
        HEVC's all are: there, frames of a higher layer may refer to them.
        """
        if key is None:
            frames = frames_of(packets_of(self._reopen()))
            numbered = enumerate(itertools.islice(frames, max(indices) + 1))
            yield from ((index, frame) for index, frame in numbered if index in indices)
            return
        packets = self._packets_from(start)
        first = next(packets, None)
        if first is None or (_time_of(first) or 0) > key:
            return
        numbers = {self._index.times[index]: index for index in indices}
        unread = {*numbers}
        for packet in itertools.chain([first], packets):
            codec, time = packet.stream.codec_context, _time_of(packet)
            if codec.name == "h264":
                codec.skip_frame = "DEFAULT" if time is None or time in numbers else "NONREF"
            unread.discard(cast("int", time))
            # at its end, the decoder gives what would come after some more packets
            for frame in [*packet.decode(), *(() if unread else packet.stream.decode(None))]:
                if frame.is_corrupt and frame.pts is not None and frame.pts >= key:
                    return
                if frame.pts in numbers:
                    yield numbers[frame.pts], frame
            if not unread:
                return

    def _packets_from(self, start: int | None) -> Iterator[VideoPacket]:
        """Seek to a time and read packets, none where it cannot be; None is the beginning."""
        video = cast("OpenVideo", self._video)
        if start is None:
            return packets_of(self._reopen())
        try:
            video.container.seek(start, stream=video.stream)
        except av.FFmpegError:
            return iter(())
        return packets_of(video)

    def _reopen(self) -> OpenVideo:
        """Open the file, at its beginning."""
        video = open_container(self._content)
        self.close()
        self._video = video
        return video

    def close(self) -> None:
        """Close the file and free the decoder; what is closed may be closed again."""
        if self._video is not None:
            self._video.container.close()
        self._video = None

    def __del__(self) -> None:
        self.close()  # PyAV's container and its streams refer to each other
