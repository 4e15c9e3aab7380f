"""Pictures with captions by whatever names them.

pairs = open_captions("laion400m/{00000..41455}.tar")
pairs = open_captions("cc3m.csv", root="cc3m/pictures")
pairs = open_captions("dataset_coco.json#test", root="coco")
pairs = open_captions("merged2b.toml")     # several sources, see below

A manifest merges sources and may name an index, see `eva_data.manifests`:

    index = "merged2b.safetensors"      # python tools/verify_data.py captions FILE --write INDEX

    [[source]]
    name = "laion2b"
    shards = "laion2b/{00000..23295}.tar"
    limit = 1600000000

    [[source]]
    name = "own"
    table = "own/pairs.tsv"             # or folder = "own/photos"
    root = "own/photos"                 # of the table's pictures
    caption_column = "title"            # or image_column
"""

import functools
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eva_data.captions.captioned_images import CaptionedImages, MixedCaptions
from eva_data.captions.folders import FolderCaptions, index_folder
from eva_data.captions.json_lists import SUFFIXES, pairs_of_json
from eva_data.captions.left_out import LeftOut
from eva_data.captions.listed import ListedCaptions, table_of_pairs
from eva_data.captions.shards import ShardCaptions, index_pairs
from eva_data.captions.tables import find_columns, pairs_of_table
from eva_data.files import home_expanded
from eva_data.index import CAPTION_KIND, Table, require_unchanged, state_of
from eva_data.manifests import Form, Manifest, SourceEntry, expand_path, read_index
from eva_data.tar import expand_shards, is_shard_pattern

logger = logging.getLogger(__name__)

PAIRS = Form(
    kinds=("shards", "table", "folder"),
    options=("root", "image_column", "caption_column"),
    check="captions",
    index=CAPTION_KIND,
)
SourceCaptions = ShardCaptions | ListedCaptions | FolderCaptions  # of one source
INDEX_SUFFIX = ".safetensors"
FORMS = (
    "tar shards such as {00000..00999}.tar, a table (CSV or TSV with a header), a JSON list of "
    "pictures with captions, a folder of pictures with .txt files, a manifest (.toml), or an index "
    "of tools/verify_data.py captions"
)
_MANY = 200  # shards that are worth an index
_TRIED = 20  # pairs of which one can be read


