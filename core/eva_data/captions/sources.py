"""Images with captions as samples: of lists, folders and shards, mixed, chosen and held out."""

import functools
import os
import zlib
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eva_data.captions.lists import (
    CAPTIONS,
    FIRST,
    LEFT_OUT,
    UnreadableCaptionError,
    parse_captions,
    problem_of,
)
from eva_data.checks.findings import Findings
from eva_data.files import (
    IMAGE_SUFFIXES,
    LISTED_IMAGE_SUFFIXES,
    find_files,
    require_regular_file,
)
from eva_data.holdout import held_out, stem
from eva_data.images import UnreadableImageError, check_encoded_size, read_image
from eva_data.index import CAPTION_KIND, Names, Table
from eva_data.manifests import Mixture, SourceEntry
from eva_data.pools import ordered_map
from eva_data.tables import LONGEST
from eva_data.tar import Member, TarIndex, find_members, table_of_members

TEXTS = ("text.offset", "text.size", "text.json")  # arrays of an index of shards
_TEXT = ".txt"


class CaptionedImages(ABC):
    """A list of images, each with one caption or several; nothing is open.

    What can be seen from a list, a folder or the headers of a shard is looked at once, and what
    makes no pair is left out, counted and named. Images and the captions in files of their own
    are read when they are asked for: what is wrong with one of them is an OSError then, which the
    engine answers with another pair.
    """

    def __init__(self, left_out: Findings | None = None) -> None:
        self.left_out = Findings(LEFT_OUT) if left_out is None else left_out

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def sample_id(self, index: int) -> str:
        """Name the place of an image, for messages."""

    def name(self, index: int) -> str:
        """Name an image without the place of its dataset, as a list would."""
        return self.sample_id(index)

    @abstractmethod
    def source(self, index: int) -> Path | bytes:
        """Find an image: the path of its file, or its content; an OSError if it cannot be read."""

    @abstractmethod
    def captions(self, index: int) -> tuple[str, ...]:
        """Read the captions of an image: one at least, none of them empty.

        Raises:
            UnreadableCaptionError: If there is none, or one is not text.
        """

    @abstractmethod
    def checksum(self) -> int:
        """Compute a number that changes with the pairs and their order.

        Where the data lie does not matter. The content of files and members is not read.
        """

    def image(self, index: int) -> Image.Image:
        """Read an image as RGB, as it is stored: EXIF's orientation is not applied.

        Raises:
            UnreadableImageError: If it cannot be read or decoded; an OSError that names it.
        """
        name = self.sample_id(index)
        try:
            return read_image(self.source(index), upright=False, name=name)
        except UnreadableImageError:
            raise
        except (OSError, ValueError) as error:  # a ValueError of a path with a zero byte
            raise UnreadableImageError(f"{name}: {error}") from error


class SourceCaptions(CaptionedImages):
    """The pairs of one source, whose images, below `root` if they are files, a table names."""

    def __init__(self, root: Path, table: Table, left_out: Findings | None = None) -> None:
        super().__init__(left_out)
        self.root, self.table, self.names = root, table, Names(table)

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """See `CaptionedImages`; a path below the folder, or a member of a shard."""
        return self.names[index]

    def sample_id(self, index: int) -> str:
        """Name an image by its path."""
        return str(self.source(index))

    def source(self, index: int) -> Path | bytes:
        """Name a file."""
        return self.root / self.names[index]

    def checksum(self) -> int:
        """See `CaptionedImages`."""
        return self.names.checksum()


