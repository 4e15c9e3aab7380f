"""Checks of labelled videos: whether they decode, copies, leaks between sets, rare classes."""

import contextlib
import functools
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eva_data.checks.findings import Findings, Kind
from eva_data.index import INDEX_SUFFIX, VIDEO_KIND, Table
from eva_data.labelled_videos.lists import youtube_id
from eva_data.labelled_videos.opening import SHA256, open_videos, video_names
from eva_data.labelled_videos.sources import VideoFiles, VideoShards
from eva_data.pools import share, surviving_map, with_shared

_OUT, _FIRST = "left out", "left out but the first"
KINDS = {
    "missing": Kind("video that is listed and not there", _OUT),
    "unreadable": Kind("video that cannot be read", _OUT),
    "sound": Kind("file without images", _OUT),
    "died": Kind("video on which a process died", _OUT),
    "twice": Kind("video that is listed again", _FIRST),
    "relabelled": Kind("video that is listed again, with another label", _FIRST),
    "copy": Kind("video with the content of another", _FIRST),
    "relabelled_copy": Kind("video with the content of another, of another class", _FIRST),
    "leak": Kind("video that --against holds too", _OUT),
    "two_classes": Kind("YouTube id that two classes have", "kept"),
    "same_id": Kind("YouTube id that comes again in its class", "kept", note=True),
    "short": Kind("video of fewer frames than --least-frames", "kept", note=True),
    "odd_size": Kind("frames of an unusual size", "kept", note=True),
    "rotated": Kind("video that is stored turned", "kept", note=True),
    "unlisted": Kind("video that is there and not listed, or has no label", "kept", note=True),
    "empty": Kind("class without a video", "kept", note=True),
    "rare": Kind("class with less than a tenth of the median", "kept", note=True),
}
NO_PICTURES = "it has no images"  # what `open_video` says of a file of sound
_SIDES = 64, 4096  # usual sides in pixels
_ASPECT = 4  # most usual ratio of the sides
_RARE = 10  # times fewer than the median
Videos = VideoFiles | VideoShards
Mask = NDArray[np.bool_]


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
    sha256: bytes = bytes(SHA256)


def read_facts(videos: Videos, indices: Sequence[int], *, workers: int) -> Iterator[VideoFacts]:
    """Read videos, in order, with a progress bar on a terminal.

    Each is opened, its frames are counted, and the first, the middle and the last are decoded.

    Args:
        videos: The videos.
        indices: Which of them.
        workers: Number of processes.
    """
    yield from surviving_map(
        functools.partial(with_shared, _read),
        indices,
        workers=workers,
        what="videos",
        died=_died,
        initializer=share,
        initial=(videos,),
    )


def _died(index: int) -> VideoFacts:
    return VideoFacts("died", "the process that read it died: a fault of the decoder, or no memory")


