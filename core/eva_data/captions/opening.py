"""Images with captions by whatever names them; a manifest merges sources, see `eva_data.manifests`.

pairs = open_captions("dataset_coco.json#test", root="coco")    # or shards, a table, a folder
"""

import functools
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from eva_data.captions.lists import LEFT_OUT, pairs_of_list, table_of_pairs
from eva_data.captions.sources import (
    CaptionedImages,
    CaptionFiles,
    FolderCaptions,
    ListedCaptions,
    ShardCaptions,
    index_folder,
    index_pairs,
)
from eva_data.checks.findings import Findings
from eva_data.files import expand_home
from eva_data.index import CAPTION_KIND, INDEX_SUFFIX, Table, state_of
from eva_data.manifests import Form, SourceEntry, expand_path, file_and_split, open_parts
from eva_data.samples import Mixture
from eva_data.tar import expand_shards, index_shards, is_shard_pattern

logger = logging.getLogger(__name__)

PAIRS = Form(
    kinds=("shards", "table", "folder"),
    options=("root", "image_column", "caption_column"),
    check="captions",
    index=CAPTION_KIND,
)
FORMS = (
    "tar shards such as {00000..00999}.tar, a table (CSV or TSV with a header), a JSON list of "
    "images with captions, a folder of images with .txt files, a manifest (.toml), or an index "
    "of `eva data verify captions`"
)
_WITHOUT_EFFECT = {
    "index": ("image_column", "caption_column"),  # which it has itself
    "folder": PAIRS.options,
    "shards": ("root", "image_column"),
}


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
        location: A pattern of tar shards; a table or JSON list, with `#split` behind it where it
            has several; a folder; a manifest; or an index.
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
    kind = "index" if path.suffix in (".toml", INDEX_SUFFIX) else _kind_of(path)
    for key in _WITHOUT_EFFECT.get(kind, ()):
        if options.pop(key, None):
            logger.warning("%s=%s has no effect on %s", key, settings[key], path)
    parts = open_parts(path, PAIRS, entry_of(path, options), root=options.get("root"))
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


def _kind_of(path: Path) -> str:
    return "folder" if path.is_dir() else "shards" if is_shard_pattern(path) else "table"


def entry_of(path: Path, options: Mapping[str, str]) -> SourceEntry:
    """Make a source of the path of a pattern, file or folder, with options of `PAIRS`."""
    return SourceEntry(name="pairs", kind=_kind_of(path), location=str(path), options=options)


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
        seen = "; ".join(left_out.lines())
        raise ValueError(f"{entry.location} holds no pair of an image and a caption ({seen})")
    return CaptionedImages(files, left_out)
