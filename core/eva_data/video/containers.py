"""Video files by PyAV: opening, frame table, conversion of frames.

In MP4 and Matroska a packet of a modern codec is a frame, with the time at which it is shown: the
table needs no decoding. Elsewhere it may be none or two; such a file is decoded once and counted.
"""

import bisect
import contextlib
import io
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
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
from eva_data.video.source import UnreadableVideoError

# What FFmpeg may take a file for. It knows pictures, sounds, scripts and playlists too: these wait
# for what they name, and may name anything.
_KINDS = (
    "3g2,3gp,amv,asf,av1,avi,dv,flic,flv,gif,h263,h264,hevc,ivf,m4a,m4v,matroska,mj2,mjpeg,mov,"
    "mp4,mpeg,mpegts,mpegvideo,mxf,nsv,nut,obu,ogg,rm,roq,smk,swf,vc1,webm,wtv,yuv4mpegpipe"
)
_INDEXED = {"mov", "matroska", "avi", "flv"}  # whose packets have a length
_SEGMENT = bytes.fromhex("18538067")
_HEAD = 4096  # bytes
_TIMED = {"mov", "matroska", "flv"}  # which give each packet the time at which it is shown
_CODECS = {"h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg", "ffv1", "prores"}
_ONE_PICTURE = (0, 1)  # order of fields: unknown, progressive; else a packet may be half a frame
_LARGEST_EMPTY = 19  # bytes of a packet of MPEG-4 that repeats a frame and shows none
_SHOWN_BY_VP8 = 0x10  # bit of the first byte
_USUAL_RATE = Fraction(25)
Content = str | os.PathLike[str] | bytes  # path of a file, or its content

if TYPE_CHECKING:
    VideoPacket = Packet[VideoStream]
else:
    VideoPacket = Packet  # its class takes no parameters while it runs


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

    def claimed_size(self) -> int:
        """Bytes that the file should have by what it says of itself, as far as it was read."""
        if "matroska" in self.kinds:
            return _end_of_segment(self.head)
        if self.head.startswith(b"RIFF"):
            return 8 + int.from_bytes(self.head[4:8], "little")
        if "mov" in self.kinds:
            return max((entry.pos + entry.size for entry in self.stream.index_entries), default=0)
        return 0


def _end_of_segment(head: bytes) -> int:
    """Find the end of Matroska's outermost element, behind the header; 0 if it is open."""
    before, marker, after = head.partition(_SEGMENT)
    if not marker or not after or not after[0]:
        return 0
    length = 9 - after[0].bit_length()  # as many bytes as leading zeros and a one
    open_end = (1 << 7 * length) - 1
    size = int.from_bytes(after[:length], "big") & open_end
    return 0 if size == open_end else len(before) + len(marker) + length + size


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
    best = container.streams.best("video")
    chosen_stream = next(
        (stream for stream in moving if stream is best), moving[0] if moving else None
    )
    if chosen_stream is None or chosen_stream.codec_context is None:
        raise OSError("it has no images" if chosen_stream is None else "there is no decoder for it")
    for stream in container.streams:
        if stream is not chosen_stream:
            stream.discard = Discard.all  # sound is not even read
    chosen_stream.codec_context.thread_count = 1
    chosen_stream.codec_context.thread_type = "NONE"
    check_size(chosen_stream.codec_context.width, chosen_stream.codec_context.height)
    return chosen_stream


def check_size(width: int, height: int) -> None:
    """Refuse, by an OSError, frames of more pixels than `eva_data.images.max_pixels` permits."""
    if width * height > max_pixels():
        raise OSError(
            f"its frames have {width} x {height} pixels, more than {max_pixels():,}; if it is "
            f"meant, set {LIMIT}={width * height}"
        )


def to_rgb(frame: VideoFrame, stored_size: tuple[int, int]) -> NDArray[np.uint8]:
    """Convert a frame to RGB, upright, (H, W, 3), scaled to the height and width as stored."""
    height, width = stored_size
    rgb = _without_place_of_colours(frame).to_ndarray(
        format="rgb24",
        width=width,
        height=height,
        interpolation=Interpolation.BICUBIC,  # as in FFmpeg's own program
        threads=1,
    )
    return np.ascontiguousarray(np.rot90(cast("NDArray[np.uint8]", rgb), turns_of(frame)))


def turns_of(frame: VideoFrame) -> int:
    """Count the turns by 90 degrees counterclockwise to stand upright (phones film sideways)."""
    return round(frame.rotation / 90) % 4


def _without_place_of_colours(frame: VideoFrame) -> VideoFrame:
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


class Place(NamedTuple):
    """A packet of the file, the time at which its frame is shown and at which it is decoded.

    A decoder can begin with a key; what is not shown is only decoded for its successors.
    """

    number: int
    pts: int
    dts: int
    key: bool
    shown: bool


