"""Images with captions as samples: of lists, folders and shards, mixed, chosen and held out."""

import functools
import os
import zlib
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eva_data.captions.lists import (
    CAPTIONS,
    FIRST,
    LeftOut,
    UnreadableCaptionError,
    parse_captions,
    problem_of,
)
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

    Args:
        left_out: What makes no pair.
    """

    def __init__(self, left_out: LeftOut | None = None) -> None:
        self.left_out = LeftOut() if left_out is None else left_out

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def sample_id(self, index: int) -> str:
        """Name the place of an image, for messages."""

    @abstractmethod
    def source(self, index: int) -> Path | bytes:
        """Find an image: the path of its file, or its content.

        Raises:
            OSError: If it cannot be read.
        """

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

    def name(self, index: int) -> str:
        """Name an image without the place of its dataset, as a list would."""
        return self.sample_id(index)

    def image(self, index: int) -> Image.Image:
        """Read an image, as it is stored: EXIF's orientation is not applied.

        Returns:
            The image, RGB.

        Raises:
            UnreadableImageError: If it cannot be read or decoded; an OSError that names it.
        """
        name = self.sample_id(index)
        try:
            return read_image(self.source(index), upright=False, name=name)
        except UnreadableImageError:
            raise
        except (OSError, ValueError) as error:  # a ValueError of a path with a zero byte
            text = f"{error}" if name in str(error) else f"{name}: {error}"
            raise UnreadableImageError(text) from error


class SourceCaptions(CaptionedImages):
    """The pairs of one source, whose images a table names.

    Args:
        table: Arrays `names.*`, and those of the kind of source.
        left_out: What makes no pair.
    """

    def __init__(self, table: Table, left_out: LeftOut | None = None) -> None:
        super().__init__(left_out)
        self.table, self.names = table, Names(table)

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """See `CaptionedImages`; a path below the folder, or a member of a shard."""
        return self.names[index]

    def checksum(self) -> int:
        """See `CaptionedImages`."""
        return self.names.checksum()


class ListedCaptions(SourceCaptions):
    """Images in files whose captions a list has.

    Images and captions are kept as bytes and ends, without an object for each: a list of 12 million
    takes 1.3 GB, which forked workers share, and twice as much more while it is read. With an index
    file all processes of a machine share it, and the list is not read again.

    Args:
        root: Folder of relative paths.
        table: See `table_of_pairs`.
        left_out: What makes no pair.

    Raises:
        ValueError: If the table is damaged.
    """

    def __init__(self, root: Path, table: Table, left_out: LeftOut | None = None) -> None:
        super().__init__(table, left_out)
        self.root, self._texts = root, Names(table, CAPTIONS)
        table.require_equal_lengths(FIRST, length=len(self.names) + 1)
        table.require_equal_lengths(f"{CAPTIONS}.ends", length=int(table[FIRST][-1]))

    def sample_id(self, index: int) -> str:
        """Name an image by its path."""
        return str(self.source(index))

    def name(self, index: int) -> str:
        """Name an image by its path below the root; one outside of it by the complete path."""
        path = os.path.normpath(self.names[index])
        below = os.path.join(os.path.abspath(self.root), "")  # noqa: PTH100, PTH118 (of millions)
        return path.removeprefix(below)

    def source(self, index: int) -> Path:
        """Name a file."""
        return self.root / self.names[index]

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
    """Images with a text file of the same name beside each, which is read with its image.

    Args:
        folder: The folder, searched with all its subfolders.
        table: The images, if they are known; see `index_folder`.
        left_out: What makes no pair.
    """

    def __init__(self, folder: Path, table: Table, left_out: LeftOut | None = None) -> None:
        super().__init__(table, left_out)
        self.folder = folder

    def sample_id(self, index: int) -> str:
        """Name an image by its path."""
        return str(self.source(index))

    def source(self, index: int) -> Path:
        """Name a file."""
        return self.folder / self.names[index]

    def captions(self, index: int) -> tuple[str, ...]:
        """See `CaptionedImages`."""
        file = self.source(index).with_suffix(_TEXT)
        try:
            require_regular_file(file)
            with file.open("rb") as stream:
                content = stream.read(LONGEST + 4)  # one byte more than a mark and the longest
        except OSError as error:
            raise UnreadableCaptionError(f"the caption cannot be read: {error}") from error
        return parse_captions(content, str(file))


def index_folder(folder: Path, left_out: LeftOut) -> Table:
    """Search a folder for images with text files.

    Args:
        folder: The folder.
        left_out: Filled with images and texts that are alone.

    Returns:
        Arrays `names.*`, sorted as `find_files` does.

    Raises:
        ValueError: If it holds no image.
    """
    images, texts = list[str](), set[str]()
    for name in find_files(folder, IMAGE_SUFFIXES | {_TEXT}):
        if name.endswith(_TEXT):
            texts.add(name)
        elif not name.lower().endswith(_TEXT):
            images.append(name)
    if not images:
        shards = " (it holds tar files: name them, such as {00000..00999}.tar)"
        more = shards if any(folder.glob("*.tar")) else ""
        raise ValueError(f"{folder} holds no image: looked for {LISTED_IMAGE_SUFFIXES}{more}")
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

    Args:
        shards: The tar files.
        table: Their index, see `index_shards`.
        key: Key of the captions in JSON; None finds it.
        left_out: What makes no pair.

    Raises:
        ValueError: If the index is of other shards, or damaged.
    """

    def __init__(
        self,
        shards: Sequence[Path],
        table: Table,
        left_out: LeftOut | None = None,
        *,
        key: str | None = None,
    ) -> None:
        super().__init__(table, left_out)
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
        where = self.sample_id(index)
        offset, size, is_json = (int(self.table[name][index]) for name in TEXTS)
        if not 0 <= size <= LONGEST:
            raise UnreadableCaptionError(f"{where}: the index is damaged")
        try:
            content = self.members.read_beside(index, offset, size)
        except OSError as error:
            raise UnreadableCaptionError(f"the caption of {error}") from error
        return parse_captions(
            content, f"the text beside {where}", is_json=bool(is_json), key=self._key
        )

    def checksum(self) -> int:
        """See `CaptionedImages`."""
        return zlib.crc32(self.table[TEXTS[1]].data, self.names.checksum())


