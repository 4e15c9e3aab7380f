"""Facts about a list of videos that no single one of them shows: copies, leaks, rare classes."""

import contextlib
import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eva_data.checks.findings import Findings
from eva_data.index import INDEX_SUFFIX, VIDEO_KIND, Table
from eva_data.labelled_videos.lists import youtube_id
from eva_data.labelled_videos.opening import SHA256, open_videos, video_names
from eva_data.labelled_videos.sources import VideoFiles, VideoShards
from eva_runs.commands import say

Videos = VideoFiles | VideoShards
Mask = np.ndarray[Any, np.dtype[np.bool_]]
_RARE = 10  # times fewer than the median


def find_rare_classes(videos: Videos, findings: Findings) -> None:
    """Note classes with no video, or few.

    Args:
        videos: The videos.
        findings: Gains the findings.
    """
    counts = np.bincount(videos.labels, minlength=len(videos.classes))
    filled = counts[counts > 0]
    for name, count in zip(videos.classes, counts.tolist(), strict=True):
        if not count:
            findings.add("empty", name)
        elif count * _RARE < np.median(filled):
            findings.add("rare", name, f"{count} videos, and the median is {np.median(filled):g}")


def find_ids(videos: Videos, findings: Findings, keep: Mask) -> None:
    """Find videos that are listed again, and clips of one YouTube video.

    Args:
        videos: The videos.
        findings: Gains the findings.
        keep: Loses what is listed again.
    """
    names: dict[str, int] = {}
    ids: dict[str, int] = {}
    for index in range(len(videos)):
        name = videos.sample_id(index)
        first = names.setdefault(name, index)
        if first != index:
            same = videos.labels[first] == videos.labels[index]
            findings.add(
                "twice" if same else "relabelled", videos.name(index), _two(videos, first, index)
            )
            keep[index] = False
            continue
        found = youtube_id(name)
        if found is not None and (first := ids.setdefault(found, index)) != index:
            same = videos.labels[first] == videos.labels[index]
            findings.add("same_id" if same else "two_classes", found, _two(videos, first, index))


def find_copies(videos: Videos, digests: NDArray[np.uint8], findings: Findings, keep: Mask) -> None:
    """Find videos of equal content.

    Args:
        videos: The videos.
        digests: SHA-256 of each, (number of videos, 32).
        findings: Gains the findings.
        keep: Which videos are compared; loses all but the first of each content.
    """
    places = np.flatnonzero(keep)
    _, first, content = np.unique(_whole(digests[places]), return_index=True, return_inverse=True)
    for index, earlier in zip(places.tolist(), places[first[content]].tolist(), strict=True):
        if index != earlier:
            same = videos.labels[earlier] == videos.labels[index]
            kind = "copy" if same else "relabelled_copy"
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
) -> None:
    """Find videos that another list holds too.

    Args:
        videos: The videos.
        facts: Length in `bytes` and digest as `sha256` of each; nothing if they were not read.
        other: Place where the others are named. Their contents are compared if they are there.
        findings: Gains the findings.
        keep: Loses what is found.
        classes: See `open_videos`.

    Raises:
        ValueError: If the other list cannot be read.
    """
    ids = {found for name in video_names(other, classes=classes) if (found := youtube_id(name))}
    leaks = np.array([youtube_id(videos.name(i)) in ids for i in range(len(videos))], bool)
    if facts:
        known = _contents(other, set(facts["bytes"].tolist()), classes=classes)
        if known is None:
            say(f"{other}: compared by YouTube ids only; its index would show equal contents too")
        else:
            leaks |= np.isin(_whole(facts["sha256"]), known)
    for index in np.flatnonzero(leaks & keep).tolist():
        findings.add("leak", videos.name(index), f"it is in {other}")
        keep[index] = False


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


def _two(videos: Videos, first: int, index: int) -> str:
    one, two = (videos.classes[videos.labels[place]] for place in (first, index))
    return f"{videos.name(first)} ({one}) and {videos.name(index)} ({two})"
