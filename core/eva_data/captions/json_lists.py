"""Lists of pairs in JSON, of image retrieval and of own data.

{"images": [{"filepath": "val2014", "filename": "a.jpg", "split": "test",
"sentences": [{"raw": "A dog."}, ...]}, ...]}        Karpathy's, of COCO, Flickr30k
{"images": [{"id": 7, "file_name": "a.jpg"}, ...],
"annotations": [{"image_id": 7, "caption": "A dog."}, ...]}      COCO's own
[{"image": "a.jpg", "caption": "A dog."}, ...]                    a caption or a list of them
{"file_name": "a.jpg", "text": "A dog."}                          an object in each line (jsonl)
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eva_data.captions.left_out import LeftOut
from eva_data.captions.listed import accepted
from eva_data.captions.tables import CAPTIONS, IMAGES
from eva_data.captions.texts import UnreadableCaptionError, texts_of

SUFFIXES = (".json", ".jsonl")
_FORMS = (
    'expected [{"image": "a.jpg", "caption": "A dog."}, ...], or "images" with "sentences" '
    '(Karpathy), or "images" and "annotations" (COCO)'
)


def pairs_of_json(
    file: Path,
    left_out: LeftOut,
    *,
    split: str | None = None,
    image: str | None = None,
    caption: str | None = None,
) -> Iterator[tuple[str, str]]:
    """Read the pairs of a JSON file.

    Args:
        file: The list.
        left_out: Filled with the entries that are not pairs.
        split: Split of a list that has several, or several joined by `+`.
        image: Key of the path; None takes the first of `IMAGES` that an entry has.
        caption: Key of the captions; None takes the first of `CAPTIONS`.

    Yields:
        Path of the picture, and a caption.

    Raises:
        ValueError: If it is not such a list, or has several splits and none is named.
    """
    content, entries = _load(file), []
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        entries = content["images"]
        if isinstance(content.get("annotations"), list):
            entries = _joined(entries, content["annotations"], file, left_out)
    elif isinstance(content, list):
        entries = content
    if not entries:
        raise ValueError(f"{file} is not a list of pictures with captions: {_FORMS}")
    wanted = _splits(file, entries, split)
    for number, entry in enumerate(entries, 1):
        where = f"{file}, entry {number}"
        if not isinstance(entry, dict):
            left_out.add("malformed", where)
        elif wanted is None or entry.get("split") in wanted:
            yield from _pairs(entry, where, left_out, image, caption)


def _load(file: Path) -> Any:
    place, entries = f"{file}", []
    try:
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix.lower() != ".jsonl":
            return json.loads(text)
        for number, line in enumerate(text.split("\n"), 1):
            place = f"{file}, line {number},"
            if line.strip():
                entries.append(json.loads(line))
    except json.JSONDecodeError as error:
        more = f" ({error.msg}, character {error.pos})"
        raise ValueError(f"{place} is not JSON{more}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is not JSON: {error}") from error
    return entries


def _joined(images: list[Any], annotations: list[Any], file: Path, left_out: LeftOut) -> list[Any]:
    """Give COCO's pictures their captions."""
    captions: dict[Any, list[Any]] = {}
    for number, entry in enumerate(annotations, 1):
        if isinstance(entry, dict) and isinstance(entry.get("image_id"), int | str):
            captions.setdefault(entry["image_id"], []).append(entry.get("caption"))
        else:
            left_out.add("malformed", f"{file}, annotation {number}")
    joined = []
    for number, entry in enumerate(images, 1):
        key = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(key, int | str):
            joined.append({**entry, "caption": captions.pop(key, [])})
        else:
            left_out.add("malformed", f"{file}, image {number}")
    for key, texts in captions.items():
        for _ in texts:
            left_out.add("unpictured", f"{file}, image_id {key!r}"[:300])
    return joined


def _splits(file: Path, entries: list[Any], split: str | None) -> set[str] | None:
    there = {
        entry["split"]
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("split"), str)
    }
    wanted = None if split is None else {*split.split("+")}
    shown = ", ".join(sorted(there)[:10]) or "none"
    if wanted is not None and not wanted <= there:
        lacking = ", ".join(sorted(wanted - there))
        raise ValueError(f"{file} does not have the split {lacking}: it has {shown}")
    if wanted is None and len(there) > 1:
        raise ValueError(
            f"{file} holds the splits {shown}: name one behind the path, as "
            f"{file.name}#{min(there)}, or several as #train+restval"
        )
    return wanted


def _pairs(
    entry: dict[str, Any], where: str, left_out: LeftOut, image: str | None, caption: str | None
) -> Iterator[tuple[str, str]]:
    path = _path(entry, image)
    if not path:
        left_out.add("malformed", f"{where} has no path of a picture")
        return
    value = entry.get("sentences") if caption is None else None
    if isinstance(value, list):
        value = [one.get("raw") if isinstance(one, dict) else one for one in value]
    else:
        names = CAPTIONS if caption is None else (caption,)
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
        yield from accepted(path, text, where, left_out)


def _path(entry: dict[str, Any], image: str | None) -> str:
    folder, name = entry.get("filepath"), entry.get("filename")
    if image is None and isinstance(folder, str) and isinstance(name, str):  # Karpathy's, of COCO
        path = f"{folder}/{name}"
    else:
        names = IMAGES if image is None else (image,)
        path = next((entry[name] for name in names if isinstance(entry.get(name), str)), "")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:  # half a pair of surrogates, which JSON can spell and no disk has
        return ""
    return path