class FrameTable(NamedTuple):
    """The frames of a file in order of display: times in ticks, packets by time, keyframes.

    `places` has also what is decoded and not shown; it is empty if packets do not say which frames
    there are.
    """

    times: list[int]
    places: Mapping[int | None, Place]
    keys: list[Place]

    def start_of(self, time: int) -> Place:
        """Find the keyframe before a frame, as it is shown and not as it is stored."""
        return self.keys[bisect.bisect_right(self.keys, time, key=lambda packet: packet.pts) - 1]


def packets_of(video: OpenVideo) -> Iterator[VideoPacket]:
    """Read the packets that are left, from the first keyframe among them, and a last empty one.

    What is before a keyframe, in a recording that was cut, cannot be decoded. An OSError tells of
    a file that is encrypted, or ends before the place where it says that it does.
    """
    started = False
    for packet in _demuxed(video):
        if not started and packet.has_sidedata("encryption_info"):
            raise OSError("it is encrypted")
        if packet.is_corrupt and not _INDEXED.isdisjoint(video.kinds):
            break
        started = started or packet.is_keyframe or is_last(packet)
        if started:
            yield packet
    else:
        if video.size >= video.claimed_size():
            return
    raise OSError("it is truncated")


def _demuxed(video: OpenVideo) -> Iterator[VideoPacket]:
    # PyAV raises it at the end of a file with streams that appeared on the way
    with contextlib.suppress(IndexError):
        yield from video.container.demux(video.stream)


def frames_of(video: OpenVideo) -> Iterator[VideoFrame]:
    """Decode a file from its beginning.

    Damaged frames at the beginning or end of a recording that was cut are left out; an OSError or
    FFmpegError says what is damaged in between.
    """
    begun = damaged = False
    for packet in packets_of(video):
        for frame in packet.decode():
            check_size(frame.width, frame.height)
            if frame.is_corrupt:
                damaged = begun
                continue
            if damaged:
                raise OSError("it is damaged")
            begun = True
            yield frame
    if not begun:
        raise OSError("it has no frames")


def is_last(packet: VideoPacket) -> bool:
    """Whether it is the empty packet that makes the decoder give its last frames."""
    return not packet.size and packet.pts is None and packet.dts is None


def time_of(packet: VideoPacket) -> int | None:
    """Give the time at which its frame is shown, or decoded where the file says no more."""
    return packet.dts if packet.pts is None else packet.pts


def scan(video: OpenVideo) -> tuple[FrameTable, VideoFrame] | None:
    """Read all packets of a file at its beginning, and decode only the first frame.

    Returns:
        The table and the frame, or None if the packets do not say which frames there are.
    """
    kind = video.stream.codec_context.codec.canonical_name
    if not _has_one_frame_in_a_packet(video, kind):
        return None
    first: VideoFrame | None = None
    places: list[Place] = []
    for packet in packets_of(video):
        if first is None:
            first = next(iter(packet.decode()), None)
        if is_last(packet):
            continue
        pts = time_of(packet)
        if pts is None or _shows_nothing(packet, kind):
            return None
        dts = pts if packet.dts is None else packet.dts
        places.append(Place(len(places), pts, dts, packet.is_keyframe, not packet.is_discard))
    if first is None:
        return None
    check_size(first.width, first.height)
    keys = [packet for packet in places if packet.key]
    by_time: dict[int | None, Place] = {packet.pts: packet for packet in places}
    times = sorted(packet.pts for packet in places if packet.shown)
    reliable = (
        len(by_time) == len(places)
        and keys[0].pts <= times[0] == first.pts
        and not first.is_corrupt
        and all(a.pts < b.pts for a, b in itertools.pairwise(keys))
    )
    return (FrameTable(times, by_time, keys), first) if reliable else None


def _has_one_frame_in_a_packet(video: OpenVideo, kind: str) -> bool:
    codec = video.stream.codec_context
    if kind not in _CODECS or codec.field_order not in _ONE_PICTURE:
        return False
    # AVI has an order and no times: that is enough if frames are shown in the order of storage
    return not _TIMED.isdisjoint(video.kinds) or ("avi" in video.kinds and not codec.has_b_frames)


def _shows_nothing(packet: VideoPacket, kind: str) -> bool:
    if kind == "mpeg4":
        return packet.size <= _LARGEST_EMPTY
    return not packet.size or (kind == "vp8" and not memoryview(packet)[0] & _SHOWN_BY_VP8)


def count(video: OpenVideo) -> tuple[FrameTable, VideoFrame]:
    """Decode all frames of a file at its beginning: a table without packets, the first frame."""
    frames = frames_of(video)
    first = next(frames)
    times = [first.pts, *(frame.pts for frame in frames)]
    presentation_times = [time for time in times if time is not None]
    if len(presentation_times) < len(times) or any(
        a >= b for a, b in itertools.pairwise(presentation_times)
    ):
        tick = first.time_base or 1 / rate_of(video)
        presentation_times = [round(number / rate_of(video) / tick) for number in range(len(times))]
    return FrameTable(presentation_times, {}, []), first


def rate_of(video: OpenVideo) -> Fraction:
    """Give the frames a second, on average, or 25 if the file does not say."""
    return video.stream.average_rate or video.stream.guessed_rate or _USUAL_RATE
