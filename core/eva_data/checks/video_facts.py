"""Facts about many videos: whether they open and decode, how long and how large they are."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from eva_data.labelled_videos.sources import VideoFiles, VideoShards
from eva_data.pools import surviving_map

NO_PICTURES = "it has no pictures"  # what `open_video` says of a file of sound


class VideoFacts(NamedTuple):
    """Result of reading a video.

    Attributes:
        problem: `unreadable`, `sound` (a file without pictures), `died` (the process that read
            it), or nothing.
        detail: Why it cannot be used.
        frames: Number of its frames.
        size: Height and width in pixels.
        rotation: Degrees by which it is turned to stand upright.
        length: Bytes of its content.
        sha256: Their digest.
    """

    problem: str = ""
    detail: str = ""
    frames: int = 0
    size: tuple[int, int] = (0, 0)
    rotation: int = 0
    length: int = 0
    sha256: bytes = bytes(32)


def read_facts(
    videos: VideoFiles | VideoShards, indices: Sequence[int], *, workers: int
) -> Iterator[VideoFacts]:
    """Read videos, in order, with a progress bar on a terminal.

    Each is opened, its frames are counted, and the first, the middle and the last are decoded.

    Args:
        videos: The videos.
        indices: Which of them.
        workers: Number of processes.
    """
    yield from surviving_map(
        _read,
        indices,
        workers=workers,
        what="videos",
        died=_died,
        initializer=_begin,
        initial=(videos,),
    )


_videos: VideoFiles | VideoShards  # what this process reads


def _begin(videos: VideoFiles | VideoShards) -> None:
    global _videos
    _videos = videos


def _died(index: int) -> VideoFacts:
    return VideoFacts("died", "the process that read it died: a fault of the decoder, or no memory")


def _read(index: int) -> VideoFacts:
    try:
        size, digest = _videos.digest(index)
        with _videos.open(index) as video:
            count = len(video)
            video.frames(sorted({0, count // 2, count - 1}))
            return VideoFacts("", "", count, video.size, video.rotation, size, digest)
    except OSError as error:
        text = str(error).removeprefix(f"cannot read {_videos.sample_id(index)}")
        text = text.removeprefix(" as a video").lstrip(": ")
        return VideoFacts("sound" if NO_PICTURES in text else "unreadable", text)
    except Exception as error:  # whatever a decoder raises: hours of work are not lost for a file
        return VideoFacts("unreadable", f"{type(error).__name__}: {error}")
