"""Pairs of image and caption in tar shards: their index, and captions by it."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eva_data.captions.lists import read_captions
from eva_data.checks.findings import Findings
from eva_data.files import IMAGE_SUFFIXES
from eva_data.index import CAPTION_KIND, Table
from eva_data.tar import Member, group_members
from eva_data.tar_index import TarIndex, table_of_members

TEXTS = ("text.offset", "text.size", "text.json")  # arrays of an index of shards
_TEXT_TYPES = (np.int64, np.int32, np.uint8)


class ShardCaptions(TarIndex):
    """Pairs in tar shards, as webdataset and img2dataset write them.

    A pair is `KEY.jpg` (or another image) with `KEY.txt`, or with `KEY.json` that has a caption.
    The two need not be neighbours. A key with two images or two texts has no certain pair and is
    left out. A text file is one caption, also if it has several lines; JSON may have a list.

    An index keeps 54 bytes a pair, so 22 GB for 400 million, mapped from a file that all processes
    share. The captions stay in the shards: one is read, with its image, at its place.
    """

    def __init__(self, shards: Sequence[Path], table: Table, *, key: str | None = None) -> None:
        super().__init__(shards, table)
        self._key = key
        table.require_equal_lengths(*TEXTS, length=len(self))

    def captions(self, index: int) -> tuple[str, ...]:
        """See `CaptionedImages`."""
        where = f"the text beside {self.sample_id(index)}"
        offset, size, is_json = (int(self.table[name][index]) for name in TEXTS)
        return read_captions(
            lambda: self.read_beside(index, offset, size),
            where,
            is_json=bool(is_json),
            key=self._key,
        )

    def checksum(self) -> int:
        """See `StoredFiles`; lengths of captions count."""
        return zlib.crc32(self.table[TEXTS[1]].data, super().checksum())


def index_pairs(
    shard: Path, left_out: Findings, *, key: str | None, keep_going: bool = False
) -> Table:
    """Look through the headers of a shard for pairs, in the order of its images.

    `left_out` gains what makes none. `key` is that of the captions in JSON, and text files are not
    looked at then; None takes `KEY.txt`, or else `KEY.json`. `keep_going` leaves out a damaged
    shard.

    Returns:
        Arrays of `table_of_members`, and `text.offset`, `text.size` and `text.json` (1 for JSON).
    """
    allowed, pairs = (".json",) if key else (".txt", ".json"), list[tuple[Member, Member]]()
    try:
        samples = group_members(shard, None)
    except ValueError as error:
        if not keep_going:
            raise
        left_out.add("damaged", str(error))
        samples = []
    for members in samples:
        images = [member for member in members if member.suffix in IMAGE_SUFFIXES]
        texts = [member for suffix in allowed for member in members if member.suffix == suffix]
        # a mask is beside an image (`key.seg.png`); others are images that are lost
        dotted = [m for m in members if Path(m.name).suffix.lower() in IMAGE_SUFFIXES]
        problem = _problem(images, texts) if images else "dotted" if dotted else "unpictured"
        if problem is None:
            pairs.append((images[0], texts[0]))
        elif images or dotted or texts:
            left_out.add(problem, f"{shard}:{(images or dotted or texts)[0].name}")
    pairs.sort(key=lambda pair: pair[0].offset)
    table = table_of_members(shard, (image for image, _ in pairs), kind=CAPTION_KIND)
    places = [(text.offset, text.size, text.suffix == ".json") for _, text in pairs]
    columns = np.array(places, np.int64).reshape(-1, len(TEXTS)).T
    texts_of_pairs = {
        name: column.astype(kind)
        for name, column, kind in zip(TEXTS, columns, _TEXT_TYPES, strict=True)
    }
    return Table({**table, **texts_of_pairs}, table.about, kind=CAPTION_KIND)


def _problem(images: Sequence[Member], texts: Sequence[Member]) -> str | None:
    if not texts:
        return "uncaptioned"
    if len(images) > 1 or len({member.suffix for member in texts}) < len(texts):
        return "duplicate"
    return None if texts[0].size else "empty"
