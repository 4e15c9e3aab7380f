"""Which frames a file holds: from its packets, without decoding, where they say it reliably.

In MP4 and Matroska a packet of a modern codec is a frame, with the time at which it is shown.
Elsewhere it may be none (a frame that is never shown), two, or one without a time; such a file is
decoded once, and its frames are counted.
"""

import bisect
import contextlib
import itertools
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from eva_data.video.containers import OpenVideo, check_size

# Containers that give each packet the time at which it is shown.
_TIMED = {"mov", "matroska", "flv"}
_CODECS = {"h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg", "ffv1", "prores"}
_ONE_PICTURE = (0, 1)  # order of fields: unknown, progressive; else a packet may be half a frame
_LARGEST_EMPTY = 19  # bytes of a packet of MPEG-4 that repeats a frame and shows none
_SHOWN_BY_VP8 = 0x10  # bit of the first byte
_USUAL_RATE = Fraction(25)

if TYPE_CHECKING:
    VideoPacket = Packet[VideoStream]
else:
    VideoPacket = Packet  # its class takes no parameters while it runs


class Place(NamedTuple):
    """A packet of the file.

    Attributes:
        number: How many are before it in the file.
        pts: Time at which its frame is shown, in ticks.
        dts: Time at which it is decoded.
        key: A decoder can begin with it.
        shown: Its frame belongs to the video; others are only decoded for their successors.
    """

    number: int
    pts: int
    dts: int
    key: bool
    shown: bool


class FrameTable(NamedTuple):
    """The frames of a file in order of display.

    Attributes:
        times: Their times in ticks, increasing.
        places: Places of all packets by their time, also of those that are decoded and not shown;
            empty if the packets do not say which frames there are.
        keys: Keyframes in order.
    """

    times: list[int]
    places: Mapping[int | None, Place]
    keys: list[Place]

    def start_of(self, time: int) -> Place:
        """Find the packet with which a decoder begins to reach a frame: the keyframe before it.

        A frame that is shown before a keyframe may need the one before that, also if it is stored
        behind it.
        """
        return self.keys[bisect.bisect_right(self.keys, time, key=lambda place: place.pts) - 1]


def packets_of(video: OpenVideo) -> Iterator[VideoPacket]:
    """Read the packets that are left, from the first keyframe among them, and a last empty one.

    What is before a keyframe, in a recording that was cut, cannot be decoded.

    Raises:
        OSError: If the file is encrypted, or ends before the place where it says that it does.
    """
    started = False
    for packet in _demuxed(video):
        if not started and packet.has_sidedata("encryption_info"):
            raise OSError("it is encrypted")
        if packet.is_corrupt and video.indexed:
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

    Frames that are damaged because the recording was cut, at its beginning or its end, are left
    out.

    Raises:
        av.FFmpegError: If a packet cannot be decoded.
        OSError: If the file is truncated, or a frame is damaged or too large.
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
    """Read all packets, and decode only until there is a frame.

    Args:
        video: The file, at its beginning; afterwards it is at its end.

    Returns:
        The table and the first frame, or None if the packets do not say which frames there are.

    Raises:
        av.FFmpegError: If the first frame cannot be decoded.
        OSError: If the file is truncated, encrypted or has no frame.
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
        raise OSError("it has no frames")
    check_size(first.width, first.height)
    keys = [place for place in places if place.key]
    by_time: dict[int | None, Place] = {place.pts: place for place in places}
    times = sorted(place.pts for place in places if place.shown)
    reliable = (
        len(by_time) == len(places)
        and keys[0].pts <= times[0] == first.pts
        and not first.is_corrupt
        and all(a.pts < b.pts for a, b in itertools.pairwise(keys))
    )
    return (FrameTable(times, by_time, keys), first) if reliable else None


def _has_one_frame_in_a_packet(video: OpenVideo, kind: str) -> bool:
    codec, containers = video.stream.codec_context, video.container.format.name.split(",")
    if kind not in _CODECS or codec.field_order not in _ONE_PICTURE:
        return False
    # AVI has an order and no times: that is enough if frames are shown in the order of storage
    return not _TIMED.isdisjoint(containers) or ("avi" in containers and not codec.has_b_frames)


def _shows_nothing(packet: VideoPacket, kind: str) -> bool:
    if kind == "mpeg4":
        return packet.size <= _LARGEST_EMPTY
    return not packet.size or (kind == "vp8" and not memoryview(packet)[0] & _SHOWN_BY_VP8)


def count(video: OpenVideo) -> tuple[FrameTable, VideoFrame]:
    """Decode all frames.

    Args:
        video: The file, at its beginning; afterwards it is at its end.

    Returns:
        A table without packets, and the first frame.

    Raises:
        av.FFmpegError: If a packet cannot be decoded.
        OSError: If the file is truncated, damaged or has no frame.
    """
    frames = frames_of(video)
    first = next(frames)
    times = [first.pts, *(frame.pts for frame in frames)]
    known = [time for time in times if time is not None]
    if len(known) < len(times) or any(a >= b for a, b in itertools.pairwise(known)):
        tick = first.time_base or 1 / rate_of(video)
        known = [round(number / rate_of(video) / tick) for number in range(len(times))]
    return FrameTable(known, {}, []), first


def rate_of(video: OpenVideo) -> Fraction:
    """Give the frames a second, on average, or 25 if the file does not say."""
    return video.stream.average_rate or video.stream.guessed_rate or _USUAL_RATE
