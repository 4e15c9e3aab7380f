"""What can be seen of a list of pairs in a moment, before a training imports torch."""

import os
from pathlib import Path

from eva_data.captions.captioned_images import CaptionedImages
from eva_data.captions.json_lists import SUFFIXES
from eva_data.captions.opening import (
    INDEX_SUFFIX,
    entry_of,
    file_and_split,
    open_source,
    require_readable,
    root_of,
)
from eva_data.captions.tables import find_columns
from eva_data.manifests import expand_path

_SMALL = 4_000_000  # bytes of a list that are read in a moment


def look_at_list(
    location: str | os.PathLike[str], *, root: str, image_column: str, caption_column: str
) -> CaptionedImages | None:
    """Refuse a list of pairs that `open_captions` would refuse, as far as that takes no time.

    Nothing is logged. Of a large table only the header is read; shards, folders, manifests and
    indexes are not opened.

    Args:
        location: See `opening.open_captions`.
        root: Folder of the pictures; empty for the list's own.
        image_column: Column of the pictures; empty finds it.
        caption_column: Column of the captions; empty finds it.

    Returns:
        The pairs of a small list; None of anything else.

    Raises:
        ValueError: If the folder, the columns or the pictures are not there, or there is no pair.
    """
    path = expand_path(os.fspath(location), "the captions")
    given = {"root": root, "image_column": image_column, "caption_column": caption_column}
    options = {key: value for key, value in given.items() if value}
    if path.suffix in (".toml", INDEX_SUFFIX) or path.is_dir():
        return None
    file, _ = file_and_split(Path(path))
    if not file.is_file():  # shards, by a pattern
        return None
    entry = entry_of(path, options)
    if entry.kind != "table":
        return None
    root_of(entry)
    if file.stat().st_size <= _SMALL:
        opened = open_source(entry)
        require_readable(opened, entry.location)
        return opened
    if file.suffix.lower() not in SUFFIXES:
        find_columns(file, image=image_column or None, caption=caption_column or None)
    return None
