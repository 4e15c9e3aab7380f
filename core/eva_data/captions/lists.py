"""Lists of pairs: tables and JSON, of image retrieval and of own data; captions as text.

image,caption                                several lines of one image are several captions of it
{"images": [{"filepath": "val2014", "filename": "a.jpg", "split": "test",
"sentences": [{"raw": "A dog."}, ...]}, ...]}        Karpathy's, of COCO, Flickr30k
{"images": [{"id": 7, "file_name": "a.jpg"}, ...],
"annotations": [{"image_id": 7, "caption": "A dog."}, ...]}      COCO's own
[{"image": "a.jpg", "caption": "A dog."}, ...]                    a caption or a list of them
{"file_name": "a.jpg", "text": "A dog."}                          an object in each line (jsonl)
"""

import json
import logging
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eva_data.files import DEMO_IMAGE_SUFFIXES
from eva_data.index import CAPTION_KIND, Names, Table
from eva_data.tables import JSON_SUFFIXES, LONGEST, find_columns, read_json_list, rows_of_table

logger = logging.getLogger(__name__)

IMAGE_COLUMNS = (
    *("filepath", "image", "image_path", "path", "file_name", "filename", "file", "file_path"),
    *("img", "image_name", "img_path", "image_file", "picture"),
)
CAPTION_COLUMNS = (
    *("title", "caption", "text", "captions", "comment", "sentence", "description", "raw"),
)
BESIDE = ("caption", "captions", "text", "title", "txt")  # keys of JSON beside an image
CAPTIONS, FIRST = "captions", "captions.first"  # texts, and where those of each image begin
LEFT_OUT: Mapping[str, str] = {
    "missing": "missing shard",
    "damaged": "damaged or compressed shard",
    "uncaptioned": "image without a caption",
    "unpictured": "caption without an image",
    "dotted": "image with several dots in its name, whose key ends at the first",
    "empty": "empty caption",
    "long": f"caption of more than {LONGEST:,} bytes",
    "encoding": "caption that is not text in UTF-8",
    "duplicate": "key with several images or captions in one shard",
    "malformed": "entry that is not of the form of its list",
}
_KEPT = 1000  # names of a kind
_SHOWN = 3
_FORMS = (
    'expected [{"image": "a.jpg", "caption": "A dog."}, ...], or "images" with "sentences" '
    '(Karpathy), or "images" and "annotations" (COCO)'
)
Pairs = Iterator[tuple[str, str]]  # path of the image, and a caption


class UnreadableCaptionError(OSError):
    """A caption that is not there, is empty or is not text; the message names its place."""


