"""Predictions in COCO's format of results, read object by object: files of them may be large."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eva_data.coco.rules import shown
from eva_data.files import require_regular_file

_CHUNK = 2**20  # characters
_FIELDS = {"bbox", "category_id", "image_id", "score"}


def each_prediction(
    predictions: Sequence[Mapping[str, Any]] | Path,
) -> Iterable[Mapping[str, Any]]:
    """Iterate over predictions, which can be done again.

    Args:
        predictions: Predictions, or a file with a list of them, of which one is in memory at a
            time.

    Returns:
        The predictions in their order.

    Raises:
        ValueError: While it is iterated, if the file is not such a list.
        OSError: Then, if it cannot be read.
    """
    return _File(predictions) if isinstance(predictions, Path) else predictions


class _File:
    def __init__(self, file: Path) -> None:
        require_regular_file(file)
        self._file = file

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        decode = json.JSONDecoder().raw_decode
        with self._file.open(encoding="utf-8") as stream:
            text = stream.read(_CHUNK).lstrip()
            if not text.startswith("["):
                raise ValueError(f"{self._file} is not a list of predictions")
            place = 1
            while True:
                while place < len(text) and text[place] in " \n\r\t,":
                    place += 1
                if text[place : place + 1] == "]":
                    return
                try:
                    one, place = decode(text, place)
                except ValueError as error:
                    more = stream.read(_CHUNK)
                    if not more:
                        raise ValueError(
                            f"{self._file} is not a complete list of predictions: {error}"
                        ) from error
                    text, place = text[place:] + more, 0
                    continue
                if not isinstance(one, dict) or not one.keys() >= _FIELDS:
                    named = ", ".join(sorted(_FIELDS))
                    raise ValueError(f"{self._file} holds {shown(one)}, without {named}")
                yield one