class ListedCaptions(SourceCaptions):
    """Images in files whose captions a list has; see `table_of_pairs`.

    Images and captions are kept as bytes and ends, without an object for each: a list of 12 million
    takes 1.3 GB, which forked workers share, and twice as much more while it is read. With an index
    file all processes of a machine share it, and the list is not read again.
    """

    def __init__(self, root: Path, table: Table, left_out: Findings | None = None) -> None:
        super().__init__(root, table, left_out)
        self._texts = Names(table, CAPTIONS)
        table.require_equal_lengths(FIRST, length=len(self.names) + 1)
        table.require_equal_lengths(f"{CAPTIONS}.ends", length=int(table[FIRST][-1]))

    def name(self, index: int) -> str:
        """Name an image by its path below the root; one outside of it by the complete path."""
        path = os.path.normpath(self.names[index])
        below = os.path.join(os.path.abspath(self.root), "")  # noqa: PTH100, PTH118 (of millions)
        return path.removeprefix(below)

    def captions(self, index: int) -> tuple[str, ...]:
        """See `CaptionedImages`."""
        begin, end = (int(place) for place in self.table[FIRST][index : index + 2])
        texts = tuple(self._texts[place] for place in range(begin, end))
        if not texts or any(problem_of(text) for text in texts):  # of an index that was changed
            raise UnreadableCaptionError(f"{self.sample_id(index)}: the index is damaged")
        return texts

    def checksum(self) -> int:
        """See `CaptionedImages`."""
        value = self._texts.checksum() << 32 | self.names.checksum()
        return zlib.crc32(self.table[FIRST].data, zlib.crc32(value.to_bytes(8, "little")))


class FolderCaptions(SourceCaptions):
    """Images with a text file of the same name beside each, which is read with its image."""

    def captions(self, index: int) -> tuple[str, ...]:
        """See `CaptionedImages`."""
        file = (self.root / self.names[index]).with_suffix(_TEXT)
        try:
            require_regular_file(file)
            with file.open("rb") as stream:
                content = stream.read(LONGEST + 4)  # one byte more than a mark and the longest
        except OSError as error:
            raise UnreadableCaptionError(f"the caption cannot be read: {error}") from error
        return parse_captions(content, str(file))


def index_folder(folder: Path, left_out: Findings) -> Table:
    """Search a folder and its subfolders for images with text files: arrays `names.*`, sorted.

    `left_out` gains images and texts that are alone.
    """
    names = list(find_files(folder, IMAGE_SUFFIXES | {_TEXT}))
    texts = {name for name in names if name.endswith(_TEXT)}
    images = [name for name in names if not name.lower().endswith(_TEXT)]
    if not images:
        raise ValueError(
            f"{folder} holds no image ({LISTED_IMAGE_SUFFIXES}); shards are named, such as "
            "{00000..00999}.tar"
        )
    beside = {name: f"{name.rpartition('.')[0]}{_TEXT}" for name in images}
    for name, text in beside.items():
        if text not in texts:
            left_out.add("uncaptioned", str(folder / name))
    for text in sorted(texts - {*beside.values()}):
        left_out.add("unpictured", str(folder / text))
    found = Names.collect(name for name in images if beside[name] in texts)
    return Table(found.arrays(), kind=CAPTION_KIND)


class ShardCaptions(SourceCaptions):
    """Pairs in tar shards, as webdataset and img2dataset write them.

    A pair is `KEY.jpg` (or another image) with `KEY.txt`, or with `KEY.json` that has a caption.
    The two need not be neighbours. A key with two images or two texts has no certain pair and is
    left out. A text file is one caption, also if it has several lines; JSON may have a list.

    Only headers are read to index a shard: 54 bytes a pair are kept, so 22 GB for 400 million,
    mapped from an index file that all processes share. The captions stay in the shards: one is
    read, with its image, at its place.
    """

    def __init__(
        self,
        shards: Sequence[Path],
        table: Table,
        left_out: Findings | None = None,
        *,
        key: str | None = None,
    ) -> None:
        super().__init__(Path(), table, left_out)
        self.members, self._key = TarIndex(shards, table), key
        table.require_equal_lengths(*TEXTS, length=len(self.members))

    def sample_id(self, index: int) -> str:
        """Name shard and member, `folder/00000.tar:key.jpg`."""
        return self.members.sample_id(index)

    def source(self, index: int) -> bytes:
        """Read a member."""
        check_encoded_size(self.members.size(index), self.sample_id(index))
        return self.members.read(index)

    def captions(self, index: int) -> tuple[str, ...]:
        """See `CaptionedImages`."""
        where = f"the text beside {self.sample_id(index)}"
        offset, size, is_json = (int(self.table[name][index]) for name in TEXTS)
        try:
            content = self.members.read_beside(index, offset, min(size, LONGEST + 1))
        except OSError as error:
            raise UnreadableCaptionError(f"the caption of {error}") from error
        return parse_captions(content, where, is_json=bool(is_json), key=self._key)

    def checksum(self) -> int:
        """See `CaptionedImages`."""
        return zlib.crc32(self.table[TEXTS[1]].data, self.names.checksum())