class LeftOut:
    """What makes no pair: counted by kind, and the first of each named."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.names: dict[str, list[str]] = {}

    def add(self, kind: str, *names: str, count: int = 1) -> None:
        """Count one, or several of a kind.

        Args:
            kind: A key of `LEFT_OUT`.
            *names: Places, and what is wrong with each where that differs.
            count: How many.
        """
        self.counts[kind] = self.counts.get(kind, 0) + count
        kept = self.names.setdefault(kind, [])
        kept += names[: _KEPT - len(kept)]

    def merge(self, other: "LeftOut") -> None:
        """Add what another has counted."""
        for kind, count in other.counts.items():
            self.add(kind, *other.names[kind], count=count)

    def warn(self, where: object) -> None:
        """Log a line for each kind, about the data `where`."""
        for kind, count in self.counts.items():
            first = ", ".join(self.names[kind][:_SHOWN]) + (", ..." if count > _SHOWN else "")
            logger.warning("%s: %s x %s, left out: %s", where, f"{count:,}", LEFT_OUT[kind], first)


def problem_of(caption: str) -> str | None:
    """Find out what is wrong with a caption: a key of `LEFT_OUT`, or None.

    Args:
        caption: Text without space around it.
    """
    if not caption:
        return "empty"
    if "\0" in caption:  # of a hole in a file
        return "encoding"
    try:
        size = len(caption.encode())
    except UnicodeEncodeError:  # half a pair of surrogates, which JSON can spell, or a stray byte
        return "encoding"
    return "long" if size > LONGEST else None


def parse_captions(
    content: bytes, where: str, *, is_json: bool = False, key: str | None = None
) -> tuple[str, ...]:
    """Read the captions that are stored beside an image.

    Args:
        content: Text in UTF-8, also with a byte order mark; or an object of JSON.
        where: Its place.
        is_json: Whether it is JSON.
        key: Key of the captions in it; None takes the first of `BESIDE` that it has.

    Returns:
        One caption at least.

    Raises:
        UnreadableCaptionError: If it is not such text or JSON, or has no caption.
    """
    try:
        text = content.decode("utf-8-sig")
        fields = json.loads(text) if is_json else None
    except (ValueError, RecursionError) as error:
        kind = "JSON" if is_json else "UTF-8"
        raise UnreadableCaptionError(f"{where}: the caption is not {kind} ({error})") from error
    if is_json:
        if not isinstance(fields, dict):
            raise UnreadableCaptionError(f"{where} is not an object of JSON with a caption")
        key = key or next((name for name in BESIDE if fields.get(name) is not None), BESIDE[0])
        if fields.get(key) is None:
            has = ", ".join([*fields][:10])[:200]
            raise UnreadableCaptionError(f"{where} has no {key!r} with a caption: it has {has}")
        texts = texts_of(fields[key], f"{where}, {key!r},")
    else:
        texts = [text.strip()]
    for text in texts:
        if problem := problem_of(text):
            raise UnreadableCaptionError(f"{where}: {LEFT_OUT[problem]}")
    return tuple(texts)


def texts_of(value: Any, where: str) -> list[str]:
    """Take the captions of a value of JSON: a text, or a list of texts.

    Returns:
        One text at least, without space around it.

    Raises:
        UnreadableCaptionError: If it is something else; the message begins with `where`.
    """
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UnreadableCaptionError(
            f"{where} is {type(value).__name__} {str(value)[:50]!r} and not a text, or a list of "
            "texts"
        )
    return [text.strip() for text in texts]


def _accepted(path: str, caption: str, where: str, left_out: LeftOut) -> Pairs:
    """Yield a pair of a list, if it is one."""
    caption = caption.strip()
    if not path:
        left_out.add("unpictured", where)
    elif problem := problem_of(caption):
        left_out.add(problem, f"{where}, {path}")
    else:
        yield path, caption


def pairs_of_list(
    file: Path, left_out: LeftOut, *, split: str | None, image: str | None, caption: str | None
) -> Pairs:
    """Read the pairs of a list.

    Args:
        file: A table with a header, or JSON.
        left_out: Filled with the entries that are not pairs.
        split: Split of a JSON list that has several, or several joined by `+`.
        image: Column or key of the paths; None takes the first of `IMAGE_COLUMNS`.
        caption: Column or key of the captions; None takes the first of `CAPTION_COLUMNS`.

    Raises:
        ValueError: If it is not such a list, has no such columns, or several splits and none is
            named.
    """
    if file.suffix.lower() in JSON_SUFFIXES:
        return _pairs_of_json(file, left_out, split, image, caption)
    return _pairs_of_table(file, left_out, image, caption)


def _pairs_of_table(file: Path, left_out: LeftOut, image: str | None, caption: str | None) -> Pairs:
    roles = {
        "path of the image (image_column)": (image.lower(),) if image else IMAGE_COLUMNS,
        "caption (caption_column)": (caption.lower(),) if caption else CAPTION_COLUMNS,
    }
    columns = find_columns(file, roles)
    path, text = (columns.require(role, known) for role, known in roles.items())
    if path == text:
        raise ValueError(f"{file} has one column for both, {columns.names[path]}: name another")

    def is_row(cells: Sequence[str]) -> bool:
        return Path(cells[path].strip().strip('"')).suffix.lower() in DEMO_IMAGE_SUFFIXES

    def pairs() -> Pairs:
        for number, cells in rows_of_table(columns, is_row=is_row, text=text):
            where = f"{file}, line {number}"
            if cells is None:
                left_out.add("malformed", where)
            else:
                yield from _accepted(cells[path].strip(), cells[text], where, left_out)

    return pairs()


def _pairs_of_json(
    file: Path, left_out: LeftOut, split: str | None, image: str | None, caption: str | None
) -> Pairs:
    content, entries = read_json_list(file), []
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        entries = content["images"]
        if isinstance(content.get("annotations"), list):
            entries = _merged(entries, content["annotations"], file, left_out)
    elif isinstance(content, list):
        entries = content
    if not entries:
        raise ValueError(f"{file} is not a list of images with captions: {_FORMS}")
    wanted = _splits(file, entries, split)
    for number, entry in enumerate(entries, 1):
        where = f"{file}, entry {number}"
        if not isinstance(entry, dict):
            left_out.add("malformed", where)
        elif wanted is None or entry.get("split") in wanted:
            yield from _pairs_of_entry(entry, where, left_out, image, caption)


def _merged(images: list[Any], annotations: list[Any], file: Path, left_out: LeftOut) -> list[Any]:
    """Give COCO's images their captions."""
    captions: dict[Any, list[Any]] = {}
    for number, entry in enumerate(annotations, 1):
        if isinstance(entry, dict) and isinstance(entry.get("image_id"), int | str):
            captions.setdefault(entry["image_id"], []).append(entry.get("caption"))
        else:
            left_out.add("malformed", f"{file}, annotation {number}")
    merged = []
    for number, entry in enumerate(images, 1):
        key = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(key, int | str):
            merged.append({**entry, "caption": captions.pop(key, [])})
        else:
            left_out.add("malformed", f"{file}, image {number}")
    for key, texts in captions.items():
        left_out.add("unpictured", f"{file}, image_id {key!r}"[:300], count=len(texts))
    return merged


