"""Videos in tar shards with their labels, as webdataset and video2dataset write them.

A sample is `KEY.mp4` with `KEY.cls` (a number or the name of a class), or with `KEY.json` that has
a field for it. Where classes are given, a caption (`KEY.txt`, or a field of the JSON) may name one.
"""

import hashlib
import json
import logging
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from eva_data.files import LISTED_VIDEO_SUFFIXES, VIDEO_SUFFIXES
from eva_data.index import VIDEO_KIND, Table
from eva_data.labelled_videos.entries import Labels, label_text, labels_of
from eva_data.labelled_videos.labelled_videos import LabelledVideos
from eva_data.labelled_videos.placing import Tally
from eva_data.labelled_videos.tables import COLUMNS
from eva_data.tar import Member, TarIndex, find_members, table_of_members
from eva_data.video.source import Backend, UnreadableVideoError, VideoSource, open_video

logger = logging.getLogger(__name__)

_LABELS = (".cls", ".json", ".txt")  # in the order in which they count
_FIELDS = ("cls", *COLUMNS["label"])
_LONGEST = 1_000_000  # bytes of a label


class VideoShards(LabelledVideos):
    """Videos in tar shards, each read at its place when it is asked for.

    Args:
        members: The videos.
        labels: Label of each, (number of videos,).
        classes: Names of the labels.
        backend: See `open_video`.
        unlisted: Videos without a label.
    """

    def __init__(
        self,
        members: TarIndex,
        labels: NDArray[np.int32],
        classes: Sequence[str],
        *,
        backend: Backend,
        unlisted: Iterable[str] = (),
    ) -> None:
        super().__init__(classes, labels, unlisted=unlisted)
        self.members, self._backend = members, backend

    def name(self, index: int) -> str:
        """Name a video by its member in the shards."""
        if not 0 <= index < len(self):
            raise IndexError(f"no video {index} among {len(self)}")
        return self.members.names[index]

    def sample_id(self, index: int) -> str:
        """Name shard and member, `folder/shard-0000.tar:key.mp4`."""
        self.name(index)
        return self.members.sample_id(index)

    def read(self, index: int) -> bytes:
        """Read an encoded video.

        Raises:
            UnreadableVideoError: If it cannot be read.
        """
        self.name(index)
        try:
            return self.members.read(index)
        except OSError as error:
            raise UnreadableVideoError(f"cannot read {error}") from error

    def digest(self, index: int) -> tuple[int, bytes]:
        """Read a video's content: its bytes, and their SHA-256.

        Raises:
            OSError: If it cannot be read.
        """
        content = self.read(index)
        return len(content), hashlib.sha256(content).digest()

    def open(self, index: int) -> VideoSource:
        """See `LabelledVideos`."""
        return open_video(self.read(index), name=self.sample_id(index), backend=self._backend)


def open_video_shards(
    shards: Sequence[Path], *, classes: Sequence[str] | None, backend: Backend
) -> VideoShards:
    """Look through tar shards for videos with labels.

    Args:
        shards: The tar files.
        classes: Names in the order of the labels; None sorts those in the shards, or takes their
            numbers.
        backend: See `open_video`.

    Raises:
        ValueError: If a shard is damaged or compressed, there is no video with a label in any, or a
            label is not of a class; the message names the member.
    """
    search = _Search(classes is not None)
    found = ((number, m) for number, shard in enumerate(shards) for m in search.through(shard))
    table = table_of_members(shards, found)
    if search.unlabelled:
        logger.warning(
            "%s videos have no label and are left out, such as %s",
            f"{len(search.unlabelled):,}", search.unlabelled[0],
        )  # fmt: skip
    if not search.codes:
        others = f" (and {len(shards) - 1} more shards)" if len(shards) > 1 else ""
        raise ValueError(
            f"no video with a label in {shards[0]}{others}: looked for KEY.mp4 "
            f"({LISTED_VIDEO_SUFFIXES}) with KEY.cls, or KEY.json that has a label"
        )
    labels = labels_of(search.first) if classes is None else Labels(classes)
    label_of = [labels.of(text, search.first[text]) for text in search.texts]
    values = np.array(label_of, np.int32)[np.frombuffer(search.codes, np.int32)]
    arrays = {**table, "label": values}
    members = TarIndex(shards, Table(arrays, table.about, kind=VIDEO_KIND))
    return VideoShards(
        members, values, labels.classes(), backend=backend, unlisted=search.unlabelled
    )


class _Search:
    """Videos of shards and what their labels say.

    Args:
        captions: Whether a caption may be a label.
    """

    def __init__(self, captions: bool) -> None:
        self._captions = captions
        self.codes = array("i")  # of the texts, one for each video
        self.texts: dict[str, int] = {}
        self.first: dict[str, str] = {}  # where each text came first
        self.unlabelled = list[str]()

    def through(self, shard: Path) -> Iterator[Member]:
        """Yield the videos of a shard that have a label, whose codes are noted."""
        videos: dict[str, Member] = {}
        again = Tally()
        labels: dict[str, tuple[int, str]] = {}  # key -> rank of its source, text
        with shard.open("rb") as stream:
            for member in find_members(shard, VIDEO_SUFFIXES | {*_LABELS}):
                if member.suffix in VIDEO_SUFFIXES:
                    if videos.setdefault(member.key, member) is not member:
                        again.add(member.name)
                    continue
                rank = _LABELS.index(member.suffix)
                text = self._label(stream, member, f"{shard}:{member.name}")
                if text and rank < labels.get(member.key, (len(_LABELS), ""))[0]:
                    labels[member.key] = rank, text
        again.warn("%s has %s videos under keys of others, which are left out: %s", shard)
        for key, member in videos.items():
            where = f"{shard}:{member.name}"
            if key not in labels:
                self.unlabelled.append(where)
                continue
            text = labels[key][1]
            self.first.setdefault(text, where)
            self.codes.append(self.texts.setdefault(text, len(self.texts)))
            yield member

    def _label(self, stream: BinaryIO, member: Member, where: str) -> str:
        if member.suffix == ".txt" and not self._captions:
            return ""
        stream.seek(member.offset)
        content = stream.read(min(member.size, _LONGEST))
        try:
            text = content.decode("utf-8-sig").strip()
            if member.suffix != ".json":
                return text
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where} is not {member.suffix[1:]}: {error}") from error
        if not isinstance(fields, dict):
            raise ValueError(f"{where} is not an object of JSON with a label")
        names = (*_FIELDS, "caption") if self._captions else _FIELDS
        return next((text for name in names if (text := label_text(fields.get(name)))), "")
