"""Sizes of many pictures, from their headers."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from eva_data.images import UnreadableImageError, image_size
from eva_data.object_data.content import Size
from eva_data.pools import ordered_map

_FEW = 20_000  # pictures that one process looks at in some seconds
_MOST_WORKERS = 8


def read_sizes(folder: Path, names: Sequence[str]) -> list[Size | str]:
    """Read the sizes of pictures as they are seen upright, with a progress bar.

    Args:
        folder: Folder of the pictures.
        names: Their names.

    Returns:
        Height and width of each, or why it cannot be read.
    """
    workers = 1 if len(names) < _FEW else min(_MOST_WORKERS, os.cpu_count() or 1)
    work = functools.partial(_size, str(folder))
    return list(ordered_map(work, names, workers=workers, what="sizes of pictures", chunk=256))


def _size(folder: str, name: str) -> Size | str:
    try:
        return image_size(f"{folder}/{name}", upright=True)
    except UnreadableImageError as error:
        return str(error)