def _read(videos: Videos, index: int) -> VideoFacts:
    try:
        size, digest = videos.digest(index)
        with videos.open(index) as video:
            count = len(video)
            video.frames(sorted({0, count // 2, count - 1}))
            return VideoFacts("", "", count, video.size, video.rotation, size, digest)
    except OSError as error:
        text = str(error).removeprefix(f"cannot read {videos.sample_id(index)}")
        text = text.removeprefix(" as a video").lstrip(": ")
        return VideoFacts("sound" if NO_PICTURES in text else "unreadable", text)
    except Exception as error:  # whatever a decoder raises: hours of work are not lost for a file
        return VideoFacts("unreadable", f"{type(error).__name__}: {error}")


def read_videos(
    videos: Videos, findings: Findings, keep: Mask, *, least_frames: int, workers: int
) -> dict[str, NDArray[Any]]:
    """Read the videos that are kept so far, and find copies.

    Args:
        videos: The videos.
        findings: Gains the findings.
        keep: Loses what cannot be read, and all but the first of each content.
        least_frames: Frames below which a video is noted as short.
        workers: Number of processes.

    Returns:
        `frames`, `bytes`, `height` and `width` of each video, (number of videos,), and `sha256`,
        (number of videos, 32).
    """
    number = len(videos)
    facts: dict[str, NDArray[Any]] = {
        "frames": np.zeros(number, np.int32),
        "bytes": np.zeros(number, np.int64),
        "height": np.zeros(number, np.int32),
        "width": np.zeros(number, np.int32),
        "sha256": np.zeros((number, SHA256), np.uint8),
    }
    places = np.flatnonzero(keep).tolist()
    for index, found in zip(places, read_facts(videos, places, workers=workers), strict=True):
        name = videos.name(index)
        if found.problem:
            findings.add(found.problem, name, found.detail)
            keep[index] = False
            continue
        facts["frames"][index], facts["bytes"][index] = found.frames, found.length
        facts["height"][index], facts["width"][index] = found.size
        facts["sha256"][index] = np.frombuffer(found.sha256, np.uint8)
        small, large = sorted(found.size)
        if found.frames < least_frames:
            findings.add("short", name, f"{found.frames} frames")
        if small < _SIDES[0] or large > _SIDES[1] or large > _ASPECT * small:
            findings.add("odd_size", name, f"{found.size[1]} x {found.size[0]} px")
        if found.rotation:
            findings.add("rotated", name, f"by {found.rotation} degrees")
    _find_copies(videos, facts["sha256"], findings, keep)
    return facts


def find_in_list(videos: Videos, findings: Findings, keep: Mask) -> None:
    """Find what a list shows alone: rare classes, videos listed again, clips of one YouTube video.

    Args:
        videos: The videos.
        findings: Gains the findings.
        keep: Loses what is listed again.
    """
    counts = np.bincount(videos.labels, minlength=len(videos.classes))
    median = np.median(counts[counts > 0])
    for name, count in zip(videos.classes, counts.tolist(), strict=True):
        if not count:
            findings.add("empty", name)
        elif count * _RARE < median:
            findings.add("rare", name, f"{count} videos, and the median is {median:g}")
    names: dict[str, int] = {}
    ids: dict[str, int] = {}
    for index in range(len(videos)):
        name = videos.sample_id(index)
        if (first := names.setdefault(name, index)) != index:
            kind = "twice" if _same_class(videos, first, index) else "relabelled"
            findings.add(kind, videos.name(index), _two(videos, first, index))
            keep[index] = False
            continue
        found = youtube_id(name)
        if found is not None and (first := ids.setdefault(found, index)) != index:
            kind = "same_id" if _same_class(videos, first, index) else "two_classes"
            findings.add(kind, found, _two(videos, first, index))


def _find_copies(
    videos: Videos, digests: NDArray[np.uint8], findings: Findings, keep: Mask
) -> None:
    """Find videos of equal content among those that are kept."""
    places = np.flatnonzero(keep)
    _, first, content = np.unique(_whole(digests[places]), return_index=True, return_inverse=True)
    for index, earlier in zip(places.tolist(), places[first[content]].tolist(), strict=True):
        if index != earlier:
            kind = "copy" if _same_class(videos, earlier, index) else "relabelled_copy"
            findings.add(kind, videos.name(index), _two(videos, earlier, index))
            keep[index] = False


def find_leaks(
    videos: Videos,
    facts: Mapping[str, NDArray[Any]],
    other: str,
    findings: Findings,
    keep: Mask,
    *,
    classes: Path | None,
) -> bool:
    """Find videos that another list holds too.

    Args:
        videos: The videos.
        facts: See `read_videos`; nothing if they were not read.
        other: Place where the others are named. Their contents are compared if they are there.
        findings: Gains the findings.
        keep: Loses what is found.
        classes: See `open_videos`.

    Returns:
        Whether contents were compared, and not YouTube ids alone.

    Raises:
        ValueError: If the other list cannot be read.
    """
    ids = {found for name in video_names(other, classes=classes) if (found := youtube_id(name))}
    leaks = np.array([youtube_id(videos.name(i)) in ids for i in range(len(videos))], bool)
    known = _contents(other, set(facts["bytes"].tolist()), classes=classes) if facts else None
    if known is not None:
        leaks |= np.isin(_whole(facts["sha256"]), known)
    for index in np.flatnonzero(leaks & keep).tolist():
        findings.add("leak", videos.name(index), f"it is in {other}")
        keep[index] = False
    return known is not None


def _contents(
    other: str, lengths: Collection[int], *, classes: Path | None
) -> NDArray[np.bytes_] | None:
    """Digests of the videos of another list that have one of these lengths; None if unknown."""
    if other.endswith(INDEX_SUFFIX):
        table = Table.open(Path(other), kind=VIDEO_KIND)
        return _whole(np.array(table["sha256"]).reshape(-1, SHA256)) if "sha256" in table else None
    try:
        videos = open_videos(other, classes=classes)
    except ValueError:  # a list whose videos are elsewhere, or that needs its classes
        return None
    if not isinstance(videos, VideoFiles):
        return None
    digests = []
    for index in range(len(videos)):
        file = Path(videos.sample_id(index))
        with contextlib.suppress(OSError):
            if file.stat().st_size in lengths:
                with file.open("rb") as stream:
                    digests.append(hashlib.file_digest(stream, "sha256").digest())
    return np.array(digests, dtype=f"S{SHA256}")


def _whole(digests: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """View digests as one string each: all of one length, so that no zero at an end is lost."""
    return np.ascontiguousarray(digests).view(f"S{SHA256}").reshape(-1)


def _same_class(videos: Videos, first: int, index: int) -> bool:
    return bool(videos.labels[first] == videos.labels[index])


def _two(videos: Videos, first: int, index: int) -> str:
    one, two = (videos.classes[videos.labels[place]] for place in (first, index))
    return f"{videos.name(first)} ({one}) and {videos.name(index)} ({two})"
