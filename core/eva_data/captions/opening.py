"""Images with captions by whatever names them.

pairs = open_captions("laion400m/{00000..41455}.tar")
pairs = open_captions("cc3m.csv", root="cc3m/images")
pairs = open_captions("dataset_coco.json#test", root="coco")
pairs = open_captions("merged2b.toml")     # several sources, see below

A manifest merges sources and may name an index, see `eva_data.manifests`:

    index = "merged2b.safetensors"      # eva data verify captions FILE --write INDEX

    [[source]]
    name = "laion2b"
    shards = "laion2b/{00000..23295}.tar"
    limit = 1600000000

    [[source]]
    name = "own"
    table = "own/pairs.tsv"             # or folder = "own/photos"
    root = "own/photos"                 # of the table's images
    caption_column = "title"            # or image_column
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from eva_data.captions.lists import LEFT_OUT, pairs_of_list, table_of_pairs
from eva_data.captions.sources import (
    CaptionedImages,
    FolderCaptions,
    ListedCaptions,
    MixedCaptions,
    ShardCaptions,
    SourceCaptions,
    index_folder,
    index_shards,
)
from eva_data.checks.findings import Findings
from eva_data.files import home_expanded
from eva_data.index import (
    CAPTION_KIND,
    INDEX_SUFFIX,
    Table,
    damaged,
    require_unchanged,
    state_of,
)
from eva_data.manifests import Form, Manifest, SourceEntry, expand_path, read_index
from eva_data.tar import expand_shards, is_shard_pattern

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
_TRIED = 20  # pairs of which one can be read


def open_captions(
    location: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
) -> CaptionedImages:
    """Open images with captions in any form in which they lie on disks.

    A warning counts what makes no pair, and names the first of each kind.

    Args:
        location: A pattern of tar shards; a table or JSON list, see `lists`, with `#split` behind
            it where it has several; a folder; a manifest, see above; or an index.
        root: Folder of a list's relative paths, by default the list's own; of a manifest's, in
            place of its own; or where the shards or images of an index have been moved to.
        image_column: Column of a table, or key of a list, with the images' paths; None or an
            empty text finds it by its name.
        caption_column: The same for the captions; of shards, key of `KEY.json`.

    Returns:
        The pairs, in the order of the shards or the list, or sorted by path.

    Raises:
        FileNotFoundError: If there is no such manifest or index.
        ValueError: If there is no such data, it is in no known form, a shard is damaged, it holds
            no pair, or none of its first ones can be read.
    """
    path = expand_path(os.fspath(location), "the captions")
    given = {"root": root, "image_column": image_column, "caption_column": caption_column}
    options = {key: os.fspath(value) for key, value in given.items() if value}
    for key in without_effect(path):
        if options.pop(key, None):
            logger.warning("%s=%s has no effect on %s", key, given[key], path)
    index: Path | None = None
    if path.suffix == ".toml":
        manifest = Manifest.read(path, root=options.get("root"), form=PAIRS)
        entries, index = manifest.sources, manifest.index
        tables = read_index(manifest)
    elif path.suffix == INDEX_SUFFIX:
        index = path
        entries, tables = _read_index(path, options.get("root"))
    else:
        entries, tables = (entry_of(path, options),), [None]
    for entry, table in zip(entries, tables, strict=True):
        if index is not None and table is not None and entry.kind == "table":
            file, split = file_and_split(Path(entry.location))
            require_unchanged(file, table.about, part=split, index=index)
    opened = [open_source(*one) for one in zip(entries, tables, strict=True)]
    if index is None:
        for source, entry in zip(opened, entries, strict=True):
            source.left_out.warn(entry.location)
            _require_readable(source, entry.location)
    is_manifest = path.suffix == ".toml" or len(opened) > 1
    return MixedCaptions(opened, entries) if is_manifest else opened[0]


def without_effect(path: Path) -> tuple[str, ...]:
    """Name the options of `open_captions` that change nothing for what a location names."""
    if path.suffix in (".toml", INDEX_SUFFIX):  # which have them
        return ("image_column", "caption_column")
    useless = {"folder": PAIRS.options, "shards": ("root", "image_column")}
    return useless.get(_kind_of(path), ())


def _kind_of(path: Path) -> str:
    return "folder" if path.is_dir() else "shards" if is_shard_pattern(path) else "table"


def entry_of(path: Path, options: Mapping[str, str]) -> SourceEntry:
    """Make a source of the path of a pattern, file or folder, with options of `PAIRS`."""
    return SourceEntry(name="pairs", kind=_kind_of(path), location=str(path), options=options)


def open_source(
    entry: SourceEntry, table: Table | None = None, *, workers: int = 1, keep_going: bool = False
) -> SourceCaptions:
    """Open a source with all its pairs; a ValueError if there is none.

    Args:
        entry: The source.
        table: Its part of an index; None looks for the pairs.
        workers: Processes that look through shards.
        keep_going: Count missing and damaged shards, and go on.
    """
    left_out = Findings(LEFT_OUT)
    opened: SourceCaptions
    if entry.kind == "shards":
        opened = _open_shards(entry, table, left_out, workers, keep_going=keep_going)
    elif entry.kind == "folder":
        folder = Path(entry.location)
        table = index_folder(folder, left_out) if table is None else table
        opened = FolderCaptions(folder, table, left_out)
    else:
        opened = _open_list(entry, table, left_out)
    if not len(opened):
        seen = "; ".join(left_out.lines())
        raise ValueError(f"{entry.location} holds no pair of an image and a caption ({seen})")
    return opened


def _open_shards(
    entry: SourceEntry, table: Table | None, left_out: Findings, workers: int, *, keep_going: bool
) -> ShardCaptions:
    key, missing = entry.options.get("caption_column"), list[str]()
    # an index is of those that were there
    lenient = keep_going or table is not None
    shards = expand_shards(entry.location, missing=missing if lenient else None)
    if table is None:
        left_out.add_many("missing", len(missing), missing)
        table = index_shards(shards, left_out, key=key, workers=workers, keep_going=keep_going)
    return ShardCaptions(shards, table, left_out, key=key)


def _open_list(entry: SourceEntry, table: Table | None, left_out: Findings) -> ListedCaptions:
    file, split = file_and_split(Path(entry.location))
    root = home_expanded(entry.options.get("root", file.parent))
    if table is None:
        if not file.is_file() or not root.is_dir():
            raise ValueError(f"there is no {file}, or no folder {root} of its images: name {FORMS}")
        image, caption = (entry.options.get(key) for key in ("image_column", "caption_column"))
        state = state_of(file, split)  # before it is read
        pairs = pairs_of_list(file, left_out, split=split, image=image, caption=caption)
        table = table_of_pairs(pairs, state)
    return ListedCaptions(root, table, left_out)


def file_and_split(path: Path) -> tuple[Path, str | None]:
    """Split the name of a list into its file and the split behind `#`, if it has one."""
    name, mark, split = path.name.rpartition("#")
    if mark and split and name.lower().endswith(".json") and not path.is_file():
        return path.with_name(name), split
    return path, None


def _read_index(file: Path, root: str | None) -> tuple[tuple[SourceEntry, ...], list[Table]]:
    table = Table.open(file, kind=CAPTION_KIND)
    try:
        entries = tuple(_moved(SourceEntry(**about[3]), root) for about in table.about)
        return entries, [table.part(about[0], about[2]) for about in table.about]
    except (TypeError, LookupError, AttributeError) as error:
        raise damaged(file, repr(error)) from error


def _moved(entry: SourceEntry, root: str | None) -> SourceEntry:
    """Put a source of an index where it is now."""
    if root is None:
        return entry
    if entry.kind == "table":
        return replace(entry, options={**entry.options, "root": root})
    place = root if entry.kind == "folder" else str(Path(root) / Path(entry.location).name)
    return replace(entry, location=place)


def _require_readable(pairs: CaptionedImages, location: str) -> None:
    """Try some pairs, so that a wrong root or column is an error at once."""
    count = min(_TRIED, len(pairs))
    problem: OSError | None = None
    for number in range(count):
        index = number * len(pairs) // count
        try:
            pairs.captions(index)
            pairs.image(index)
            return
        except OSError as error:
            problem = problem or error
    raise ValueError(
        f"none of {count} pairs of {location} can be read: {problem}; is the folder of the "
        "images (root) right, and the column?"
    )
