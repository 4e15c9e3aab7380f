"""Which frames a file holds: from its packets, without decoding, where they say it reliably.

In MP4 and Matroska a packet of a modern codec is a frame, with the time at which it is shown.
Elsewhere it may be none (a frame that is never shown), two, or one without a time; such a file is
decoded once, and its frames are counted.
"""

import bisect
import itertools
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from eva_data.video.containers import OpenVideo, check_size

_CONTAINERS = {"mov", "mp4", "matroska", "webm"}
_CODECS = {"h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg", "ffv1", "prores"}
_ONE_PICTURE = (0, 1)  # order of fields: unknown, progressive; else a packet may be half a frame
_LARGEST_EMPTY = 19  # bytes of a packet of MPEG-4 that repeats a frame and shows none
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
        first: The first frame, decoded.
        places: Of all packets by their time, also of those that are decoded and not shown; empty
            if the packets do not say which frames there are.
        keys: Keyframes in order.
    """

    times: list[int]
    first: VideoFrame
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
    """
    started = False
    for packet in video.container.demux(video.stream):
        started = started or packet.is_keyframe or is_last(packet)
        if started:
            yield packet


def is_last(packet: VideoPacket) -> bool:
    """Whether it is the empty packet that makes the decoder give its last frames."""
    return not packet.size and packet.pts is None and packet.dts is None


def time_of(packet: VideoPacket) -> int | None:
    """Give the time at which its frame is shown, or decoded where the file says no more."""
    return packet.dts if packet.pts is None else packet.pts


def scan(video: OpenVideo) -> FrameTable | None:
    """Read all packets, and decode only until there is a frame.

    Args:
        video: The file, at its beginning; afterwards it is at its end.

    Returns:
        The table, or None if the packets do not say which frames there are.

    Raises:
        ValueError: If the file has no frame, or is encrypted.
    """
    codec = video.stream.codec_context
    kind = codec.codec.canonical_name
    reliable = (
        not _CONTAINERS.isdisjoint(video.container.format.name.split(","))
        and kind in _CODECS
        and codec.field_order in _ONE_PICTURE
    )
    first: VideoFrame | None = None
    places: list[Place] = []
    for packet in packets_of(video):
        if first is None:
            if packet.has_sidedata("encryption_info"):
                raise ValueError("it is encrypted")
            first = next(iter(packet.decode()), None)
        if is_last(packet):
            break
        pts = time_of(packet)
        if pts is None or not packet.size or (kind == "mpeg4" and packet.size <= _LARGEST_EMPTY):
            reliable = False
            if first is not None:
                return None
            continue
        dts = pts if packet.dts is None else packet.dts
        places.append(Place(len(places), pts, dts, packet.is_keyframe, not packet.is_discard))
    if first is None:
        raise ValueError("it has no frames")
    check_size(first.width, first.height)
    keys = [place for place in places if place.key]
    by_time: dict[int | None, Place] = {place.pts: place for place in places}
    times = sorted(place.pts for place in places if place.shown)
    reliable = (
        reliable
        and len(by_time) == len(places)
        and bool(keys)
        and times[:1] >= [keys[0].pts]
        and first.pts == times[0]
        and all(a.pts < b.pts for a, b in itertools.pairwise(keys))
    )
    return FrameTable(times, first, by_time, keys) if reliable else None


def count(video: OpenVideo) -> FrameTable:
    """Decode all frames.

    Args:
        video: The file, at its beginning; afterwards it is at its end.

    Returns:
        A table without packets.

    Raises:
        ValueError: If there is no frame.
    """
    first: VideoFrame | None = None
    times: list[int | None] = []
    for packet in packets_of(video):
        for frame in packet.decode():
            check_size(frame.width, frame.height)
            first = first or frame
            times.append(frame.pts)
    if first is None:
        raise ValueError("it has no frames")
    known = [time for time in times if time is not None]
    if len(known) < len(times) or any(a >= b for a, b in itertools.pairwise(known)):
        tick = first.time_base or 1 / rate_of(video)
        known = [round(number / rate_of(video) / tick) for number in range(len(times))]
    return FrameTable(known, first, {}, [])


def rate_of(video: OpenVideo) -> Fraction:
    """Give the frames a second, on average, or 25 if the file does not say."""
    return video.stream.average_rate or video.stream.guessed_rate or _USUAL_RATE
