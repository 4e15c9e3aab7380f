"""Opening of video files, and what every reader of them checks and converts (PyAV)."""

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, cast

import av
import av.filter
import numpy as np
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

from eva_data.files import require_regular_file
from eva_data.images import LIMIT, max_pixels
from eva_data.video.video_source import UnreadableVideoError

# What FFmpeg may take a file for. It knows pictures, sounds, scripts and playlists too: these wait
# for what they name, and may name anything.
_KINDS = (
    "3g2,3gp,amv,asf,av1,avi,dv,flic,flv,gif,h263,h264,hevc,ivf,m4a,m4v,matroska,mj2,mjpeg,mov,"
    "mp4,mpeg,mpegts,mpegvideo,mxf,nsv,nut,obu,ogg,rm,roq,smk,swf,vc1,webm,wtv,yuv4mpegpipe"
)
_INDEXED = {"mov", "matroska", "avi", "flv"}
_SEGMENT = bytes.fromhex("18538067")
_HEAD = 4096  # bytes
Content = str | os.PathLike[str] | bytes  # path of a file, or its content


class OpenVideo(NamedTuple):
    """An open file and the stream of its pictures.

    Attributes:
        container: The file; closing it frees the decoder.
        stream: Its best stream of moving pictures, which one thread decodes.
        size: Bytes of the file.
        head: Its first bytes.
    """

    container: InputContainer
    stream: VideoStream
    size: int
    head: bytes

    def close(self) -> None:
        """Close the file and free the decoder."""
        self.container.close()

    @property
    def indexed(self) -> bool:
        """Whether the container says how long each packet is."""
        return not _INDEXED.isdisjoint(self.container.format.name.split(","))

    def claimed_size(self) -> int:
        """Bytes that the file should have by what it says of itself, as far as it was read."""
        if "matroska" in self.container.format.name:
            return _end_of_segment(self.head)
        if self.head.startswith(b"RIFF"):
            return 8 + int.from_bytes(self.head[4:8], "little")
        if "mov" in self.container.format.name:
            return max((entry.pos + entry.size for entry in self.stream.index_entries), default=0)
        return 0


def _end_of_segment(head: bytes) -> int:
    """Find the end of Matroska's outermost element, behind the header; 0 if it is open."""
    before, found, after = head.partition(_SEGMENT)
    if not found or not after or not after[0]:
        return 0
    length = 9 - after[0].bit_length()  # as many bytes as leading zeros and a one
    open_end = (1 << 7 * length) - 1
    size = int.from_bytes(after[:length], "big") & open_end
    return 0 if size == open_end else len(before) + len(found) + length + size


def name_of(content: Content, name: str | None) -> str:
    """Name a video in messages: by its given name, its path, or its kind."""
    if name is not None:
        return name
    return "the given bytes" if isinstance(content, bytes) else os.fspath(content)


@contextlib.contextmanager
def explained(name: str, *, after: Callable[[], str] = str) -> Iterator[None]:
    """Turn what PyAV raises into a sentence that names the video.

    Args:
        name: The video.
        after: Says how far it could be read.

    Raises:
        UnreadableVideoError: In place of the library's or the system's error.
    """
    try:
        yield
    except UnreadableVideoError:
        raise
    except (av.FFmpegError, OSError) as error:
        raise UnreadableVideoError(
            f"cannot read {name} as a video{after()}: {_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, av.InvalidDataError | av.EOFError):
        return "it is damaged or not a video"
    if isinstance(error, av.FFmpegError) and error.strerror:
        return error.strerror
    return str(error)


def open_pictures(content: Content) -> OpenVideo:
    """Open a file and choose the stream of its pictures.

    A picture that is attached to the file, such as the cover of a record, is not a video.

    Args:
        content: Path of a file, or its content.

    Raises:
        av.FFmpegError: If it is damaged or not a video.
        OSError: If it is missing, empty, not a file, or has no pictures.
    """
    source: str | io.BytesIO
    if isinstance(content, bytes):
        source, size, head = io.BytesIO(content), len(content), content[:_HEAD]
    else:
        require_regular_file(path := Path(content))
        # a name such as "a:b.mp4" would be taken for a protocol
        source, size = f"file:{os.fspath(content)}", path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEAD)
    if not size:
        raise OSError("it is empty")
    options = {
        "format_whitelist": _KINDS,
        "protocol_whitelist": "none" if isinstance(content, bytes) else "file",
    }
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
    moving = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic
    ]
    if not moving:
        raise OSError("it has no pictures")
    best = container.streams.best("video")
    chosen = next((stream for stream in moving if stream is best), moving[0])
    if chosen.codec_context is None:
        raise OSError("there is no decoder for it")
    for stream in container.streams:
        if stream is not chosen:
            stream.discard = Discard.all  # sound is not even read
    chosen.codec_context.thread_count = 1
    chosen.codec_context.thread_type = "NONE"
    check_size(chosen.codec_context.width, chosen.codec_context.height)
    return chosen


def check_size(width: int, height: int) -> None:
    """Refuse frames of more pixels than `eva_data.images.max_pixels` permits.

    Raises:
        OSError: If they are larger.
    """
    if width * height > max_pixels():
        raise OSError(
            f"its frames have {width} x {height} pixels, more than {max_pixels():,}; if it is "
            f"meant, set {LIMIT}={width * height}"
        )


def to_rgb(frame: VideoFrame, stored_size: tuple[int, int]) -> NDArray[np.uint8]:
    """Convert a decoded frame.

    Args:
        frame: The frame.
        stored_size: Height and width before it is turned; frames of a video that changes its size
            are scaled to it.

    Returns:
        (H, W, 3), RGB, upright.
    """
    height, width = stored_size
    rgb = _without_place_of_colours(frame).to_ndarray(
        format="rgb24",
        width=width,
        height=height,
        interpolation=Interpolation.BICUBIC,  # as in FFmpeg's own program and torchcodec
        threads=1,
    )
    return upright(cast("NDArray[np.uint8]", rgb), frame.rotation)


def _without_place_of_colours(frame: VideoFrame) -> VideoFrame:
    """Leave out where between the pixels their colours were measured, as torchcodec does.

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
    place = graph.add("setparams", "chroma_location=unspecified")
    graph.link_nodes(source, place, graph.add("buffersink")).configure()
    graph.vpush(frame)
    return graph.vpull()


def upright(rgb: NDArray[np.uint8], rotation: float) -> NDArray[np.uint8]:
    """Turn a frame as its display matrix says (phones film sideways).

    Args:
        rgb: (H, W, 3).
        rotation: Degrees counterclockwise, a multiple of 90.
    """
    return np.ascontiguousarray(np.rot90(rgb, quarter_turns(rotation)))


def quarter_turns(rotation: float) -> int:
    """Count the turns by 90 degrees, 0 to 3, counterclockwise."""
    return round(rotation / 90) % 4
