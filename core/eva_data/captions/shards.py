"""Pairs in tar shards, as webdataset and img2dataset write them.

A pair is `KEY.jpg` (or another picture) with `KEY.txt`, or with `KEY.json` that has a caption. The
two need not be neighbours. A key with two pictures or two texts has no certain pair and is left
out. A text file is one caption, also if it has several lines; JSON may have a list of them.

Only headers are read to index a shard: 54 bytes a pair are kept, so 22 GB for 400 million, mapped
from an index file that all processes share. The captions stay in the shards: one is read, with
its picture, at its place. What only its content shows is found out then.
"""

import functools
import zlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eva_data.captions.captioned_images import CaptionedImages
from eva_data.captions.left_out import LONGEST, LeftOut
from eva_data.captions.texts import (
    UnreadableCaptionError,
    caption_of_text,
    captions_of_json,
)
from eva_data.files import IMAGE_SUFFIXES
from eva_data.images import check_encoded_size
from eva_data.index import CAPTION_KIND, Table
from eva_data.pools import ordered_map
from eva_data.tar import Member, TarIndex, find_members, table_of_members

TEXTS = ("text.offset", "text.size", "text.json")  # arrays of an index


class ShardCaptions(CaptionedImages):
    """Pairs in tar shards, each read at its place when it is asked for.

    Args:
        shards: The tar files.
        table: Their index, see `index_pairs`.
        key: Key of the captions in JSON; None finds it.
        left_out: What makes no pair.

    Raises:
        ValueError: If the index is of other shards, or damaged.
    """

    def __init__(
        self,
        shards: Sequence[Path],
        table: Table,
        *,
        key: str | None = None,
        left_out: LeftOut | None = None,
    ) -> None:
        super().__init__(left_out)
        self.members = TarIndex(shards, table)
        lengths = {name: len(table[name]) if name in table else 0 for name in TEXTS}
        if {*lengths.values()} != {len(self.members)}:
            raise ValueError(f"the index is damaged, it has captions of {lengths}: write it again")
        self.table, self._key = table, key

    def __len__(self) -> int:
        return len(self.members)

    def sample_id(self, index: int) -> str:
        """Name shard and member, `folder/00000.tar:key.jpg`."""
        return self.members.sample_id(self.require(index))

    def name(self, index: int) -> str:
        """Name a picture by its member in the shards."""
        return self.members.names[self.require(index)]

    def source(self, index: int) -> bytes:
        """Read a member."""
        size = self.members.size(self.require(index))
        check_encoded_size(size, self.sample_id(index))
        return self.members.read(index)

    def captions(self, index: int) -> tuple[str, ...]:
        """See `CaptionedImages`."""
        where = self.sample_id(index)
        offset, size, is_json = (int(self.table[name][index]) for name in TEXTS)
        if not 0 <= size <= LONGEST:
            raise UnreadableCaptionError(f"{where}: the index is damaged")
        try:
            content = self.members.read_beside(index, offset, size)
        except OSError as error:
            raise UnreadableCaptionError(f"the caption of {error}") from error
        if is_json:
            return captions_of_json(content, self._key, f"the JSON beside {where}")
        return (caption_of_text(content, where),)

    def checksum(self) -> int:
        """See `CaptionedImages`."""
        return zlib.crc32(self.members.table[TEXTS[1]].data, self.members.names.checksum())


class ShardPairs(NamedTuple):
    """The pairs of one shard.

    Attributes:
        pictures: The pictures.
        texts: Their captions.
        left_out: What makes no pair.
    """

    pictures: list[Member]
    texts: list[Member]
    left_out: LeftOut


def index_pairs(
    shards: Sequence[Path],
    *,
    key: str | None = None,
    workers: int = 1,
    keep_going: bool = False,
    left_out: LeftOut,
) -> Table:
    """Look through the headers of shards for pairs.

    Args:
        shards: The tar files.
        key: Key of the captions in JSON: text files are not looked at then. None takes `KEY.txt`,
            or else `KEY.json`.
        workers: Processes that look.
        keep_going: Leave out a damaged shard.
        left_out: Filled with what makes no pair.

    Returns:
        Arrays of `index_members`, and `text.offset`, `text.size` and `text.json` (1 for JSON).

    Raises:
        ValueError: If a shard is damaged or compressed, unless `keep_going`.
    """
    offsets, sizes, kinds = array("q"), array("i"), array("B")

    def pictures() -> Iterator[tuple[int, Member]]:
        work = functools.partial(pairs_of, key=key, keep_going=keep_going)
        found = ordered_map(work, shards, workers=workers, what="shards", chunk=1)
        for number, pairs in enumerate(found):
            left_out.merge(pairs.left_out)
            for picture, text in zip(pairs.pictures, pairs.texts, strict=True):
                offsets.append(text.offset)
                sizes.append(text.size)
                kinds.append(text.suffix == ".json")
                yield number, picture

    table = table_of_members(shards, pictures())
    texts: dict[str, Any] = dict(zip(TEXTS, map(np.asarray, (offsets, sizes, kinds)), strict=True))
    return Table({**table, **texts}, table.about, kind=CAPTION_KIND)


def pairs_of(shard: Path, *, key: str | None, keep_going: bool = False) -> ShardPairs:
    """Find the pairs of a shard, in the order of its pictures.

    Args:
        shard: The tar file.
        key: See `index_pairs`.
        keep_going: See `index_pairs`.

    Raises:
        ValueError: See `index_pairs`.
    """
    wanted = (".json",) if key else (".txt", ".json")
    pictures: dict[str, list[Member]] = {}
    texts: dict[str, list[Member]] = {}
    dotted: dict[
        str, str
    ] = {}  # a mask beside a picture (`key.seg.png`), or a picture that is lost
    left_out = LeftOut()
    try:
        for member in find_members(shard, None):
            if member.suffix in IMAGE_SUFFIXES:
                pictures.setdefault(member.key, []).append(member)
            elif member.suffix in wanted:
                texts.setdefault(member.key, []).append(member)
            elif f".{member.suffix.rpartition('.')[2]}" in IMAGE_SUFFIXES:
                dotted.setdefault(member.key, member.name)
    except ValueError as error:
        if not keep_going:
            raise
        left_out.add("damaged", str(error))
        return ShardPairs([], [], left_out)
    found = ShardPairs([], [], left_out)
    for name, members in pictures.items():
        beside = texts.pop(name, [])
        first = next((text for suffix in wanted for text in beside if text.suffix == suffix), None)
        problem = _problem(members, beside, first)
        if problem:
            left_out.add(problem, f"{shard}:{members[0].name}")
        elif first is not None:
            found.pictures.append(members[0])
            found.texts.append(first)
    for name in sorted(dotted.keys() - pictures.keys()):
        left_out.add("dotted", f"{shard}:{dotted[name]}")
    for members in texts.values():
        left_out.add("unpictured", f"{shard}:{members[0].name}")
    return found


def _problem(
    pictures: Sequence[Member], texts: Sequence[Member], first: Member | None
) -> str | None:
    if first is None:
        return "uncaptioned"
    if len(pictures) > 1 or len({text.suffix for text in texts}) < len(texts):
        return "duplicate"
    if not first.size:
        return "empty"
    return "long" if first.size > LONGEST else None