def open_captions(
    location: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
) -> CaptionedImages:
    """Open pictures with captions in any form in which they lie on disks.

    A warning counts what makes no pair, and names the first of each kind.

    Args:
        location: A pattern of tar shards, see `shards`; a table, see `tables`; a JSON list, see
            `json_lists`, with `#split` behind it where it has several; a folder; a manifest, see
            above; or an index.
        root: Folder of a list's relative paths, by default the list's own; of a manifest's, in
            place of its own; or where the shards or pictures of an index have been moved to.
        image_column: Column of a table, or key of a list, with the pictures' paths; None or an
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
    if path.suffix == ".toml":
        return _open_manifest(path, options)
    if path.suffix == INDEX_SUFFIX:
        return _open_index(path, options)
    entry = entry_of(path, options)
    opened = open_source(entry)
    opened.left_out.warn(entry.location)
    require_readable(opened, entry.location)
    return opened


def entry_of(path: Path, options: dict[str, str]) -> SourceEntry:
    """Find out what kind of source a path names.

    Args:
        path: Pattern, file or folder.
        options: See `PAIRS`.

    Raises:
        ValueError: If it is of no known form.
    """
    for key in without_effect(path):
        if key in options:
            logger.warning("%s=%s has no effect on %s", key, options[key], path)
    return SourceEntry(name="pairs", kind=_kind_of(path), location=str(path), options=options)


def _kind_of(path: Path) -> str:
    return "folder" if path.is_dir() else "shards" if is_shard_pattern(path) else "table"


def without_effect(location: str | os.PathLike[str]) -> tuple[str, ...]:
    """Name the options of `open_captions` that change nothing for what a location names.

    Args:
        location: See `open_captions`; nothing is opened.
    """
    path = home_expanded(location)
    if path.suffix in (".toml", INDEX_SUFFIX):  # which have them
        return ("image_column", "caption_column")
    useless = {"folder": PAIRS.options, "shards": ("root", "image_column")}
    return useless.get(_kind_of(path), ())


@dataclass(frozen=True, kw_only=True)
class Search:
    """How pairs are looked for.

    Attributes:
        workers: Processes that look through shards.
        keep_going: Count missing and damaged shards, and go on.
    """

    workers: int = 1
    keep_going: bool = False


def open_source(
    entry: SourceEntry, table: Table | None = None, *, search: Search = Search()
) -> SourceCaptions:
    """Open a source with all its pairs.

    Args:
        entry: The source.
        table: Its part of an index; None looks for the pairs.
        search: How they are looked for.

    Raises:
        ValueError: If there is none.
    """
    left_out = LeftOut()
    if entry.kind == "shards":
        opened: SourceCaptions = _open_shards(entry, table, left_out, search)
    elif entry.kind == "folder":
        opened = _open_folder(entry, table, left_out)
    else:
        opened = _open_table(entry, table, left_out)
    if not len(opened):
        seen = "; ".join(
            f"{count:,} x {kind}, such as {left_out.names[kind][0]}"
            for kind, count in left_out.counts.items()
        )
        raise ValueError(f"{entry.location} holds no pair of a picture and a caption ({seen})")
    return opened


def _open_shards(
    entry: SourceEntry, table: Table | None, left_out: LeftOut, search: Search
) -> ShardCaptions:
    key, missing = entry.options.get("caption_column"), list[str]()
    # an index is of those that were there
    lenient = search.keep_going or table is not None
    shards = expand_shards(entry.location, missing=missing if lenient else None)
    if table is None:
        for name in missing:
            left_out.add("missing", name)
        if len(shards) >= _MANY and not search.keep_going:
            logger.warning(
                "%s: the headers of %s shards are read at every start; python tools/verify_data.py "
                "captions writes an index", entry.location, f"{len(shards):,}",
            )  # fmt: skip
        table = index_pairs(
            shards,
            key=key,
            workers=search.workers,
            keep_going=search.keep_going,
            left_out=left_out,
        )
    return ShardCaptions(shards, table, key=key, left_out=left_out)


def _open_table(entry: SourceEntry, table: Table | None, left_out: LeftOut) -> ListedCaptions:
    file, split = file_and_split(Path(entry.location))
    root = root_of(entry)
    if table is None:
        pairs = _pairs_of(entry, file, split, left_out)
        table = table_of_pairs(pairs, state_of(file, split))  # which is read after that
    return ListedCaptions(root, table, left_out=left_out)


def root_of(entry: SourceEntry) -> Path:
    """Find the folder of a list's pictures.

    Args:
        entry: The list.

    Raises:
        ValueError: If there is no such folder.
    """
    file, _ = file_and_split(Path(entry.location))
    root = home_expanded(entry.options.get("root", file.parent))
    if not root.is_dir():
        raise ValueError(f"root must be the folder of the pictures, and there is none at {root}")
    return root


def _pairs_of(entry: SourceEntry, file: Path, split: str | None, left_out: LeftOut) -> Any:
    if not file.is_file():
        raise ValueError(f"there is no {file}: name {FORMS}")
    image, caption = (entry.options.get(key) for key in ("image_column", "caption_column"))
    if file.suffix.lower() in SUFFIXES:
        return pairs_of_json(file, left_out, split=split, image=image, caption=caption)
    return pairs_of_table(file, find_columns(file, image=image, caption=caption), left_out)


def file_and_split(path: Path) -> tuple[Path, str | None]:
    """Divide the name of a list into its file and the split behind `#`, if it has one."""
    name, mark, split = path.name.rpartition("#")
    if mark and split and Path(name).suffix.lower() in SUFFIXES and not path.is_file():
        return path.with_name(name), split
    return path, None


def _open_folder(entry: SourceEntry, table: Table | None, left_out: LeftOut) -> FolderCaptions:
    folder = Path(entry.location)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    if table is None:
        table = index_folder(folder, left_out)
    return FolderCaptions(folder, table, left_out=left_out)


def _open_manifest(file: Path, options: dict[str, str]) -> CaptionedImages:
    manifest = Manifest.read(file, root=options.pop("root", None), form=PAIRS)
    for key, value in options.items():
        logger.warning("%s=%s has no effect on %s: write it below a source", key, value, file)
    if manifest.index is not None:
        tables = read_index(manifest, manifest.index)
        for entry, table in zip(manifest.sources, tables, strict=True):
            _require_current(entry, table, manifest.index)
        opened = [open_source(*one) for one in zip(manifest.sources, tables, strict=True)]
        return MixedCaptions(opened, manifest.sources)
    opened = []
    for entry in manifest.sources:
        opened.append(open_source(entry))
        opened[-1].left_out.warn(entry.location)
        require_readable(opened[-1], entry.location)
    return MixedCaptions(opened, manifest.sources)


def _open_index(file: Path, options: dict[str, str]) -> CaptionedImages:
    table = Table.open(file, kind=CAPTION_KIND)
    for key in options.keys() - {"root"}:
        logger.warning("%s=%s has no effect on %s, which has it", key, options[key], file)
    try:
        entries = [SourceEntry(**about[3]) for about in table.about]
        parts = [table.part(about[0], about[2]) for about in table.about]
        openers = [functools.partial(open_source, _moved(entry, options)) for entry in entries]
    except (TypeError, IndexError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{file} is a damaged index: write it again with tools/verify_data.py captions"
        ) from error
    for entry, part in zip(entries, parts, strict=True):
        _require_current(entry, part, file)
    opened = [opener(part) for opener, part in zip(openers, parts, strict=True)]
    return opened[0] if len(opened) == 1 else MixedCaptions(opened, entries)


def _require_current(entry: SourceEntry, table: Table, index: Path) -> None:
    """Refuse an index whose list was edited: it would keep the earlier captions."""
    if entry.kind == "table":
        file, split = file_and_split(Path(entry.location))
        require_unchanged(file, table.about, part=split, index=index)


def _moved(entry: SourceEntry, options: dict[str, str]) -> SourceEntry:
    """Put a source of an index where it is now."""
    place, more = entry.location, dict(entry.options)
    root = options.get("root")
    if root is not None and entry.kind == "table":
        more["root"] = root
    elif root is not None:
        place = root if entry.kind == "folder" else str(Path(root) / Path(place).name)
    return replace(entry, location=place, options=more)


def require_readable(pairs: CaptionedImages, location: str) -> None:
    """Try some pairs, so that a wrong root or column is an error at once.

    Args:
        pairs: The pairs.
        location: Where they lie, for the message.

    Raises:
        ValueError: If none can be read.
    """
    count = min(_TRIED, len(pairs))
    problem: OSError | None = None
    for number in range(count):
        index = number * len(pairs) // count
        try:
            pairs.captions(index)
            pairs.image(index)
        except OSError as error:
            problem = problem or error
        else:
            return
    raise ValueError(
        f"none of {count} pairs of {location} can be read: {problem}; is the folder of the "
        "pictures (root) right, and the column?"
    )
