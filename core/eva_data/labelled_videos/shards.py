"""Labelled videos in tar shards, as webdataset and video2dataset write them."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eva_data.checks.findings import Findings
from eva_data.classes import list_names
from eva_data.files import VIDEO_SUFFIXES
from eva_data.index import VIDEO_KIND, Names, Table
from eva_data.labelled_videos.lists import COLUMNS, Labels
from eva_data.labelled_videos.videos import LabelledVideos
from eva_data.tar import Member, group_members
from eva_data.tar_index import TarIndex, index_shards, table_of_members

logger = logging.getLogger(__name__)

_FIELDS = ("cls", *COLUMNS["label"])  # of JSON


def open_video_shards(shards: Sequence[Path], *, classes: Sequence[str] | None) -> LabelledVideos:
    """Look through tar shards for videos with labels, as webdataset and video2dataset write them.

    A sample is `KEY.mp4` with `KEY.cls` (a number or the name of a class), or with `KEY.json` that
    has a field for it.
    """
    table = index_shards(shards, _index_videos, Findings({}), kind=VIDEO_KIND)
    files, written = TarIndex(shards, table), [*Names(table, "labels")]
    first = dict[str, str]()  # where each label comes first; without one, "" does
    for index, label in enumerate(written):
        first.setdefault(label, files.sample_id(index))
    unlabelled = [files.sample_id(index) for index, label in enumerate(written) if not label]
    first.pop("", None)
    if not first:
        raise ValueError(
            f"no video with a label in {shards[0]} (and {len(shards) - 1} more shards): looked for "
            "KEY.mp4 with KEY.cls, or KEY.json that has a label"
        )
    if unlabelled:
        shown = list_names(unlabelled, 5)
        logger.warning("videos without a label of their own are left out: %s", shown)
    labels = Labels.among(first) if classes is None else Labels(classes)
    numbers = {label: labels.require(label, where) for label, where in first.items()}
    arrays = {name: table[name] for name in table if not name.startswith("labels.")}
    members = Table(arrays, table.about, kind=VIDEO_KIND)
    return LabelledVideos(
        TarIndex(shards, members.select(np.array(written) != "")),
        np.array([numbers[label] for label in written if label], np.int32),
        labels.classes(),
        unlisted=unlabelled,
    )


def _index_videos(shard: Path, _: Findings) -> Table:
    """Look through a shard for videos: arrays of `table_of_members`, and `labels.*`, the labels.

    A video has none, "", without a file of it, or behind another video of its key.
    """
    videos, labels = list[Member](), list[str]()
    with shard.open("rb") as stream:
        for members in group_members(shard, VIDEO_SUFFIXES | {".cls", ".json"}):
            label = ""
            for member in sorted(members, key=lambda member: member.suffix):
                if member.suffix in (".cls", ".json") and not label:
                    stream.seek(member.offset)
                    label = _label_of(member, stream.read(member.size), shard)
            for member in members:
                if member.suffix in VIDEO_SUFFIXES:
                    videos.append(member)
                    labels.append(label)
                    label = ""
    table = table_of_members(shard, videos, kind=VIDEO_KIND)
    arrays = {**table, **Names.collect(labels, "labels").arrays()}
    return Table(arrays, table.about, kind=VIDEO_KIND)


def _label_of(member: Member, content: bytes, shard: Path) -> str:
    try:
        label = content.decode("utf-8-sig").strip()
        fields = json.loads(label) if member.suffix == ".json" else {"cls": label}
        values = [fields.get(name) for name in _FIELDS]
    except (ValueError, RecursionError, AttributeError) as error:
        kind = member.suffix[1:]
        raise ValueError(f"{shard}:{member.name} is no {kind} with a label: {error}") from error
    value = next((candidate for candidate in values if candidate is not None), "")
    only = value[0] if isinstance(value, list) and len(value) == 1 else value  # "label": [3]
    return str(only).strip()
