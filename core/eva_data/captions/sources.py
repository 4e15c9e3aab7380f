"""Images with captions as samples, by whatever names them: lists, folders, shards, manifests.

pairs = open_captions("dataset_coco.json#test", root="coco")    # or shards, a table, a folder
"""

import functools
import logging
import os
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eva_data.captions.lists import (
    CAPTIONS,
    FIRST,
    LEFT_OUT,
    UnreadableCaptionError,
    pairs_of_list,
    problem_of,
    read_captions,
    table_of_pairs,
)
from eva_data.captions.shards import ShardCaptions, index_pairs
from eva_data.checks.findings import Findings
from eva_data.files import IMAGE_SUFFIXES, expand_home, find_files, read_regular
from eva_data.images import read_encoded, read_image
from eva_data.index import CAPTION_KIND, INDEX_SUFFIX, FolderFiles, Names, Table, state_of
from eva_data.manifests import Form, SourceEntry, entry_of, expand_path, file_and_split, open_parts
from eva_data.samples import Mixture, Samples, View
from eva_data.tar import expand_shards
from eva_data.tar_index import index_shards

logger = logging.getLogger(__name__)

_TEXT = ".txt"
PAIRS = Form(
    kinds=("shards", "table", "folder"),
    options=("root", "image_column", "caption_column"),
    unit="pairs",
    check="captions",
    index=CAPTION_KIND,
)
FORMS = (
    "tar shards such as {00000..00999}.tar or a folder of them, a table (CSV or TSV with a "
    "header), a JSON list of images with captions, a folder of images with .txt files, a manifest "
    "(.toml), or an index of `eva data verify captions`"
)
_WITHOUT_EFFECT = {
    "index": ("image_column", "caption_column"),  # which it has itself
    "folder": PAIRS.options,
    "shards": ("root", "image_column"),
}


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

    def select(self, which: NDArray[np.bool_]) -> Table:
        """See `StoredFiles`; captions go with their images."""
        counts = np.diff(self.table[FIRST])
        kept = np.flatnonzero(np.repeat(which, counts)).tolist()
        texts = Names.collect((self._texts[position] for position in kept), CAPTIONS)
        first = np.concatenate([[0], np.cumsum(counts[which])])
        images = Table(self.names.arrays()).select(which)
        arrays = {**images, **texts.arrays(), FIRST: first}
        return Table(arrays, self.table.about, kind=CAPTION_KIND)


class FolderCaptions(FolderFiles):
    """Images with a text file of the same name beside each, which is read with its image."""

    def captions(self, index: int) -> tuple[str, ...]:
        """See `CaptionedImages`."""
        file = Path(self.sample_id(index)).with_suffix(_TEXT)
        return read_captions(lambda: read_regular(file), str(file))


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


def open_captions(
    location: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    indexes: Path | None = None,
) -> CaptionedImages:
    """Open images with captions in any form in which they lie on disks.

    A warning counts what makes no pair, and names the first of each kind.

    Args:
        location: A pattern of tar shards, or a folder of them; a table or JSON list, with `#split`
            behind it where it has several; a folder; a manifest; or an index.
        root: Folder of a list's relative paths, by default the list's own; of a manifest's, in
            place of its own; or where the shards or images of an index have been moved to.
        image_column: Column of a table, or key of a list, with the images' paths; None finds it.
        caption_column: The same for the captions; of shards, key of `KEY.json`.
        indexes: Folder for indexes of shards, which later calls map; None reads them into memory.

    Raises:
        ValueError: If a shard is damaged, or there is no pair.
    """
    path = expand_path(os.fspath(location), "the captions")
    settings = {"root": root, "image_column": image_column, "caption_column": caption_column}
    options = {key: os.fspath(value) for key, value in settings.items() if value}
    kind = "index" if path.suffix in (".toml", INDEX_SUFFIX) else entry_of(path, PAIRS).kind
    for key in _WITHOUT_EFFECT.get(kind, ()):
        if options.pop(key, None):
            logger.warning("%s=%s has no effect on %s", key, settings[key], path)
    parts = open_parts(path, PAIRS, options=options, root=options.get("root"))
    opened = [open_source(entry, table, indexes=indexes) for entry, table in parts]
    for (entry, table), pairs in zip(parts, opened, strict=True):
        if table is None:
            pairs.left_out.warn(entry.location)
    if path.suffix != ".toml" and len(opened) == 1:
        return opened[0]
    sources, entries = [pairs.source for pairs in opened], [entry for entry, _ in parts]
    mixed = CaptionedImages(Mixture(sources, entries))
    for pairs in opened:
        mixed.left_out.merge(pairs.left_out)
    return mixed


def open_source(
    entry: SourceEntry,
    table: Table | None = None,
    *,
    workers: int = 1,
    keep_going: bool = False,
    indexes: Path | None = None,
) -> CaptionedImages:
    """Open a source with all its pairs by its part of an index; without one, look for the pairs.

    `keep_going` counts missing and damaged shards, and goes on. No pair is a ValueError.
    """
    left_out, location = Findings(LEFT_OUT), Path(entry.location)
    files: CaptionFiles
    if entry.kind == "shards":
        key, missing = entry.options.get("caption_column"), list[str]()
        # an index is of those that were there
        lenient = keep_going or table is not None
        shards = expand_shards(entry.location, missing=missing if lenient else None)
        if table is None:
            left_out.add_many("missing", len(missing), missing)
            table = index_shards(
                shards,
                functools.partial(index_pairs, key=key, keep_going=keep_going),
                left_out,
                kind=CAPTION_KIND,
                workers=workers,
                folder=indexes,
                settings=key or "",
            )
        files = ShardCaptions(shards, table, key=key)
    elif entry.kind == "folder":
        table = index_folder(location, left_out) if table is None else table
        files = FolderCaptions(location, table)
    else:
        root = expand_home(entry.options.get("root", location.parent))
        if table is None:
            file, split = file_and_split(location)
            if not file.is_file() or not root.is_dir():
                raise ValueError(
                    f"there is no {file}, or no folder {root} of its images: name {FORMS}"
                )
            state = state_of(file, split)  # before it is read
            image, caption = (entry.options.get(key) for key in PAIRS.options[1:])
            pairs = pairs_of_list(file, left_out, split=split, image=image, caption=caption)
            table = table_of_pairs(pairs, state)
        files = ListedCaptions(root, table)
    if not len(files):
        seen = "; ".join(left_out.lines()) or f"looked for {FORMS}"
        raise ValueError(f"{entry.location} holds no pair of an image and a caption ({seen})")
    return CaptionedImages(files, left_out)
