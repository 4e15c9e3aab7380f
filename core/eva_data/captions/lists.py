"""Lists of pairs, of retrieval (Karpathy's, COCO's) and own: tables and JSON; captions as text."""

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eva_data.checks.findings import Findings, Kind
from eva_data.files import DEMO_IMAGE_SUFFIXES, load_json, printable
from eva_data.index import CAPTION_KIND, Names, Table
from eva_data.tables import find_columns, rows_of_table

IMAGE_COLUMNS = (
    *("filepath", "image", "image_path", "path", "file_name", "filename", "file", "file_path"),
    *("img", "image_name", "img_path", "picture"),
)
CAPTION_COLUMNS = ("title", "caption", "text", "captions", "comment", "sentence", "description")
BESIDE = ("caption", "captions", "text", "title", "txt")  # keys of JSON beside an image
CAPTIONS, FIRST = "captions", "captions.first"  # texts, and where those of each image begin
LEFT_OUT = {
    "missing": Kind("missing shard", "left out"),
    "damaged": Kind("damaged or compressed shard", "left out"),
    "uncaptioned": Kind("image without a caption", "left out"),
    "unpictured": Kind("caption without an image", "left out"),
    "dotted": Kind("image with several dots in its name, whose key ends at the first", "left out"),
    "empty": Kind("empty caption", "left out"),
    "encoding": Kind("caption that is not text in UTF-8", "left out"),
    "duplicate": Kind("key with several images or captions in one shard", "left out"),
    "malformed": Kind("entry that is not of the form of its list", "left out"),
}


class UnreadableCaptionError(OSError):
    """A caption that is not there, is empty or is not text; the message names its place."""


def problem_of(caption: str) -> str | None:
    """Find out what is wrong with a caption without space around it: a key of `LEFT_OUT`."""
    if not caption:
        return "empty"
    try:
        caption.encode()
    except UnicodeEncodeError:  # half a pair of surrogates, which JSON can spell, or a stray byte
        return "encoding"
    return "encoding" if "\0" in caption else None  # of a hole in a file


@contextlib.contextmanager
def _explain_errors(where: str) -> Iterator[None]:
    """Turn what reading raises into an `UnreadableCaptionError` that begins with `where`."""
    try:
        yield
    except (OSError, ValueError, RecursionError, AttributeError) as error:
        raise UnreadableCaptionError(f"{where}: no caption can be read ({error})") from error


def read_captions(
    read: Callable[[], bytes], where: str, *, is_json: bool = False, key: str | None = None
) -> tuple[str, ...]:
    """Read the captions that are stored beside an image: UTF-8, also with a mark, or JSON.

    `read` gives the content, and `key` is that of the captions in JSON; None takes the first of
    `BESIDE` that it has. An `UnreadableCaptionError` begins with `where`.
    """
    with _explain_errors(where):
        value: Any = read().decode("utf-8-sig")
        if is_json:
            value = _first_of(json.loads(value), (key,) if key else BESIDE)
    return captions_of(value, where)


def captions_of(value: Any, where: str) -> tuple[str, ...]:
    """Take the captions of a value: a text, or a list of texts; errors as of `read_captions`."""
    with _explain_errors(where):
        texts = _texts_of(value)
    for problem in filter(None, map(problem_of, texts)):
        raise UnreadableCaptionError(f"{where}: {LEFT_OUT[problem].text}")
    return tuple(texts)


def _first_of(fields: dict[str, Any], names: Iterable[str]) -> Any:
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _texts_of(value: Any) -> list[str]:
    """Take the captions, one at least, of a value of JSON: a text, or a list of texts."""
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(caption, str) for caption in texts):
        raise ValueError(f"{str(value)[:50]!r} is not a text, or a list of texts")
    return [caption.strip() for caption in texts]


def pairs_of_list(
    file: Path, left_out: Findings, *, split: str | None, image: str | None, caption: str | None
) -> Iterator[tuple[str, str]]:
    """Read the pairs of a table with a header, or of JSON: path of the image, and a caption.

    `left_out` is filled with the entries that are not pairs. Of a JSON list `split` is one of its
    splits, or several joined by `+`. Without a column (or key) of the paths or captions, the first
    of `IMAGE_COLUMNS` or `CAPTION_COLUMNS` is taken.
    """
    names = (image,) if image else IMAGE_COLUMNS, (caption,) if caption else CAPTION_COLUMNS
    if file.suffix.lower() == ".json":
        pairs = _entries_of_json(file, left_out, split, *names)
    else:
        pairs = _rows(file, left_out, *names)
    for where, path, texts in pairs:
        if not path:
            left_out.add("unpictured", where)
        for line in map(str.strip, texts if path else ()):
            problem = problem_of(line)
            if problem:
                left_out.add(problem, f"{where}, {path}")
            else:
                yield path, line


def images_of_list(
    file: Path, left_out: Findings, *, split: str | None, image: str | None
) -> Iterator[str]:
    """Read the paths of images of a list as `pairs_of_list`, with captions or without."""
    names = (image,) if image else IMAGE_COLUMNS
    if file.suffix.lower() == ".json":
        entries = _entries_of_json(file, left_out, split, names, ())
    else:
        entries = _rows(file, left_out, names, ())
    return (path for _, path, _ in entries)