def index_shards(
    shards: Sequence[Path],
    left_out: Findings,
    *,
    key: str | None = None,
    workers: int = 1,
    keep_going: bool = False,
) -> Table:
    """Look through the headers of shards for pairs.

    Args:
        shards: The tar files.
        left_out: Filled with what makes no pair.
        key: Key of the captions in JSON: text files are not looked at then. None takes `KEY.txt`,
            or else `KEY.json`.
        workers: Processes that look.
        keep_going: Leave out a damaged shard.

    Returns:
        Arrays of `table_of_members`, and `text.offset`, `text.size` and `text.json` (1 for JSON).
    """
    offsets, sizes, kinds = array("q"), array("i"), array("B")

    def images() -> Iterator[tuple[int, Member]]:
        work = functools.partial(pairs_of_shard, key=key, keep_going=keep_going)
        found = ordered_map(work, shards, workers=workers, what="shards", chunk=1)
        for number, (pairs, others) in enumerate(found):
            left_out.merge(others)
            for image, text in pairs:
                offsets.append(text.offset)
                sizes.append(text.size)
                kinds.append(text.suffix == ".json")
                yield number, image

    table = table_of_members(shards, images())
    texts: dict[str, Any] = dict(zip(TEXTS, map(np.asarray, (offsets, sizes, kinds)), strict=True))
    return Table({**table, **texts}, table.about, kind=CAPTION_KIND)


def pairs_of_shard(
    shard: Path, *, key: str | None, keep_going: bool = False
) -> tuple[list[tuple[Member, Member]], Findings]:
    """Find the pairs of a shard, in the order of its images, and the rest; see `index_shards`."""
    wanted = (".json",) if key else (".txt", ".json")
    images: dict[str, list[Member]] = {}
    texts: dict[str, list[Member]] = {}
    dotted: dict[str, str] = {}  # a mask beside an image (`key.seg.png`), or an image that is lost
    pairs, left_out = list[tuple[Member, Member]](), Findings(LEFT_OUT)
    try:
        for member in find_members(shard, None):
            if member.suffix in IMAGE_SUFFIXES:
                images.setdefault(member.key, []).append(member)
            elif member.suffix in wanted:
                texts.setdefault(member.key, []).append(member)
            elif f".{member.suffix.rpartition('.')[2]}" in IMAGE_SUFFIXES:
                dotted.setdefault(member.key, member.name)
    except ValueError as error:
        if not keep_going:
            raise
        left_out.add("damaged", str(error))
        return pairs, left_out
    for name, members in images.items():
        beside = sorted(texts.pop(name, []), key=lambda text: wanted.index(text.suffix))
        if problem := _problem(members, beside):
            left_out.add(problem, f"{shard}:{members[0].name}")
        else:
            pairs.append((members[0], beside[0]))
    for name in sorted(dotted.keys() - images.keys()):
        left_out.add("dotted", f"{shard}:{dotted[name]}")
    for members in texts.values():
        left_out.add("unpictured", f"{shard}:{members[0].name}")
    return pairs, left_out


def _problem(images: Sequence[Member], texts: Sequence[Member]) -> str | None:
    if not texts:
        return "uncaptioned"
    if len(images) > 1 or len({text.suffix for text in texts}) < len(texts):
        return "duplicate"
    if not texts[0].size:
        return "empty"
    return "long" if texts[0].size > LONGEST else None


