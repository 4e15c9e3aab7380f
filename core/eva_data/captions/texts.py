"""Captions as text: of bytes, and of the JSON that is stored beside a picture."""

import json
from typing import Any

from eva_data.captions.left_out import LONGEST

KEYS = ("caption", "captions", "text", "title", "txt")  # of JSON, where none is named


class UnreadableCaptionError(OSError):
    """A caption that is not there, is empty or is not text; the message names its place."""


def problem_of(caption: str) -> str | None:
    """Find out what is wrong with a caption: a key of `left_out.KINDS`, or None.

    Args:
        caption: Text without space around it.
    """
    if not caption:
        return "empty"
    if len(caption) > LONGEST:
        return "long"
    if "\0" in caption:  # of a hole in a file
        return "encoding"
    try:
        size = len(caption.encode())
    except UnicodeEncodeError:  # half a pair of surrogates, which JSON can spell, or a stray byte
        return "encoding"
    return "long" if size > LONGEST else None


def caption_of_text(content: bytes, where: str) -> str:
    """Read a caption that is stored as text.

    Args:
        content: UTF-8, also with a byte order mark.
        where: Its place.

    Raises:
        UnreadableCaptionError: If it is empty, too long or not UTF-8.
    """
    try:
        text = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise UnreadableCaptionError(f"{where}: the caption is not UTF-8 ({error})") from error
    return _checked(text, where)


def captions_of_json(content: bytes, key: str | None, where: str) -> tuple[str, ...]:
    """Read the captions in the JSON that is stored beside a picture.

    Args:
        content: An object of JSON.
        key: Key of the caption; None takes the first of `KEYS` that it has.
        where: Its place.

    Raises:
        UnreadableCaptionError: If it is not such JSON or has no caption.
    """
    try:
        fields = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UnreadableCaptionError(f"{where} is not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise UnreadableCaptionError(f"{where} is not an object of JSON with a caption")
    if key is None:
        key = next((name for name in KEYS if fields.get(name) is not None), KEYS[0])
    value = fields.get(key)
    if value is None:
        has = ", ".join([*fields][:10])
        raise UnreadableCaptionError(f"{where} has no {key!r} with a caption: it has {has[:200]}")
    return tuple(_checked(text, where) for text in texts_of(value, f"{where}, {key!r}"))


def texts_of(value: Any, where: str) -> list[str]:
    """Take the captions of a value of JSON: a text, or a list of texts.

    Args:
        value: The value.
        where: Its place.

    Returns:
        One text at least, without space around it.

    Raises:
        UnreadableCaptionError: If it is something else.
    """
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        kind = "an empty list" if value == [] else f"{type(value).__name__} {str(value)[:50]!r}"
        raise UnreadableCaptionError(f"{where} is {kind} and not a text, or a list of texts")
    return [text.strip() for text in texts]


def _checked(text: str, where: str) -> str:
    problem = problem_of(text)
    if problem == "empty":
        raise UnreadableCaptionError(f"{where}: the caption is empty")
    if problem == "encoding":
        raise UnreadableCaptionError(
            f"{where}: the caption is not text (a zero byte or half a surrogate)"
        )
    if problem:
        raise UnreadableCaptionError(f"{where}: the caption has more than {LONGEST:,} bytes")
    return text