Keys = tuple[str, ...]  # of paths or captions, the first that is there counts
Entries = Iterator[tuple[str, str, list[str]]]  # place in the list, path of the image, captions


def _rows(file: Path, left_out: Findings, image: Keys, caption: Keys) -> Entries:
    roles = {"image": [name.lower() for name in image], "text": [name.lower() for name in caption]}
    columns = find_columns(file, roles)
    path, cell = (columns.places.get(role) for role in roles)
    if path is None or (caption and cell in (None, path)):
        shown = printable(", ".join(columns.names)[:200])
        message = f"{file} has the columns {shown}; that of the images is {' or '.join(image)}"
        if caption:
            message += f", that of the captions another, {' or '.join(caption)}"
        message += (
            ": name others by image_column, caption_column (--image-column, --caption-column)"
        )
        raise ValueError(message)

    def is_row(cells: list[str]) -> bool:
        is_path = len(cells) == len(columns.names) and '"' not in "".join(cells)
        return is_path and Path(cells[path].strip()).suffix.lower() in DEMO_IMAGE_SUFFIXES

    for number, cells in rows_of_table(columns, is_row=is_row):
        where = f"{file}, line {number}"
        if cells is None:
            left_out.add("malformed", where)
        else:
            yield where, cells[path], [] if cell is None else [cells[cell]]


def _entries_of_json(
    file: Path, left_out: Findings, split: str | None, image: Keys, caption: Keys
) -> Entries:
    content = load_json(file)
    entries = content.get("images") if isinstance(content, dict) else content
    if not isinstance(entries, list) or not entries:
        raise ValueError(
            f'{file} is no list of images with captions: expected [{{"image": "a.jpg", "caption": '
            '"A dog."}, ...], or "images" with "sentences" (Karpathy), or "annotations" (COCO)'
        )
    if caption and isinstance(content, dict) and isinstance(content.get("annotations"), list):
        entries = _merged(entries, content["annotations"], file, left_out)
    entries_of_split = _splits(file, entries, split)
    for number, entry in enumerate(entries, 1):
        where = f"{file}, entry {number}"
        try:
            if entries_of_split and entry.get("split") not in entries_of_split:
                continue
            path, value = _path(entry, image), _first_of(entry, caption)
            if caption == CAPTION_COLUMNS and entry.get("sentences") is not None:
                value = [sentence["raw"] for sentence in entry["sentences"]]
            if not caption:
                yield where, path, []
            elif value is None or value == []:
                left_out.add("uncaptioned", f"{where}, {path}")
            else:
                yield where, path, _texts_of(value)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            left_out.add("malformed", f"{where}: {error}")


def _path(entry: dict[str, Any], image: Keys) -> str:
    folder, name = entry.get("filepath"), entry.get("filename")
    path = next((entry[key] for key in image if isinstance(entry.get(key), str)), "")
    if image == IMAGE_COLUMNS and isinstance(folder, str) and isinstance(name, str):
        path = f"{folder}/{name}"  # Karpathy's, of COCO
    if not os.fsencode(path):  # which half a pair of surrogates, that no disk has, is refused by
        raise ValueError("it has no path of an image")
    return path


def _merged(images: list[Any], annotations: list[Any], file: Path, left_out: Findings) -> list[Any]:
    """Give COCO's images their captions."""
    captions: dict[Any, list[Any]] = {}
    for number, entry in enumerate(annotations, 1):
        if isinstance(entry, dict) and isinstance(entry.get("image_id"), int | str):
            captions.setdefault(entry["image_id"], []).append(entry.get("caption"))
        else:
            left_out.add("malformed", f"{file}, annotation {number}")
    merged = []
    for entry in images:
        key = entry.get("id") if isinstance(entry, dict) else None
        is_key = isinstance(key, int | str)
        merged.append({**entry, "caption": captions.pop(key, [])} if is_key else None)
    for key, texts in captions.items():
        left_out.add_many("unpictured", len(texts), [f"{file}, image_id {key!r}"[:300]])
    return merged


def _splits(file: Path, entries: list[Any], split: str | None) -> list[str]:
    names = (entry.get("split") for entry in entries if isinstance(entry, dict))
    available = sorted({name for name in names if isinstance(name, str)})
    splits = split.split("+") if split else []
    if (not splits and len(available) > 1) or not {*splits} <= {*available}:
        raise ValueError(
            f"{file} holds the splits {', '.join(available[:10]) or 'none'}, and {split} is "
            "asked for: "
            f"name one behind the path, as {file.name}#{min(available, default='test')}, or "
            f"several as #train+restval"
        )
    return splits


def table_of_pairs(pairs: Iterable[tuple[str, str]], about: Any = None) -> Table:
    """Gather the captions of each image from pairs of a path and a caption.

    The arrays are `names.*`, the images in the order in which they come first; `captions.*`, their
    captions in the order of the list; and `captions.first`, (number of images + 1,).
    """
    captions: dict[str, list[str]] = {}
    for path, caption in pairs:
        captions.setdefault(path, []).append(caption)
    counts = [len(texts) for texts in captions.values()]
    texts = itertools.chain.from_iterable(captions.values())
    arrays: dict[str, NDArray[Any]] = {FIRST: np.cumsum([0, *counts], dtype=np.int64)}
    arrays |= Names.collect(texts, CAPTIONS).arrays() | Names.collect(captions).arrays()
    return Table(arrays, about, kind=CAPTION_KIND)