class _View(CaptionedImages):
    """The pairs of other sources, in an order of its own."""

    @abstractmethod
    def _locate(self, index: int) -> tuple[CaptionedImages, int]:
        """Find the source of a pair, and its index there."""

    def sample_id(self, index: int) -> str:
        source, place = self._locate(index)
        return source.sample_id(place)

    def name(self, index: int) -> str:
        source, place = self._locate(index)
        return source.name(place)

    def source(self, index: int) -> Path | bytes:
        source, place = self._locate(index)
        return source.source(place)

    def captions(self, index: int) -> tuple[str, ...]:
        source, place = self._locate(index)
        return source.captions(place)


class MixedCaptions(_View):
    """The pairs of several sources, as the entries of a manifest mix them."""

    def __init__(self, sources: Sequence[CaptionedImages], entries: Sequence[SourceEntry]) -> None:
        super().__init__()
        self._mixture = Mixture(sources, entries)
        self.counts = self._mixture.counts
        for source in sources:
            self.left_out.merge(source.left_out)

    def __len__(self) -> int:
        return len(self._mixture)

    def _locate(self, index: int) -> tuple[CaptionedImages, int]:
        return self._mixture.locate(index)

    def checksum(self) -> int:
        """See `CaptionedImages`; weights and limits count."""
        return self._mixture.checksum()


class ChosenCaptions(_View):
    """Some of the images of a source, each with all of its captions."""

    def __init__(self, pairs: CaptionedImages, indices: Sequence[int]) -> None:
        super().__init__()
        self._pairs, self._places = pairs, np.asarray(indices, np.int64)

    def __len__(self) -> int:
        return len(self._places)

    def _locate(self, index: int) -> tuple[CaptionedImages, int]:
        return self._pairs, int(self._places[index])

    def checksum(self) -> int:
        """See `CaptionedImages`."""
        return zlib.crc32(self._places.tobytes(), self._pairs.checksum())


def hold_out(
    pairs: CaptionedImages, fraction: float, *, name: str
) -> tuple[ChosenCaptions, ChosenCaptions]:
    """Split the images of a source by their names without suffix, of shards by their keys.

    An image stays with all of its captions, and one that a manifest names several times is on one
    side, that of its first name; among those that are held out it comes once. See
    `eva_data.holdout`; `name` is that of the setting.

    Returns:
        The images to train on and those that are held out.
    """
    names = (stem(pairs.name(index)) for index in range(len(pairs)))
    if isinstance(pairs, MixedCaptions):  # whose sources may name an image below other folders
        first: dict[str, str] = {}
        places = (_place(pairs, index) for index in range(len(pairs)))
        names = (first.setdefault(place, one) for place, one in zip(places, names, strict=True))
    chosen = held_out(names, fraction, name=name)
    once = {_place(pairs, index): index for index in np.flatnonzero(chosen)[::-1].tolist()}
    return (
        ChosenCaptions(pairs, np.flatnonzero(~chosen).tolist()),
        ChosenCaptions(pairs, sorted(once.values())),
    )


def _place(pairs: CaptionedImages, index: int) -> str:
    return os.path.normpath(pairs.sample_id(index))


def select(table: Table, keep: NDArray[np.bool_]) -> Table:
    """Take some of the pairs of a source, (number of pairs,), for an index."""
    names = Names(table)
    arrays = dict(Names.collect(names[int(index)] for index in np.flatnonzero(keep)).arrays())
    if FIRST in table:
        texts, counts = Names(table, CAPTIONS), np.diff(table[FIRST])
        kept = np.flatnonzero(np.repeat(keep, counts))
        arrays |= Names.collect((texts[int(place)] for place in kept), CAPTIONS).arrays()
        arrays[FIRST] = np.concatenate([[0], np.cumsum(counts[keep])])
    for name in table.keys() - arrays.keys():
        arrays[name] = np.ascontiguousarray(table[name][keep])
    return Table(arrays, table.about, kind=CAPTION_KIND)