def _splits(file: Path, entries: list[Any], split: str | None) -> set[str] | None:
    found = (entry.get("split") for entry in entries if isinstance(entry, dict))
    there = {one for one in found if isinstance(one, str)}
    wanted = None if split is None else {*split.split("+")}
    if (wanted is None and len(there) > 1) or (wanted and not wanted <= there):
        asked = "none is named" if wanted is None else f"{split} is asked for"
        raise ValueError(
            f"{file} holds the splits {', '.join(sorted(there)[:10]) or 'none'}, and {asked}: name "
            f"one behind the path, as {file.name}#{min(there, default='test')}, or several as "
            "#train+restval"
        )
    return wanted


def _pairs_of_entry(
    entry: dict[str, Any], where: str, left_out: LeftOut, image: str | None, caption: str | None
) -> Pairs:
    path = _path(entry, image)
    if not path:
        left_out.add("malformed", f"{where} has no path of an image")
        return
    value = entry.get("sentences") if caption is None else None
    if isinstance(value, list):
        value = [one.get("raw") if isinstance(one, dict) else one for one in value]
    else:
        names = CAPTION_COLUMNS if caption is None else (caption,)
        value = next((entry[name] for name in names if entry.get(name) is not None), None)
    if value is None or value == []:
        left_out.add("uncaptioned", f"{where}, {path}")
        return
    try:
        texts = texts_of(value, where)
    except UnreadableCaptionError as error:
        left_out.add("malformed", str(error))
        return
    for text in texts:
        yield from _accepted(path, text, where, left_out)


def _path(entry: dict[str, Any], image: str | None) -> str:
    folder, name = entry.get("filepath"), entry.get("filename")
    if image is None and isinstance(folder, str) and isinstance(name, str):  # Karpathy's, of COCO
        path = f"{folder}/{name}"
    else:
        names = IMAGE_COLUMNS if image is None else (image,)
        path = next((entry[name] for name in names if isinstance(entry.get(name), str)), "")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:  # half a pair of surrogates, which JSON can spell and no disk has
        return ""
    return path


def table_of_pairs(pairs: Iterable[tuple[str, str]], about: Any = None) -> Table:
    """Gather the captions of each image.

    Args:
        pairs: Path of the image, and a caption.
        about: Description of the table, such as the state of the list.

    Returns:
        Arrays `names.*`, the images in the order in which they come first; `captions.*`, their
        captions in the order of the list; and `captions.first`, (number of images + 1,).
    """
    numbers: dict[str, int] = {}
    owners = array("q")

    def texts() -> Iterator[str]:
        for path, caption in pairs:
            owners.append(numbers.setdefault(path, len(numbers)))
            yield caption

    captions = Names.collect(texts(), CAPTIONS)
    owner = np.array(owners, np.int64)
    if (np.diff(owner) < 0).any():  # the captions of an image do not follow each other
        order = np.argsort(owner, kind="stable")
        captions = Names.collect((captions[int(place)] for place in order), CAPTIONS)
    counts = np.bincount(owner, minlength=len(numbers))
    arrays: dict[str, NDArray[Any]] = {FIRST: np.concatenate([[0], np.cumsum(counts)])}
    arrays |= captions.arrays() | Names.collect(numbers).arrays()
    return Table(arrays, about, kind=CAPTION_KIND)
