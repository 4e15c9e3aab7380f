"""Checks of labelled videos: whether they decode, copies, leaks between sets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eva_data.checks.findings import Findings, Kind
from eva_data.index import INDEX_SUFFIX, VIDEO_KIND, Table
from eva_data.labelled_videos.lists import youtube_id
from eva_data.labelled_videos.sources import open_videos
from eva_data.labelled_videos.videos import LabelledVideos
from eva_data.pools import ordered_map

_OUT, _FIRST = "left out", "left out but the first"
KINDS = {
    "missing": Kind("video that is listed and not there", _OUT),
    "unreadable": Kind("video that cannot be read", _OUT),
    "died": Kind("video on which a process died", _OUT),
    "twice": Kind("video that is listed again", _FIRST),
    "copy": Kind("video with the content of another", _FIRST),
    "leak": Kind("video that --against holds too", _OUT),
    "two_classes": Kind("YouTube id that two classes have", "kept"),
    "same_id": Kind("YouTube id that comes again in its class", "kept", note=True),
    "short": Kind("video of fewer than 8 frames", "kept", note=True),
    "rotated": Kind("video that is stored turned", "kept", note=True),
    "unlisted": Kind("video that is there and not listed, or has no label", "kept", note=True),
    "unknown": Kind("class that training does not have", "kept"),
    "empty": Kind("class without a video", "kept", note=True),
}
_SHA256 = 32  # bytes
_SHORT = 8  # frames, below which a video is noted
_FACTS = ("frames", "bytes", "height", "width", "rotation")
Mask = NDArray[np.bool_]


class VideoFacts(NamedTuple):
    """Kind and detail of a problem, or the numbers of `_FACTS` and a digest of the content."""

    problem: str
    detail: str
    numbers: tuple[int, ...] = (0,) * len(_FACTS)
    sha256: bytes = bytes(_SHA256)


def _read(videos: LabelledVideos, index: int) -> VideoFacts:
    try:
        size, digest = videos.digest(index)
        with videos.open(index) as video:
            count = len(video)
            video.frames(sorted({0, count // 2, count - 1}))
            return VideoFacts("", "", (count, size, *video.size, video.rotation), digest)
    except OSError as error:
        message = str(error).removeprefix(f"cannot read {videos.sample_id(index)}")
        return VideoFacts("unreadable", message.removeprefix(" as a video").lstrip(": "))
    except Exception as error:  # whatever a decoder raises: hours of work are not lost for a file
        return VideoFacts("unreadable", f"{type(error).__name__}: {error}")


def read_videos(
    videos: LabelledVideos, findings: Findings, keep: Mask, *, workers: int
) -> dict[str, NDArray[Any]]:
    """Read the videos that are kept so far, and find copies.

    The frames of each are counted, and the first, the middle and the last are decoded. `keep` loses
    what cannot be read, and all but the first of each content.

    Returns:
        `frames`, `bytes`, `height`, `width`, `rotation`, (number of videos,), and `sha256`, (number
        of videos, 32).
    """
    facts = {name: np.zeros(len(videos), np.int64) for name in _FACTS}
    digests = np.zeros((len(videos), _SHA256), np.uint8)
    first: dict[bytes, int] = {}
    places = np.flatnonzero(keep).tolist()
    died = VideoFacts("died", "the process that read it died: a fault of the decoder, or no memory")
    read = ordered_map(
        _read, places, workers=workers, title="videos", died=lambda _: died, shared=(videos,)
    )
    for index, result in zip(places, read, strict=True):
        name = videos.name(index)
        keep[index] = not result.problem
        if result.problem:
            findings.add(result.problem, name, result.detail)
            continue
        for fact, number in zip(_FACTS, result.numbers, strict=True):
            facts[fact][index] = number
        digests[index] = np.frombuffer(result.sha256, np.uint8)
        if facts["frames"][index] < _SHORT:
            findings.add("short", name, f"{facts['frames'][index]} frames")
        if facts["rotation"][index]:
            findings.add("rotated", name, f"by {facts['rotation'][index]} degrees")
        earlier = first.setdefault(result.sha256, index)
        if earlier != index:
            findings.add("copy", name, _two(videos, earlier, index))
            keep[index] = False
    return {**facts, "sha256": digests}


def find_in_list(videos: LabelledVideos, findings: Findings, keep: Mask) -> None:
    """Find what a list shows alone: videos listed again, which go, clips of one YouTube video."""
    counts = np.bincount(videos.labels, minlength=len(videos.classes))
    empty = [name for name, count in zip(videos.classes, counts, strict=True) if not count]
    findings.add_many("empty", len(empty), empty)
    names, ids = dict[str, int](), dict[str, int]()
    for index in range(len(videos)):
        name = videos.sample_id(index)
        first = names.setdefault(name, index)
        if first != index:
            findings.add("twice", videos.name(index), _two(videos, first, index))
            keep[index] = False
            continue
        identifier = youtube_id(name)
        if identifier is not None and (first := ids.setdefault(identifier, index)) != index:
            same = videos.labels[first] == videos.labels[index]
            findings.add(
                "same_id" if same else "two_classes", identifier, _two(videos, first, index)
            )


def _two(videos: LabelledVideos, first: int, index: int) -> str:
    first_class, two = (videos.classes[videos.labels[position]] for position in (first, index))
    return f"{videos.name(first)} ({first_class}) and {videos.name(index)} ({two})"


def find_leaks(
    videos: LabelledVideos,
    facts: Mapping[str, NDArray[Any]],
    other: str,
    findings: Findings,
    keep: Mask,
    *,
    classes: Path | None,
) -> None:
    """Find videos that another dataset, at a place, holds too, by YouTube id and by content.

    Those of a list need not be there. Without `facts`, see `read_videos`, only ids are compared.
    `keep` loses what is found.
    """
    others = open_videos(other, classes=classes, may_lack=True)
    names = [*map(others.name, range(len(others))), *others.missing]
    ids = {identifier for name in names if (identifier := youtube_id(name))}
    leaks = np.array([youtube_id(videos.name(i)) in ids for i in range(len(videos))], bool)
    if facts:
        contents = _contents(others, other, {*facts["bytes"].tolist()})
        leaks |= [digest.tobytes() in contents for digest in facts["sha256"]]
    for index in np.flatnonzero(leaks & keep).tolist():
        findings.add("leak", videos.name(index), f"it is in {other}")
        keep[index] = False


def _contents(others: LabelledVideos, split: str, lengths: set[int]) -> set[bytes]:
    """Compute digests of the videos of another dataset that may have one of these lengths."""
    if split.endswith(INDEX_SUFFIX) and "sha256" in (
        table := Table.open(Path(split), kind=VIDEO_KIND)
    ):
        return {digest.tobytes() for digest in table["sha256"].reshape(-1, _SHA256)}
    digests = set()
    for index in range(len(others)):
        try:
            file = Path(others.sample_id(index))
            if not file.is_file() or file.stat().st_size in lengths:
                digests.add(others.digest(index)[1])
        except OSError:
            continue  # it cannot be read, so it cannot be the same
    return digests