class ShardPairs(NamedTuple):
    """The pairs of one shard.

    Attributes:
        images: The images.
        texts: Their captions.
        left_out: What makes no pair.
    """

    images: list[Member]
    texts: list[Member]
    left_out: LeftOut


def index_shards(
    shards: Sequence[Path],
    left_out: LeftOut,
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
        Arrays of `index_members`, and `text.offset`, `text.size` and `text.json` (1 for JSON).

    Raises:
        ValueError: If a shard is damaged or compressed, unless `keep_going`.
    """
    offsets, sizes, kinds = array("q"), array("i"), array("B")

    def images() -> Iterator[tuple[int, Member]]:
        work = functools.partial(pairs_of_shard, key=key, keep_going=keep_going)
        found = ordered_map(work, shards, workers=workers, what="shards", chunk=1)
        for number, pairs in enumerate(found):
            left_out.merge(pairs.left_out)
            for image, text in zip(pairs.images, pairs.texts, strict=True):
                offsets.append(text.offset)
                sizes.append(text.size)
                kinds.append(text.suffix == ".json")
                yield number, image

    table = table_of_members(shards, images())
    texts: dict[str, Any] = dict(zip(TEXTS, map(np.asarray, (offsets, sizes, kinds)), strict=True))
    return Table({**table, **texts}, table.about, kind=CAPTION_KIND)


def pairs_of_shard(shard: Path, *, key: str | None, keep_going: bool = False) -> ShardPairs:
    """Find the pairs of a shard, in the order of its images.

    Args:
        shard: The tar file.
        key: See `index_shards`.
        keep_going: See `index_shards`.

    Raises:
        ValueError: See `index_shards`.
    """
    wanted = (".json",) if key else (".txt", ".json")
    images: dict[str, list[Member]] = {}
    texts: dict[str, list[Member]] = {}
    dotted: dict[str, str] = {}  # a mask beside an image (`key.seg.png`), or an image that is lost
    found = ShardPairs([], [], LeftOut())
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
        found.left_out.add("damaged", str(error))
        return found
    for name, members in images.items():
        beside = sorted(texts.pop(name, []), key=lambda text: wanted.index(text.suffix))
        if problem := _problem(members, beside):
            found.left_out.add(problem, f"{shard}:{members[0].name}")
        else:
            found.images.append(members[0])
            found.texts.append(beside[0])
    for name in sorted(dotted.keys() - images.keys()):
        found.left_out.add("dotted", f"{shard}:{dotted[name]}")
    for members in texts.values():
        found.left_out.add("unpictured", f"{shard}:{members[0].name}")
    return found


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
    """The pairs of several sources, as a manifest mixes them.

    Args:
        sources: The sources.
        entries: What the manifest says of each.
    """

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
    """Some of the images of a source, each with all of its captions.

    What makes no pair is counted by the source.

    Args:
        pairs: The source.
        indices: Indexes of the images.
    """

    def __init__(self, pairs: CaptionedImages, indices: Sequence[int]) -> None:
        super().__init__()
        self._pairs, self._places = pairs, np.asarray(indices, np.int64)

    def __len__(self) -> int:
        return len(self._places)

    def _locate(self, index: int) -> tuple[CaptionedImages, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"no pair {index} among {len(self)}")
        return self._pairs, int(self._places[index])

    def checksum(self) -> int:
        """See `CaptionedImages`."""
        return zlib.crc32(self._places.tobytes(), self._pairs.checksum())


def hold_out(
    pairs: CaptionedImages, fraction: float, *, name: str
) -> tuple[ChosenCaptions, ChosenCaptions]:
    """Split the images of a source by their names without suffix, of shards by their keys.

    An image stays with all of its captions, and one that a manifest names several times is on one
    side, that of its first name; among those that are held out it comes once.

    Args:
        pairs: The source.
        fraction: Fraction of the images that is held out, see `eva_data.holdout`.
        name: Name of the setting, for messages.

    Returns:
        The images to train on and those that are held out.

    Raises:
        ValueError: If it is not a fraction, or one side would be empty.
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
    """Take some of the pairs of a source, for an index.

    Args:
        table: Its pairs.
        keep: Which are taken, (number of pairs,).

    Returns:
        A table of the same arrays.
    """
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
