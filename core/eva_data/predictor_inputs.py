"""What a `Predictor` of any project takes: one picture, several, a folder or a pattern of paths."""

import logging
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

from eva_data.inputs import files_at, is_several
from eva_data.pictures import UnreadableImageError
from eva_data.suffixes import SHOWN_PICTURES

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


def predicted(
    predict: Callable[[Any], Result],
    source: Any,
    *,
    suffixes: Collection[str] = SHOWN_PICTURES,
    unreadable: type[OSError] = UnreadableImageError,
) -> Result | list[Result] | Iterator[tuple[Path, Result]]:
    """Predict for whatever a user gives.

    Args:
        predict: Function that takes one picture: an array, a path or a PIL image.
        source: One picture; a list or tuple of pictures; a folder, or a pattern such as
            `photos/*.jpg`.
        suffixes: Suffixes of the files that are taken from folders and by patterns.
        unreadable: Error of a file that is passed over.

    Returns:
        One result for one picture; a list for a list, in its order; for a folder or a pattern an
        iterator over pairs of file and result, one in memory at a time. It passes over files that
        cannot be read, with a warning.

    Raises:
        ValueError: If a picture cannot be read, a folder or pattern has none, or the source is
            nothing of the kind: an address, a number, None.
    """
    for one in source if isinstance(source, list | tuple) else (source,):
        _check_kind(one)
    if isinstance(source, list | tuple):
        return [predict(one) for one in source]
    if isinstance(source, str | os.PathLike) and is_several(path := Path(source)):
        return _each(predict, files_at(path, suffixes), unreadable)
    return predict(source)


def _check_kind(one: Any) -> None:
    if isinstance(one, str) and "://" in one:
        raise ValueError(f"{one} is an address and not a file: download it first")
    if one is None or isinstance(one, int | float | dict):
        hint = "; a camera is for the demo" if isinstance(one, int) else ""
        raise ValueError(
            f"{one!r} is not a path, an array or a PIL image, nor a list of these, a folder or a "
            f"pattern{hint}"
        )


def _each(
    predict: Callable[[Any], Result], files: list[Path], unreadable: type[OSError]
) -> Iterator[tuple[Path, Result]]:
    for file in files:
        try:
            result = predict(file)
        except unreadable as error:
            logger.warning("%s", error)
            continue
        yield file, result
