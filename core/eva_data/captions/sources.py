"""Images with captions as samples: of lists, folders and shards."""

import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eva_data.captions.lists import (
    CAPTIONS,
    FIRST,
    LEFT_OUT,
    UnreadableCaptionError,
    explain_caption_errors,
    parse_captions,
    problem_of,
)
from eva_data.checks.findings import Findings
from eva_data.files import IMAGE_SUFFIXES, find_files, read_regular
from eva_data.images import read_encoded, read_image
from eva_data.index import CAPTION_KIND, FolderFiles, Names, Table
from eva_data.samples import Samples, View
from eva_data.tar import Member, TarIndex, group_members, table_of_members

TEXTS = ("text.offset", "text.size", "text.json")  # arrays of an index of shards
_TEXT_TYPES = (np.int64, np.int32, np.uint8)
_TEXT = ".txt"


class ListedCaptions(FolderFiles):
    """Images in files whose captions a list has; see `table_of_pairs`.

    A list of 12 million takes 1.3 GB, which forked workers share, and 4 GB more while it
    is read. With an index file all processes of a machine share it, and no list is read.
    """

    def __init__(self, root: Path, table: Table) -> None:
        super().__init__(root, table)
        self._texts = Names(table, CAPTIONS)
        self._below = os.path.join(os.path.abspath(root), "")  # noqa: PTH100, PTH118 (text)
        table.require_equal_lengths(FIRST, length=len(self) + 1)
        table.require_equal_lengths(f"{CAPTIONS}.ends", length=int(table[FIRST][-1]))

    def name(self, index: int) -> str:
        """Name an image by its path below the root; one outside of it by the complete path."""
        return os.path.normpath(self.names[index]).removeprefix(self._below)

    def captions(self, index: int) -> tuple[str, ...]:
        """See `CaptionedImages`."""
        begin, end = (int(position) for position in self.table[FIRST][index : index + 2])
        texts = tuple(self._texts[position] for position in range(begin, end))
        if not texts or any(map(problem_of, texts)):  # of an index that was changed
            raise UnreadableCaptionError(f"{self.sample_id(index)}: the index is damaged")
        return texts

    def checksum(self) -> int:
        """See `StoredFiles`; captions count."""
        value = self._texts.checksum() << 32 | super().checksum()
        return zlib.crc32(self.table[FIRST].data, zlib.crc32(value.to_bytes(8, "little")))


class FolderCaptions(FolderFiles):
    """Images with a text file of the same name beside each, which is read with its image."""

    def captions(self, index: int) -> tuple[str, ...]:
        """See `CaptionedImages`."""
        file = Path(self.sample_id(index)).with_suffix(_TEXT)
        with explain_caption_errors(str(file)):
            content = read_regular(file)
        return parse_captions(content, str(file))


def index_folder(folder: Path, left_out: Findings) -> Table:
    """Search a folder and its subfolders for images with text files: arrays `names.*`, sorted.

    `left_out` gains images and texts that are alone.
    """
    names = list(find_files(folder, IMAGE_SUFFIXES | {_TEXT}))
    texts = {name for name in names if name.endswith(_TEXT)}
    images = [name for name in names if not name.lower().endswith(_TEXT)]
    beside = {name: f"{name.rpartition('.')[0]}{_TEXT}" for name in images}
    for name, caption in beside.items():
        if caption not in texts:
            left_out.add("uncaptioned", str(folder / name))
    for caption in sorted(texts - {*beside.values()}):
        left_out.add("unpictured", str(folder / caption))
    names_with_text = Names.collect(name for name in images if beside[name] in texts)
    return Table(names_with_text.arrays(), kind=CAPTION_KIND)


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
        with explain_caption_errors(where):
            content = self.read_beside(index, offset, size)
        return parse_captions(content, where, is_json=bool(is_json), key=self._key)

    def checksum(self) -> int:
        """See `StoredFiles`; lengths of captions count."""
        return zlib.crc32(self.table[TEXTS[1]].data, super().checksum())


CaptionFiles = ListedCaptions | FolderCaptions | ShardCaptions


class CaptionedImages(Samples[CaptionFiles]):
    """A list of images, each with one caption or several; nothing is open.

    What can be seen from a list, a folder or the headers of a shard is looked at once, and what
    makes no pair is left out, counted and named. Images and captions in files of their own are read
    when they are asked for, with an OSError, which the engine answers with another pair.
    """

    def __init__(
        self, files: CaptionFiles | View[CaptionFiles], left_out: Findings | None = None
    ) -> None:
        super().__init__(files)
        self.left_out = Findings(LEFT_OUT) if left_out is None else left_out

    def image(self, index: int) -> Image.Image:
        """Read an image as RGB, as it is stored: EXIF's orientation is not applied."""
        files, position = self.locate(index)
        content = read_encoded(files, position)
        return read_image(content, upright=False, name=files.sample_id(position))

    def captions(self, index: int) -> tuple[str, ...]:
        """Read the captions of an image, one at least; else an UnreadableCaptionError."""
        files, position = self.locate(index)
        return files.captions(position)


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


def select(table: Table, keep: NDArray[np.bool_]) -> Table:
    """Take some of the pairs of a source, (number of pairs,), for an index."""
    if FIRST not in table:
        return table.select(keep)
    texts, counts = Names(table, CAPTIONS), np.diff(table[FIRST])
    kept_indices = np.flatnonzero(np.repeat(keep, counts)).tolist()
    arrays = {FIRST: np.concatenate([[0], np.cumsum(counts[keep])])}
    arrays |= Names.collect((texts[position] for position in kept_indices), CAPTIONS).arrays()
    images = Table({k: table[k] for k in table.keys() - arrays.keys()}).select(keep)
    return Table({**images, **arrays}, table.about, kind=CAPTION_KIND)
